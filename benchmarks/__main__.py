"""`make bench`: the figures of this machine, as a page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from .section import machine, table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
WORDS = """\
Made by `make bench`. Times differ from machine to machine and from minute to minute; each ratio is to a measure taken
in the same run, side by side, and is the median of several. One core: the engine computes on one."""


@click.command()
@click.option("--only", multiple=True, help="One part, as `forecastd bench --only` takes it.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=PAGE, help="Where to write the page.")
def main(only: tuple[str, ...], out: Path) -> None:
    """Measure this machine, print the table and write the page."""
    command = [
        sys.executable,
        "-m",
        "forecastd",
        "bench",
        "--json",
        *(word for part in only for word in ("--only", part)),
    ]
    measured = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if measured.returncode:
        sys.exit(measured.returncode)
    rows = []
    for figure in map(json.loads, measured.stdout.splitlines()):
        ratio = "" if figure["ratio"] is None else f"{figure['ratio']:,.2f}"
        rows.append(
            [figure["what"], f"{figure['value']:,.2f} {figure['unit']}", figure["against"], ratio, figure["goal"]]
        )
    page = f"# Benchmarks\n\n{WORDS}\n\n{machine()}\n\n" + table(
        ["figure", "value", "against", "ratio", "promised"], rows
    )
    out.write_text(page + "\n")
    click.echo(page)
    click.echo(f"\nwritten to {out}", err=True)


if __name__ == "__main__":
    main()
