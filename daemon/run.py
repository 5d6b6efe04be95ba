"""`forecastd run`: the daemon, under its supervisor."""

from __future__ import annotations

import logging

import click

from .options import Resolved, options
from .supervisor import Supervisor


@click.command(
    epilog="""\b
Examples:
  forecastd run
  forecastd run --ingest tcp://127.0.0.1:5555 --ingest pull+tcp://127.0.0.1:5557
  forecastd run --config forecastd.toml --horizon 12 --web 127.0.0.1:0
  FORECASTD_RUN_LEVEL=0.95 forecastd run --ephemeral

\b
A setting of a table has a flag, too (limits.series: --limits-series);
`forecastd config show` lists them all, and where each comes from."""
)
@options
def run(resolved: Resolved) -> None:
    """Forecast what arrives, until told to end.

    Prints a line for each socket with the address really bound, and then `ready`. SIGTERM or Ctrl-C works off what has
    arrived and ends; a second one ends at once. SIGHUP reads the files again: the clients, and those settings that
    may change meanwhile.
    """
    logging.basicConfig(level=logging.INFO, format="forecastd: %(message)s")
    Supervisor(resolved.settings, click.echo, again=resolved.again).run()
