"""How `forecastd produce` delivers, whatever the source:
its options, its end, and the line that says what became of all.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .errors import CannotStart, Failure, Misuse

if TYPE_CHECKING:
    from ..producers.client import Producer, Stats
    from ..producers.feed import Feed

TO = "tcp://127.0.0.1:5555"
#: Samples that wait for their acknowledgement, and how many rounds of all series fit at least: few enough that the end
#: of a run that goes as fast as it can is not a long wait.
WINDOW, ROUNDS = 10_000, 4
#: Bad samples that are shown; the rest is only counted.
COMPLAINTS_MAX = 10

Command = TypeVar("Command", bound=Callable[..., Any])
#: Where the options of `keyed` are kept, since every command passes them on unseen.
_KEYS = "forecastd.keys"


def keyed(command: Command) -> Command:
    """The options of a connection to a daemon that asks for keys; `given_keys` has them."""

    def remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        context.meta.setdefault(_KEYS, {})[parameter.name] = value

    for option in (
        click.option(
            "--server-key",
            envvar="FORECASTD_SERVER_KEY",
            metavar="KEY|FILE",
            help="The daemon's public key, for an encrypted connection; or $FORECASTD_SERVER_KEY.",
            expose_value=False,
            callback=remember,
        ),
        click.option(
            "--key",
            envvar="FORECASTD_KEY",
            metavar="FILE",
            help="Our own secret key (`forecastd keys new`); or $FORECASTD_KEY.",
            expose_value=False,
            callback=remember,
        ),
    ):
        command = option(command)
    return command


def given_keys() -> tuple[str | None, str | None]:
    """What the options of `keyed` said: our key's file, and the server's key."""
    keys: dict[str, str | None] = click.get_current_context().meta.get(_KEYS, {})
    return keys.get("key"), keys.get("server_key")


def delivery(command: Command) -> Command:
    """The options of every producer: where to, how long, and what survives it."""
    command = keyed(command)
    for option in (
        click.option(
            "--spool",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Keep what is not acknowledged in FILE; the next run with it goes on there.",
        ),
        click.option("--for", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="End after SECONDS."),
        click.option(
            "--to",
            default=TO,
            show_default=True,
            metavar="ENDPOINT",
            help="The daemon's ingest, as it prints it: [router+|pull+|sub+]tcp://HOST:PORT.",
        ),
    ):
        command = option(command)
    return command


@contextmanager
def feeding(to: str, seconds: float | None, spool: Path | None, total: int | None, series: int = 1) -> Iterator[Feed]:
    """A producer at work, from its first sample to the line that says what became of all."""
    from ..producers.client import BadKey, Producer, SpoolError
    from ..producers.feed import Feed

    key, server_key = given_keys()
    try:
        window = max(WINDOW, ROUNDS * series)
        producer = Producer(to, spool=spool, window=window, key=key, server_key=server_key)
    except BadKey as error:
        raise Misuse(str(error)) from None
    except ValueError as error:
        raise Misuse(f"--to {error}") from None
    except (SpoolError, OSError) as error:
        raise CannotStart(said(error)) from error
    try:
        feed = Feed(producer, seconds, lambda text: click.echo(text, err=True))
        _heed_signals(feed)
        with _bar(feed, total):
            yield feed
            whole = feed.finish()
    except OSError as error:
        raise Failure(said(error)) from error
    finally:
        producer.close(0.0)
    stats = producer.stats()
    click.echo(summary(stats, producer.acknowledged))
    if stats.refused.get("late"):
        click.echo("late: those series already have samples of a later time; send under other names", err=True)
    if whole:
        return
    if not spool:
        raise Failure(f"{stats.waiting} samples were not acknowledged; {_advice(producer, stats, to)}")
    click.echo(f"{stats.waiting} samples wait in {spool} for the next run; {_advice(producer, stats, to)}", err=True)


def _advice(producer: Producer, stats: Stats, to: str) -> str:
    if producer.barred:
        return f"the daemon at {to} did not let us in: is --key among its clients, and --server-key its own?"
    if stats.refused.get("unauthorised"):
        return f"the key is not good for what was sent as {producer.name!r}: see `clients` of the daemon"
    return f"is `forecastd run` listening at {to}?"


def summary(stats: Stats, acknowledged: bool) -> str:
    """What became of the samples, in one line."""
    reasons = ", ".join(f"{reason} {n}" for reason, n in sorted(stats.refused.items()))
    parts = (
        f"sent {stats.sent}",
        f"acknowledged {stats.acked}" if acknowledged else "acknowledged none (there is no way back on this socket)",
        f"refused {sum(stats.refused.values())}" + (f" ({reasons})" if reasons else ""),
        f"resent {stats.resent}" if stats.resent else "",
    )
    return ", ".join(filter(None, parts))


def complain(feed: Feed, what: object) -> None:
    """Counts something that is no sample, and shows the first few."""
    feed.producer.refuse("malformed")
    times = feed.producer.stats().refused["malformed"]
    if times <= COMPLAINTS_MAX:
        feed.notice(f"{what}{'; further ones are only counted' if times == COMPLAINTS_MAX else ''}")


def said(error: BaseException) -> str:
    """What an error says, in one line and without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _heed_signals(feed: Feed) -> None:
    """The first signal ends the sending; a second one the process, at once."""
    heard: list[int] = []

    def stop(number: int, _: object) -> None:
        if heard:
            os._exit(1)
        heard.append(number)
        feed.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


@contextmanager
def _bar(feed: Feed, total: int | None) -> Iterator[None]:
    """A bar on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    class Bar(Progress):
        def get_renderables(self) -> Any:
            for task in self.task_ids:
                stats = feed.producer.stats()
                self.update(task, completed=feed.sent, description=f"sent {stats.sent}, acknowledged {stats.acked}")
            return super().get_renderables()

    columns = (BarColumn() if total else SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task("", total=total)
        plain, feed.notice = feed.notice, lambda text: bar.console.print(text, markup=False, highlight=False)
        yield
        feed.notice = plain
