"""`forecastd train`: a model from a recipe, or one tuned to recordings, with its progress, scores and a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import Failure, Misuse

if TYPE_CHECKING:
    from rich.console import Console

    from ..models.train import Outcome, Progress

RECIPES = ("tutorial", "sine", "general", "path")
TITLES = {
    "rmse": "RMSE on 20,000 fresh samples",
    "naive_rmse": "… of the naive forecast",
    "floor_rmse": "… of one who knows all but the noise",
    "ten_sample_rmse": "… of the best there can be from ten samples alone",
    "skill": "skill, 1 - RMSE / naive RMSE",
    "median_skill": "median skill on what it has not learned from",
    "worst_skill": "worst skill",
    **{
        f"{which}median_skill_{k}": f"{whose} {k} steps ahead"
        for k in (2, 6, 12, 24)
        for which, whose in (("", "median skill"), ("linear_", "… of linear prediction"))
    },
    "relative_mae": "MAE / naive MAE, geometric mean",
    "parent_relative_mae": "… of the model it was made from",
}
SPARKS = "▁▂▃▄▅▆▇█"


@click.command(
    epilog="""\b
Examples:
  forecastd train --recipe tutorial --plot tutorial.png
  forecastd train --recipe general --out general.npz
  forecastd train --data boiler.csv --data pump.csv --out plant.npz
  forecastd run --model plant.npz""",
)
@click.option(
    "--recipe",
    type=click.Choice(RECIPES),
    help="tutorial: the textbook's 150 points; sine: the same wave, to its floor; general: any signal (the default); "
    "path: any signal, many steps ahead.",
)
@click.option(
    "--data",
    "files",
    type=click.Path(exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="Tune a model to recordings (CSV: timestamp,value) instead; may be repeated.",
)
@click.option(
    "--parent", default="general", show_default=True, metavar="NAME|FILE", help="The model that --data starts from."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.npz",
    help="Where the model goes; its manifest beside it as .json.  [default: RECIPE.npz]",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="A picture: the true curve in red, the forecast dashed in blue.",
)
@click.option(
    "--seed", type=click.IntRange(0, 1 << 31), default=0, show_default=True, help="The same seed gives the same file."
)
@click.option(
    "--steps",
    type=click.IntRange(1, 1_000_000),
    help="Batches to learn from (epochs, for tutorial); more is better and takes longer.  [default: the recipe's]",
)
def train(
    recipe: str | None,
    files: tuple[str, ...],
    parent: str,
    out: Path | None,
    plot: Path | None,
    seed: int,
    steps: int | None,
) -> None:
    """Make a model from a recipe, in a minute or so on one core.

    The result is a file of plain numbers with a manifest that says how it was made. A training that fails (the
    model is dead, diverged, or no better than repeating the last value) ends with status 1 and writes nothing.
    """
    if recipe and files:
        raise Misuse("--recipe and --data exclude each other: --data tunes the model of --parent")
    out = out or Path(f"{recipe or ('refined' if files else 'general')}.npz")
    _writable(out, ".npz")
    if plot:
        _writable(plot, ".png")
    outcome = _work(recipe or "general", files, parent, out.stem, seed, steps)
    _save(outcome, out, plot)
    _tell(outcome, out, plot)


def _work(recipe: str, files: Sequence[str], parent: str, name: str, seed: int, steps: int | None) -> Outcome:
    from rich.console import Console

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from dataclasses import replace

    from ..models import checkpoint
    from ..models.train import RECIPES, TrainingError, refine
    from ..models.train import train as make

    try:
        with Bar(Console(stderr=True)) as progress:
            if files:
                start, recordings = checkpoint.load(parent), _recordings(files)
                return refine(start, recordings, seed, name, **({"steps": steps} if steps else {}), progress=progress)
            chosen = RECIPES[recipe]
            return make(replace(chosen, steps=steps or chosen.steps), seed, name, progress)
    except checkpoint.CheckpointError as error:
        raise Misuse(str(error)) from None
    except TrainingError as error:
        raise Failure(str(error)) from None


def _recordings(files: Sequence[str]) -> list[Any]:
    """The values of the recordings long enough to learn from, arrays of shape (T,)."""
    from ..models.train import RECORDING_MIN
    from ..producers import playback

    try:
        found = playback.read_all(files)
    except (playback.Unreadable, OSError) as error:
        raise Misuse(str(error)) from None
    for recording in found:
        if len(recording) < RECORDING_MIN:
            raise Misuse(
                f"{recording.name} has {len(recording)} samples; at least {RECORDING_MIN} are needed to learn from"
            )
    return [recording.value for recording in found]


class Bar:
    """A progress bar with loss and time to go; gives the function that moves it."""

    def __init__(self, console: Console) -> None:
        from rich import progress

        self.progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("loss {task.fields[loss]}"),
            progress.TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> Progress:
        self.progress.start()
        task = self.progress.add_task("making data", total=None, loss="–")

        def moved(done: int, total: int, loss: float) -> None:
            self.progress.update(task, description="training", completed=done, total=total, loss=f"{loss:.5f}")

        return moved

    def __exit__(self, *_: object) -> None:
        self.progress.stop()


def _writable(path: Path, suffix: str) -> None:
    """Misuse now rather than a failure after a minute's training."""
    if path.suffix != suffix:
        raise Misuse(f"{path} must end in {suffix}")
    if not os.access(path.parent, os.W_OK):
        raise Misuse(f"{path.parent} is no folder that can be written to; make it first, or name another")


def _save(outcome: Outcome, out: Path, plot: Path | None) -> None:
    from ..models import checkpoint

    try:
        checkpoint.save(out, outcome.checkpoint)
        if plot:
            _draw(outcome, plot)
    except OSError as error:
        raise Failure(f"cannot write {error.filename or out}: {error.strerror or error}") from None


def _tell(outcome: Outcome, out: Path, plot: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    manifest = outcome.checkpoint.manifest
    table = Table(
        title=f"{manifest['name']}, from recipe {manifest['recipe']}", title_justify="left", show_header=False
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_row("loss", f"{outcome.losses[0]:.5f} {spark(outcome.losses)} {outcome.losses[-1]:.5f}")
    for name, value in manifest["scores"].items():
        table.add_row(TITLES.get(name, name), f"{value:.4f}")
    table.add_row("SHA-256 of the weights", manifest["sha256"][:16] + "…")
    Console().print(table)
    click.echo(f"model {out}")
    if plot:
        click.echo(f"picture {plot}")


def spark(values: Sequence[float], width: int = 24) -> str:
    """The values as a line of bars, at most `width`, the lowest and the highest at its ends; evenly thinned out."""
    chosen = [values[int(k * len(values) / min(width, len(values)))] for k in range(min(width, len(values)))]
    low, high = min(chosen), max(chosen)
    return "".join(SPARKS[int((v - low) / ((high - low) or 1.0) * (len(SPARKS) - 1))] for v in chosen)


def _draw(outcome: Outcome, path: Path) -> None:
    """The true curve in red, the forecast dashed in blue, a panel a series; and the loss, where it fell."""
    from matplotlib.figure import Figure

    panels = outcome.panels
    figure = Figure(figsize=(10, 2.6 * (len(panels) + 1)), layout="constrained")
    axes = figure.subplots(len(panels) + 1, 1)
    for axis, panel in zip(axes, panels, strict=False):
        axis.plot(panel.truth, color="red", label="true")
        axis.plot(panel.forecast, color="blue", linestyle="dashed", label="forecast, one step ahead")
        axis.set_title(panel.title, loc="left")
        axis.set_xlabel("sample")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    steps = outcome.checkpoint.manifest["steps"]
    axes[-1].plot(
        [(k + 1) * steps / len(outcome.losses) for k in range(len(outcome.losses))], outcome.losses, color="black"
    )
    axes[-1].set_xlabel("step")
    axes[-1].set_yscale("log")
    axes[-1].set_title("loss", loc="left")
    figure.suptitle(f"{outcome.checkpoint.name}: {outcome.checkpoint.manifest['command']}")
    figure.savefig(path, dpi=100)
