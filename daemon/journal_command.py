"""`forecastd journal`: what is in a state folder, and whether it is whole."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from .errors import Failure, Misuse

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group()
def journal() -> None:
    """Verify and export what is in a state folder.

    \b
    forecastd journal verify forecastd-state
    forecastd journal export forecastd-state > samples.csv

    Both only read; a daemon may be using the folder.
    """


@journal.command()
@click.argument("folder", type=_FOLDER)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(folder: Path, as_json: bool) -> None:
    """Check every checksum, and count what is there.

    Goes through journal and snapshots as a daemon would at its start, and says what it would then have: samples,
    series, and how far it is with each producer. Exit status 1 where something is damaged.

    \b
    forecastd journal verify forecastd-state
    forecastd journal verify forecastd-state --json | jq .producers
    """
    from .inventory import verify as inspect

    found = inspect(_store(folder))
    producers = {
        name: {"epoch": a.epoch, "seq": a.seq, "samples": a.samples, "duplicates": a.duplicates, "gaps": a.gaps}
        for name, a in sorted(found.producers.items())
    }
    if as_json:
        told = {
            "ok": found.ok,
            "samples": found.samples,
            "series": found.series,
            "producers": producers,
            "models": found.models,
            "copies": found.copies,
            "snapshots": found.snapshots,
            "problems": found.problems,
        }
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"{found.samples} samples of {found.series} series")
        for name, account in producers.items():
            click.echo(f"  {name!r}: " + ", ".join(f"{what} {number}" for what, number in account.items()))
        click.echo(f"{found.models} models, {found.copies} copies, {found.snapshots} snapshots")
        for problem in found.problems:
            click.echo(f"damaged: {problem}")
        click.echo("whole" if found.ok else "not whole")
    if not found.ok:
        sys.exit(1)


@journal.command()
@click.argument("folder", type=_FOLDER)
@click.option("--series", metavar="NAME", help="Only this series, as timestamp,value: what `backtest` reads.")
@click.option(
    "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Here instead of stdout."
)
def export(folder: Path, series: str | None, output: Path | None) -> None:
    """Write the samples of the journal as CSV, in the order they were taken.

    Times are in seconds since the epoch: `time` as the producer gave it (empty: it gave none), `received` when the
    daemon took it. `seq` is empty where the producer does not number its samples. The journal reaches back as far as
    journal_s and journal_bytes let it.

    \b
    forecastd journal export forecastd-state > samples.csv
    forecastd journal export forecastd-state --series boiler --output boiler.csv
    """
    from .inventory import samples
    from .record import Damaged

    store = _store(folder)
    with ExitStack() as stack:
        file = stack.enter_context(output.open("w", newline="")) if output else sys.stdout
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("timestamp", "value") if series else _COLUMNS)
        try:
            for sample in samples(store):
                if series is None:
                    writer.writerow(_row(sample))
                elif sample.series == series:
                    writer.writerow((_known(sample.time, sample.received), sample.value))
        except Damaged as damage:
            raise Failure(f"{damage}; what comes before it is exported") from None


_COLUMNS = ("series", "time", "value", "received", "producer", "epoch", "seq")


def _row(sample: Any) -> tuple[Any, ...]:
    numbered = (sample.producer, sample.epoch, sample.seq) if sample.seq else ("", "", "")
    return (sample.series, _known(sample.time, ""), sample.value, sample.received, *numbered)


def _known(time: float, otherwise: float | str) -> float | str:
    return time if time == time else otherwise


def _store(folder: Path) -> Any:
    from .record import Damaged, Foreign
    from .store import Store

    try:
        return Store.read(folder)
    except (FileNotFoundError, Foreign) as error:
        raise Misuse(str(error)) from None
    except Damaged as damage:
        raise Failure(
            f"{damage}; the daemon sets it aside at its next start and goes on from the last snapshot"
        ) from None
