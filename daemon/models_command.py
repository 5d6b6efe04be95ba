"""`forecastd models`: the shared model's versions, and which of them serves."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .errors import Failure, Misuse

if TYPE_CHECKING:
    from ..models.checkpoint import Checkpoint
    from .catalogue import Catalogue, Entry
    from .control import Order
    from .store import Store

DEFAULT_STATE = "forecastd-state"


def _state(command: Any) -> Any:
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="FORECASTD_RUN_STATE",
        metavar="DIR",
        help=f"The daemon's state folder.  [default: {DEFAULT_STATE}]",
    )(command)


def _match(command: Any) -> Any:
    return click.option(
        "--match", "slot", default="", metavar="MATCH", help="For the series of this [[model]] of the configuration."
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
    for column in ("version", "name", "status", "made by", "from", "checksum", "since", "groups"):
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
@_match
def import_(file: Path, state: Path | None, name: str | None, promote: bool, slot: str) -> None:
    """Take a model from a file into the state folder, as a new version.

    With --promote it serves from the next sample on, or from the daemon's next start.
    """
    from .catalogue import from_file
    from .control import Order

    model = _sound(lambda: from_file(file))
    if name:
        model = replace(model, manifest={**model.manifest, "name": name})
    _do(state, Order("import", slot, promote=promote), _packed(model))


@models.command(epilog="\b\nExamples:\n  forecastd models promote 3\n  forecastd models promote sine")
@click.argument("model")
@_state
@_match
def promote(model: str, state: Path | None, slot: str) -> None:
    """Have a model serve, from the next sample on.

    The one that served until then watches from its shadow: it comes back by itself when the new one turns out worse.
    """
    from .control import Order

    entry = _find(_catalogue(state), model)
    if entry.version is None:
        _do(state, Order("import", slot, promote=True), _packed(entry.model))
    else:
        _do(state, Order("promote", slot, number=entry.version))


@models.command(epilog="\b\nExample:\n  forecastd models rollback --state forecastd-state")
@_state
@_match
def rollback(state: Path | None, slot: str) -> None:
    """Have the version serve whose place the present one took."""
    from .control import Order

    _do(state, Order("rollback", slot))


@models.command(
    epilog="\b\nExamples:\n  forecastd models finetune\n  forecastd models finetune boiler tank.2\n"
    "  forecastd models finetune --shared"
)
@click.argument("series", nargs=-1)
@_state
@click.option("--shared", is_flag=True, help="Tune the shared model instead: a challenger of it goes on trial.")
def finetune(series: tuple[str, ...], state: Path | None, shared: bool) -> None:
    """Have a running daemon tune its copies for these series (all, if none is named) as soon as may be.

    Cool-down and budget hold all the same; what comes of it is among the events of `/api/v1/models`.
    """
    from .control import Order

    _do(state, Order("finetune", series=series, shared=shared))


def _packed(model: Checkpoint) -> bytes:
    from ..models import checkpoint
    from .champion import bare

    packed: bytes = _sound(lambda: checkpoint.encode(bare(model)))
    return packed


def _do(state: Path | None, order: Order, body: bytes = b"") -> None:
    """Have the daemon that uses the folder do it, or do it here where none does."""
    from .control import Told, Unanswered, ask
    from .disk import Failed, Full
    from .record import Damaged, Foreign
    from .store import Locked, Store

    folder = state or Path(DEFAULT_STATE)
    if order.do != "import" and not folder.exists():
        raise Misuse(f"there is no state folder {folder}; --state names another one")
    try:
        try:
            store = Store.open(folder)
        except Locked:
            told = ask(folder, order, body)
        else:
            told = Told(said=_offline(store, order, body))
    except (Foreign, Failed, Full, Damaged, Unanswered) as error:
        raise Failure(str(error)) from None
    if told.error:
        raise Misuse(told.error)
    click.echo(told.said)


def _offline(store: Store, order: Order, body: bytes) -> str:
    """Do it in a folder that no daemon uses, and let go of it; what is to be said."""
    from ..models import checkpoint
    from .champion import Champions

    try:
        if order.do == "finetune":
            raise Misuse(f"no daemon uses {store.folder}; only a running one learns")
        lineage, bodies = store.lineage(), store.models()
        champion = lineage.champion(order.slot)
        if champion is not None and champion.root in bodies:
            champions = Champions(checkpoint.decode(bodies[champion.root]), lineage, bodies, order.slot)
            done = _sound(lambda: champions.obey(order, body, time.time(), champion.step))
            store.db.change(done.changes)
            return str(done.said)
        if order.do != "import" or order.promote:
            whom = f" the series of [[model]] {order.slot!r}" if order.slot else ""
            raise Misuse(
                f"no model has served{whom} from this folder yet: start the daemon once, or name one with --model"
            )
        model = _sound(lambda: checkpoint.decode(body))
        number, changes = lineage.enter(model.sha256, time.time(), "imported", body)
        store.db.change(changes)
        return f"version {number}: {model.name}, is kept"
    finally:
        store.close()


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
        ", ".join(entry.groups),
    ]


def _lines(entry: Entry, told: dict[str, Any], catalogue: Catalogue) -> list[tuple[str, str]]:
    """What `show` tells, line by line."""
    manifest, weights = entry.model.manifest, entry.model.weights
    names = {one.model.sha256: f"{one.model.name} ({_number(one)})" for one in catalogue.entries}
    lines = [
        ("name", entry.model.name),
        ("version", ", ".join(str(word) for word in (entry.version, entry.status) if word) or "none: a file"),
        ("checksum", entry.model.sha256),
        *(("serves", group) for group in entry.groups),
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
