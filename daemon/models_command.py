"""`forecastd models`: the shared model's versions, and which of them serves."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import CannotStart, Failure, Misuse

if TYPE_CHECKING:
    from ..models.checkpoint import Checkpoint
    from .catalogue import Catalogue, Entry

DEFAULT_STATE = "forecastd-state"


def _state(command: Any) -> Any:
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="FORECASTD_RUN_STATE",
        metavar="DIR",
        help=f"The daemon's state folder.  [default: {DEFAULT_STATE}]",
    )(command)


@click.group()
def models() -> None:
    """List, show, import, export and roll back models.

    \b
    forecastd models list
    forecastd models show 2
    forecastd models import plant.keras --promote

    A MODEL is the number of a version, a name, the beginning of a checksum, or a file. Nothing in a file is ever run.
    """


@models.command("list", epilog="\b\nExample:\n  forecastd models list --state forecastd-state")
@_state
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def list_(state: Path | None, as_json: bool) -> None:
    """All versions of the state folder, and the models of the package.

    Also while a daemon runs.
    """
    catalogue = _catalogue(state)
    if as_json:
        click.echo(json.dumps([entry.told() for entry in catalogue.entries], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("version", "name", "status", "made by", "from", "checksum", "since"):
        table.add_column(column, no_wrap=column in ("version", "checksum", "since"))
    for entry in catalogue.entries:
        table.add_row(*_row(entry), style="bold" if entry.status == "champion" else "")
    Console().print(table)


@models.command(epilog="\b\nExamples:\n  forecastd models show general\n  forecastd models show 3 --json | jq .scores")
@click.argument("model")
@_state
@click.option("--json", "as_json", is_flag=True, help="One JSON object, the whole manifest in it.")
def show(model: str, state: Path | None, as_json: bool) -> None:
    """Where a model comes from, what it learned from, how good it was, and when it served."""
    catalogue = _catalogue(state)
    entry = _find(catalogue, model)
    decisions = [
        {"time": one.time, "step": one.step, "reason": one.reason, **one.figures} for one in catalogue.decisions(entry)
    ]
    told = {**entry.told(), "ancestors": catalogue.ancestors(entry), "decisions": decisions}
    if as_json:
        click.echo(json.dumps({**entry.model.manifest, **told}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(entry, told, catalogue):
        table.add_row(name, text)
    Console().print(table)


@models.command(
    epilog="\b\nExamples:\n  forecastd models export general general.keras\n  forecastd models export 3 3.npz"
)
@click.argument("model")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_state
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def export(model: str, file: Path, state: Path | None, force: bool) -> None:
    """Write a model as .npz (plain arrays and a manifest) or as .keras (for Keras)."""
    if file.suffix not in (".npz", ".keras"):
        raise Misuse(f"{file} must end in .npz or .keras")
    if file.exists() and not force:
        raise Failure(f"{file} is there already; --force overwrites it")
    found = _find(_catalogue(state), model).model
    try:
        if file.suffix == ".npz":
            from ..models import checkpoint

            checkpoint.save(file, found)
        else:
            if found.weights.decoder is not None:
                raise Misuse(f"{found.name} knows the way ahead, for which .keras has no place; export it as .npz")
            from ..models import rnn

            rnn.export(file, found.weights)
    except OSError as error:
        raise Failure(f"{file}: {(error.strerror or str(error)).lower()}") from None
    click.echo(f"{file}: {found.name}, checksum {found.sha256[:12]}")


@models.command(
    "import",
    epilog="\b\nExamples:\n  forecastd models import plant.npz\n"
    "  forecastd models import plant.keras --name plant --promote",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_state
@click.option("--name", metavar="NAME", help="What the model is to be called.  [default: as it calls itself]")
@click.option("--promote", is_flag=True, help="Have it serve.")
def import_(file: Path, state: Path | None, name: str | None, promote: bool) -> None:
    """Take a model from a file into the state folder, as a new version.

    With --promote it serves from the daemon's next start on.
    """
    from .catalogue import from_file

    model = _sound(lambda: from_file(file))
    if name:
        model = replace(model, manifest={**model.manifest, "name": name})
    with _Writing(state) as folder:
        number = folder.enter(model)
        if promote:
            folder.promote(number, "by_hand")
    click.echo(f"version {number}: {model.name}, checksum {model.sha256[:12]}{', serves' if promote else ''}")


class _Writing:
    """A state folder that no daemon uses, to be changed."""

    def __init__(self, state: Path | None) -> None:
        from .disk import Failed, Full
        from .record import Foreign
        from .store import Locked, Store

        folder = state or Path(DEFAULT_STATE)
        try:
            self.store = Store.open(folder)
        except Locked as error:
            raise CannotStart(f"{error}: stop it first") from None
        except (Foreign, Failed, Full) as error:
            raise Failure(str(error)) from None
        self.lineage, self.bodies = self.store.lineage(), self.store.models()

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def enter(self, model: Checkpoint) -> int:
        """Its version number, a new one where it is new."""
        from ..models import checkpoint
        from .champion import bare

        model = _sound(lambda: bare(model))
        champions = self._champions()
        if champions is not None:
            _sound(lambda: champions.fitting(model.weights))
        body = _sound(lambda: checkpoint.encode(model))
        number, changes = self.lineage.enter(model.sha256, time.time(), "imported", body)
        self.bodies[model.sha256] = body
        self.store.db.change(changes)
        return number

    def promote(self, number: int, reason: str) -> None:
        """Have that version serve from the next start on."""
        champions = self._champions()
        if champions is None:
            raise Misuse("no model has served from this folder yet: start the daemon once, or name one with --model")
        step = self.lineage.champions[-1].step
        self.store.db.change([_sound(lambda: champions.crown(number, reason, time.time(), step))])

    def _champions(self) -> Any:
        """None where the folder has no champion yet."""
        from ..models import checkpoint
        from .champion import Champions

        champion = self.lineage.champion()
        if champion is None or champion.root not in self.bodies:
            return None
        return Champions(checkpoint.decode(self.bodies[champion.root]), self.lineage, self.bodies)


def _sound(make: Any) -> Any:
    """What `make` gives; a model that is none, or does not fit, is wrong usage."""
    try:
        return make()
    except ValueError as error:
        raise Misuse(" ".join(str(error).split())) from None


def _catalogue(state: Path | None) -> Catalogue:
    """The models of the folder; of the package alone where no folder is named and the default one is not there."""
    from .catalogue import Catalogue
    from .record import Damaged, Foreign
    from .store import Store

    folder = state or Path(DEFAULT_STATE)
    try:
        store = Store.read(folder) if state or folder.exists() else None
        catalogue = Catalogue(store)
    except (FileNotFoundError, Foreign) as error:
        raise Misuse(str(error)) from None
    except Damaged as damage:
        raise Failure(f"{damage}; the daemon sets it aside at its next start") from None
    for report in catalogue.reports:
        click.echo(f"damaged: {report}", err=True)
    return catalogue


def _find(catalogue: Catalogue, name: str) -> Entry:
    found: Entry = _sound(lambda: catalogue.find(name))
    return found


def _row(entry: Entry) -> list[str]:
    told = entry.told()
    return [
        str(entry.version or "–"),
        entry.model.name,
        entry.status,
        str(told["recipe"] or entry.origin or ""),
        (entry.parent or "")[:12],
        entry.model.sha256[:12],
        _when(entry.time),
    ]


def _lines(entry: Entry, told: dict[str, Any], catalogue: Catalogue) -> list[tuple[str, str]]:
    """What `show` tells, line by line."""
    manifest, weights = entry.model.manifest, entry.model.weights
    names = {one.model.sha256: f"{one.model.name} ({_number(one)})" for one in catalogue.entries}
    lines = [
        ("name", entry.model.name),
        ("version", ", ".join(str(word) for word in (entry.version, entry.status) if word) or "none: a file"),
        ("checksum", entry.model.sha256),
        ("shape", f"{weights.units} units, window of {weights.window}, {', '.join(weights.channels)}"),
        ("made by", str(manifest.get("command") or manifest.get("recipe") or entry.origin or "unknown")),
    ]
    lines += [("made from", names.get(sha256, sha256[:12])) for sha256 in told["ancestors"]]
    for name in ("data", "scores"):
        found = manifest.get(name)
        if isinstance(found, dict):
            lines += [(f"{name}: {key.replace('_', ' ')}", _text(value)) for key, value in found.items()]
    if entry.time is not None:
        lines.append((str(entry.origin), _when(entry.time)))
    lines += [(one["reason"].replace("_", " "), f"{_when(one['time'])}{_figures(one)}") for one in told["decisions"]]
    return lines


def _figures(decision: dict[str, Any]) -> str:
    figures = {name: value for name, value in decision.items() if name not in ("time", "step", "reason")}
    return "".join(f", {name.replace('_', ' ')} {_text(value)}" for name, value in figures.items())


def _number(entry: Entry) -> str:
    return f"version {entry.version}" if entry.version else entry.status or "a file"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return " to ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _when(moment: float | None) -> str:
    return "" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
