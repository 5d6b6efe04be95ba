"""`make bench-accuracy`: what was promised of the forecasts, measured, as a page.

Each table is a function of a `Size` that gives a `Section`; a new one is a line in `TABLES`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

# Before numpy is loaded: the matrices are small, a second thread only waits for the first, on a busy machine for ever.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import click

from .corpus import FULL, QUICK, Size, folder
from .section import Section, machine, table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "accuracy.md"


class Entry(NamedTuple):
    """Where a table is made: a module beside this one, and the function in it."""

    module: str
    function: str


TABLES = {
    "tutorial": Entry("skill", "tutorial"),
    "waves": Entry("skill", "simulated"),
    "real": Entry("skill", "recorded"),
    "intervals": Entry("intervals", "table"),
    "spike": Entry("shocks", "spike"),
    "switch": Entry("shocks", "switch"),
    "horizon": Entry("ahead", "table"),
    "seasons": Entry("season", "table"),
    "anomalies": Entry("anomaly", "table"),
    "succession": Entry("succession", "way_back"),
    "cost": Entry("cost", "table"),
    "peers": Entry("peers", "table"),
}


@click.command()
@click.option("--quick", is_flag=True, help="Fewer seeds and samples: whether it runs, not what it shows.")
@click.option("--only", default="", metavar="A,B,…", help=f"Some of the tables: {', '.join(TABLES)}.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=PAGE,
    metavar="FILE.md",
    help="Where to write the page.",
)
@click.option("--check", is_flag=True, help="Fail when a promise is not kept.")
def main(quick: bool, only: str, out: Path, check: bool) -> None:
    """Measure the accuracy that was promised, and write the page."""
    names = only.replace(",", " ").split() or list(TABLES)
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise click.UsageError(f"no table is called {unknown[0]!r}; there are {', '.join(TABLES)}")
    size = QUICK if quick else FULL
    sections = []
    for name in names:
        start = perf_counter()
        entry = TABLES[name]
        make: Callable[[Size], Section] = getattr(
            importlib.import_module(f".{entry.module}", __package__), entry.function
        )
        section = make(size)
        click.echo(f"{name}: {perf_counter() - start:.0f} s", err=True)
        click.echo(section.markdown() + "\n")
        sections.append(section)
    out.write_text(page(sections, size, names), encoding="utf-8")
    missed = [promise.what for section in sections for promise in section.checks if not promise.kept]
    click.echo(f"{out} written; promises missed: {', '.join(missed) or 'none'}", err=True)
    if check and missed:
        sys.exit(1)


def page(sections: list[Section], size: Size, names: list[str]) -> str:
    """The sections as one Markdown page, what was promised first."""
    command = (
        "make bench-accuracy" if names == list(TABLES) else f"python -m benchmarks.accuracy --only {','.join(names)}"
    )
    promises = [check.row() for section in sections for check in section.checks]
    data = "" if folder() else " The real series were not there, and are left out."
    words = (
        f"Written by `{command}{' --quick' if size.quick else ''}` on {machine()}.{data} Every figure comes from that "
        f"run; the forecasts do not depend on the "
        "machine, what they cost does. Each forecast was made before its sample was seen; `skill` is 1 − RMSE / RMSE "
        "of repeating the last value, `relMAE` is MAE / its MAE, averaged "
        "geometrically over series. [backtest.md](backtest.md) defines the rest, `forecastd backtest` measures your "
        "own series."
    )
    parts = ["# Accuracy", words]
    if size.quick:
        parts.append("**A quick run: it shows that everything runs, and nothing else.**")
    parts += ["## What was promised", table(["what", "measured", "at least", "aim", ""], promises)] if promises else []
    return "\n\n".join([*parts, *(section.markdown() for section in sections)]) + "\n"


if __name__ == "__main__":
    main()
