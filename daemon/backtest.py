"""`forecastd backtest`: recordings through the daemon's own pipeline, as fast as it goes, and what its forecasts were
worth.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import Failure, Misuse

if TYPE_CHECKING:
    from rich.console import Console

    from ..models.weights import Weights
    from ..producers.playback import Recording
    from .replay import Progress, Trace
    from .settings import Settings

_FILE = click.Path(exists=True, dir_okay=False)
_NEW = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(
    epilog="""\b
Examples:
  forecastd backtest boiler.csv
  forecastd backtest *.csv --report report.html
  forecastd backtest plant.csv --horizon 12 --level 0.95 --json > scores.jsonl
  forecastd backtest *.csv --experts rnn --model plant.npz
  forecastd backtest *.csv --compare now.toml next.toml

\b
A file holds timestamp,value, or a time and a column a series. Each forecast is scored against the
sample it was for, and made before that sample was seen. docs/backtest.md says what the figures mean.""",
)
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILES...")
@click.option("-c", "--config", type=_FILE, metavar="FILE", help="Settings as for `forecastd run`; flags win over it.")
@click.option("--horizon", type=int, metavar="N", help="Steps ahead to forecast and score.  [default: 1]")
@click.option("--level", type=float, metavar="P", help="Level of the interval.  [default: 0.9]")
@click.option("--model", metavar="NAME|FILE", help="The model of the expert rnn.  [default: general]")
@click.option(
    "--experts", metavar="A,B,…", help="Experts that take part, as rnn,ar; naive always does.  [default: all]"
)
@click.option("--finetune/--no-finetune", default=None, help="Learn on the way, as live; slower.  [default: no]")
@click.option(
    "--score-from",
    type=click.FloatRange(0.0, 1.0, max_open=True),
    default=0.3,
    show_default=True,
    metavar="SHARE",
    help="The first share of each series is for warming up; what comes after it is scored.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a series, a line each.")
@click.option(
    "--report", type=_NEW, metavar="FILE.html", help="Write a page with charts of every series; it needs no network."
)
@click.option("--plot", type=_NEW, metavar="FILE.png", help="Write a picture.")
@click.option(
    "--compare", nargs=2, type=_FILE, metavar="A.toml B.toml", help="Run both settings and say which is better."
)
def backtest(
    files: tuple[str, ...],
    config: str | None,
    score_from: float,
    as_json: bool,
    report: Path | None,
    plot: Path | None,
    compare: tuple[str, str] | None,
    **flags: Any,
) -> None:
    """Score the daemon on recordings: the same pipeline, as fast as it goes."""
    # the matrices are small: a second thread only waits for the first, on a busy machine for ever
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for path in (report, plot):
        if path is not None and not path.resolve().parent.is_dir():
            raise Misuse(f"{path}: there is no folder {path.resolve().parent}; make it first")
    if compare is not None:
        if report or plot or config:
            raise Misuse("--compare runs two settings; --config, --report and --plot are for one: leave them out")
        _compare(load(files), compare, flags, score_from, as_json)
        return
    settings = settings_from(config, flags)
    recordings = load(files)
    traces = run(recordings, settings, model_of(settings))
    # files first: whoever reads the figures through a pipe may hang up before the end
    written = _draw(traces, settings, score_from, report, plot)
    _tell(traces, score_from, as_json)
    for line in written:
        click.echo(line, err=as_json)


def settings_from(path: str | None, flags: dict[str, Any]) -> Settings:
    """The settings of a file, or the defaults, with what the flags say in their place; Misuse when they are none.

    Nothing is learnt unless one of them says so."""
    from .options import read, settings_of
    from .settings import Settings

    document = {"finetune": False} | (read(path) if path else {})
    document |= {name: value for name, value in flags.items() if value is not None}
    if flags.get("experts") is not None:
        document["experts"] = [name for name in str(flags["experts"]).replace(",", " ").split() if name]
    if flags.get("level") is not None:
        # the further levels stay as they are, but none is kept twice
        document["levels"] = [p for p in document.get("levels", Settings().levels) if p != flags["level"]]
    if flags.get("model") is not None and "rnn" not in document.get("experts", Settings().experts):
        raise Misuse(
            "--model is for the expert rnn, which does not take part: add it to --experts, or leave --model out"
        )
    return settings_of(document)


def model_of(settings: Settings) -> Weights | None:
    """The model the settings name, where an expert needs one; Misuse when there is none of that name."""
    from ..models import checkpoint

    try:
        model = checkpoint.serving(settings.model, settings.experts, settings.horizon)
    except checkpoint.CheckpointError as error:
        raise Misuse(f"{error}; or leave the rnn out: --experts naive,ses,ar10,ar,seasonal") from None
    return model.weights if model else None


def load(files: Sequence[str]) -> list[Recording]:
    """The series of all files under names that differ; Failure where one cannot be read."""
    from ..producers import playback

    found: list[tuple[Path, Recording]] = []
    for file in files:
        try:
            found += [(Path(file), recording) for recording in playback.read(file)]
        except (playback.Unreadable, OSError) as error:
            raise Failure(str(error)) from None
    names = distinct([(path, recording.name) for path, recording in found])
    return [
        playback.Recording(name, recording.time, recording.value, recording.skipped)
        for name, (_, recording) in zip(names, found, strict=True)
    ]


def distinct(series: Sequence[tuple[Path, str]]) -> list[str]:
    """A name for each series of a file: its own where no other has it, else with as much of the path in front as it
    takes, at last with a number.
    """
    names = [name for _, name in series]
    depth = max((len(path.parts) for path, _ in series), default=0)
    for level in range(depth):
        doubled = {name for name in names if names.count(name) > 1}
        if not doubled:
            return names
        names = [
            _longer(path, own, level) if name in doubled else name
            for name, (path, own) in zip(names, series, strict=True)
        ]
    seen: dict[str, int] = {}
    for k, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[k] = f"{name}#{seen[name]}"
    return names


def _longer(path: Path, own: str, level: int) -> str:
    """`own` with the file's name and `level` folders in front: plant/boiler.hot; a file that is its series is not named
    twice.
    """
    file = path.stem if own == path.stem else f"{path.stem}.{own}"
    return "/".join([*path.parts[:-1][len(path.parts) - 1 - level :], file])


def run(recordings: Sequence[Recording], settings: Settings, weights: Weights | None, what: str = "") -> list[Trace]:
    """Replay, with a progress bar where somebody watches."""
    from .replay import learner, replay

    with _bar(sum(map(len, recordings)), what) as progress:
        return replay(recordings, settings, weights, progress, learner(settings, weights))


def _bar(total: int, what: str) -> AbstractContextManager[Progress | None]:
    from rich.console import Console

    console = Console(stderr=True)
    return _Bar(console, total, what) if console.is_terminal else nullcontext()


class _Bar:
    """A bar on stderr, moved at most ten times a second: drawing it would cost more than the forecasts."""

    def __init__(self, console: Console, total: int, what: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True, refresh_per_second=10)
        self.task = self.progress.add_task(what or "samples", total=total)

    def __enter__(self) -> Progress:
        self.progress.start()
        return lambda done: self.progress.update(self.task, completed=done)

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


def _tell(traces: Sequence[Trace], score_from: float, as_json: bool) -> None:
    from . import tables
    from .grade import grade

    grades = [grade(trace, score_from) for trace in traces]
    if as_json:
        _lines(grades)
    else:
        tables.show_grades(grades)


def _draw(
    traces: Sequence[Trace], settings: Settings, score_from: float, report: Path | None, plot: Path | None
) -> list[str]:
    """Write what was asked for, and say what was written."""
    written = []
    if report is not None:
        from .report import page

        written.append(_write(report, page(traces, settings, score_from).encode()))
    if plot is not None:
        from .picture import png

        written.append(_write(plot, png(traces, score_from)))
    return written


def _write(path: Path, data: bytes) -> str:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror or error}") from None
    return f"{path} written ({len(data) / 1e6:.1f} MB)"


def _lines(objects: Sequence[Any]) -> None:
    import msgspec

    encoder = msgspec.json.Encoder()
    for item in objects:
        click.echo(encoder.encode(item))


def _compare(
    recordings: Sequence[Recording], paths: tuple[str, str], flags: dict[str, Any], score_from: float, as_json: bool
) -> None:
    from . import tables
    from .contest import match, outcome

    both = [settings_from(path, flags) for path in paths]
    models = [model_of(settings) for settings in both]
    a = run(recordings, both[0], models[0], what=paths[0])
    b = run(recordings, both[1], models[1], what=paths[1])
    matches = [match(one, other, score_from) for one, other in zip(a, b, strict=True)]
    if as_json:
        _lines([*matches, {"outcome": outcome(matches), "a": paths[0], "b": paths[1]}])
    else:
        tables.show_matches(matches, outcome(matches), *paths)
