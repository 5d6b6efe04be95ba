"""The command line: one group, whose commands are imported when they are called and not before.

A command is a line in `COMMANDS` and a module of its own; `forecastd --help` imports none of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from .. import __version__
from .errors import Failure


class Entry(NamedTuple):
    """Where a command lives (a module beside this one, and the command in it) and what the overview says of it."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "demo": Entry("demo", "demo", "A producer, the daemon and the page on loopback, to look at."),
    "run": Entry("run", "run", "The daemon: samples in, forecasts out."),
    "produce": Entry("produce", "produce", "Send samples: simulated waves, CSV files, stdin, Prometheus queries."),
    "watch": Entry("watch", "watch", "Forecasts as they come, as a live table or as JSON lines."),
    "train": Entry("train", "train", "Make a model from a recipe."),
    "backtest": Entry("backtest", "backtest", "Run CSV files through the daemon's own pipeline, and score it."),
    "models": Entry("models_command", "models", "List, show, import, export and roll back models."),
    "config": Entry("configure", "config", "Write, check and show the configuration."),
    "journal": Entry("journal_command", "journal", "Verify and export what is in a state folder."),
    "keys": Entry("keys", "keys", "Make and list CURVE keys."),
    "bench": Entry("bench", "bench", "Measure this machine: kernel, throughput, round trip."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(f".{entry.module}", __package__)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        entry = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f".{entry.module}", __package__), entry.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if names := self.list_commands(ctx):
            with formatter.section("Commands"):
                formatter.write_dl([(name, COMMANDS[name].summary) for name in names])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("FORECASTD_DEBUG"):
                raise
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise Failure(f"{what} (FORECASTD_DEBUG=1 shows where; please report it)") from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's own, but what went wrong is said in one line, with what to do about it."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            sys.exit(super().main(args, prog_name, complete_var, standalone_mode=False, **extra))
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            line = " ".join(error.format_message().split())
            if isinstance(error, click.UsageError) and error.ctx is not None:
                line += f" Try '{error.ctx.command_path} --help'."
            click.echo(f"Error: {line}", err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(1)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FORECASTD"},
    epilog="Start with `forecastd demo`; `forecastd COMMAND --help` has examples.",
)
@click.version_option(__version__, prog_name="forecastd", message="%(prog)s %(version)s")
def main() -> None:
    """Forecast live signals.

    Producers send samples over ZeroMQ; forecastd forecasts the next values of each series, says how sure it is, and
    shows its own accuracy.
    """
