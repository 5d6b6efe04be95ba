"""`forecastd watch`: forecasts as they come, as a live table, as lines where there is no terminal, or as JSON."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from ..producers.key import BadKey, Curve, curve
from .delivery import given_keys, keyed
from .endpoint import reachable, tcp
from .errors import Misuse
from .subscriber import Subscriber
from .tally import VALUES, Tally, decode, sparkline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DEFAULT = "tcp://127.0.0.1:5556"
#: Silence after which we say what to look at.
PATIENCE_S = 1.5
#: Between two drawings of the table, and between two rounds of lines.
REDRAW_S, LINES_S = 0.2, 1.0
ADVICE_S = 3.0
DRAIN_MAX = 10_000
SERIES_MAX = 10_000  # tallies kept; what comes after is counted only


class Watch:
    """Forecasts of one feed, tallied by series. `names` are exact, or prefixes where they end in `*`; none means
    all."""

    def __init__(self, endpoint: str, names: tuple[str, ...] = (), curve: Curve | None = None) -> None:
        self.endpoint = endpoint
        self.exact = {name for name in names if not name.endswith("*")}
        self.prefixes = tuple(name[:-1] for name in names if name.endswith("*"))
        self.all = not names
        self.curve = curve
        self.subscriber = Subscriber(endpoint, *(name.removesuffix("*") for name in names or ("",)), curve=curve)
        self.tallies: dict[str, Tally] = {}
        self.received = 0
        self.unlisted = 0
        self.heard = time.monotonic()
        self._advice, self._advised = "", float("-inf")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.subscriber.close()

    def messages(self, deadline: float, count: int | None, tick_s: float) -> Iterator[bytes | None]:
        """Each message of a chosen series, and None whenever `tick_s` has passed; until `deadline` (monotonic) or
        `count` messages."""
        tick = time.monotonic() + tick_s
        while (now := time.monotonic()) < deadline:
            if now >= tick:
                tick = now + tick_s
                yield None
            if not self.subscriber.wait(min(tick, deadline) - time.monotonic()):
                continue
            for _ in range(DRAIN_MAX):
                frames = self.subscriber.receive()
                if frames is None:
                    break
                if len(frames) == 2 and self.wants(frames[0].decode(errors="replace")):
                    self.received += 1
                    self.heard = time.monotonic()
                    yield frames[1]
                    if count is not None and self.received >= count:
                        return

    def wants(self, name: str) -> bool:
        """Whether the series was asked for: a subscription to `boiler` brings `boiler-2` as well."""
        if name.startswith("\0"):
            return False  # an event
        return self.all or name in self.exact or name.startswith(self.prefixes)

    def add(self, message: bytes) -> None:
        """Tally a message; what is no forecast is passed over."""
        forecast = decode(message)
        if forecast is None:
            return
        tally = self.tallies.get(forecast.series)
        if tally is None:
            if len(self.tallies) >= SERIES_MAX:
                self.unlisted += 1
                return
            tally = self.tallies[forecast.series] = Tally()
        tally.add(forecast)

    def advice(self) -> str:
        """What to look at while nothing comes; empty while something does. Looked up every few seconds at most."""
        now = time.monotonic()
        if now - self.heard <= PATIENCE_S:
            return ""
        if now - self._advised > ADVICE_S:
            self._advised, self._advice = now, self._find_advice()
        return self._advice

    def _find_advice(self) -> str:
        place = tcp(reachable(self.endpoint))
        if place is not None and not _listens(*place):
            return (
                f"nobody listens at {self.endpoint}: start `forecastd run`, or say --from ENDPOINT (its `publish` line)"
            )
        if not self.received and self.subscriber.barred():
            return f"{self.endpoint} did not let us in: is --key among the daemon's clients, and --server-key its own?"
        if self.received:
            return "the forecasts have stopped: does the producer still run?"
        if self.all:
            return (
                f"connected to {self.endpoint}, but nothing comes: is a producer sending? try `forecastd produce sine`"
            )
        return "nothing of the series asked for: names are exact, NAME* takes all that begin so; does a producer send?"


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 0.3).close()
    except OSError:
        return False
    return True


@click.command(
    epilog="""\b
Examples:
  forecastd watch
  forecastd watch boiler 'plant-7.*'
  forecastd watch --from tcp://10.0.0.7:5556 --for 60
  forecastd watch --from tcp://10.0.0.7:5556 --key desk.key --server-key daemon.pub
  forecastd watch boiler --json --count 10 | jq .mean"""
)
@click.option(
    "--from",
    "endpoint",
    default=DEFAULT,
    metavar="ENDPOINT",
    show_default=True,
    help="The daemon's `publish` endpoint.",
)
@click.option("--json", "as_json", is_flag=True, help="Each forecast as it was published, one a line.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N forecasts.")
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End after this time."
)
@keyed
@click.argument("series", nargs=-1)
def watch(endpoint: str, as_json: bool, count: int | None, seconds: float | None, series: tuple[str, ...]) -> None:
    """Show forecasts as they come: of the SERIES named (NAME* for all that begin so), or of all.

    The table scores each forecast when the next sample comes, against repeating the last value; skill above 0 is better
    than that.
    """
    deadline = time.monotonic() + seconds if seconds else float("inf")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    forgive()
    try:
        keys = curve(*given_keys())
    except BadKey as error:
        raise Misuse(str(error)) from None
    with Watch(endpoint, series, keys) as watching:
        try:
            show = in_json if as_json else in_table if sys.stdout.isatty() else in_lines
            show(watching, deadline, count)
        except KeyboardInterrupt:
            pass  # the way to end it
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has enough: so have we


def forgive() -> None:
    """A terminal that lacks a character gets a question mark instead of ending us."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def in_json(watching: Watch, deadline: float, count: int | None) -> None:
    """Messages as they are, one a line; the advice goes to stderr."""
    advise = on_change(lambda advice: click.echo(f"watch: {advice}", err=True))
    for message in watching.messages(deadline, count, LINES_S):
        if message is not None:
            click.echo(message)
        else:
            advise(watching.advice())


def in_lines(watching: Watch, deadline: float, count: int | None, say: Callable[[str], None] = click.echo) -> None:
    """A line a series that has news, once a second."""
    advise = on_change(say)
    shown: dict[str, int] = {}
    message: bytes | None = b""
    for message in watching.messages(deadline, count, LINES_S):
        if message is not None:
            watching.add(message)
            continue
        _lines(watching, shown, say)
        advise(watching.advice())
    if message is not None:
        _lines(watching, shown, say)


def _lines(watching: Watch, shown: dict[str, int], say: Callable[[str], None]) -> None:
    width = min(24, max(map(len, watching.tallies), default=0))
    for name, tally in sorted(watching.tallies.items()):
        if tally.last is not None and shown.get(name) != tally.count:
            shown[name] = tally.count
            figures = (f"{word} {text}" for word, text in tally.cells().items() if text)
            say("  ".join([f"{time.strftime('%H:%M:%S')} {name:<{width}}", *figures]))


def in_table(watching: Watch, deadline: float, count: int | None) -> None:
    """A table that stays in its place."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for message in watching.messages(deadline, count, REDRAW_S):
            if message is not None:
                watching.add(message)
            else:
                live.update(table(watching, console), refresh=True)
        live.update(table(watching, console), refresh=True)


def table(watching: Watch, console: Console) -> Table:
    """The tallies as a table that fits the screen; what does not fit is counted below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = console.width >= 120
    room = max(1, console.height - 6)
    names = sorted(watching.tallies)
    level = next((100 * t.last.level for t in watching.tallies.values() if t.last and t.last.level), None)
    interval = f"{level:g} % interval" if level else "interval"
    # Widths of their own, so that nothing moves when a digit more comes; the last values take what is left.
    figures = {"value": 9, "forecast": 10, interval: 20, **({"MAE": 9, "naive": 9} if wide else {}), "skill": 5}
    long = min(max([len("series"), *map(len, names)]), 24 if wide else 14)
    marks = len("anomalies") if wide else 0
    left = console.width - long - sum(figures.values()) - marks - 2 * (len(figures) + 3 + wide)
    width = max(6, min(left, VALUES))
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("series", no_wrap=True, overflow="ellipsis", width=long)
    grid.add_column("last values" if width > 10 else "last", no_wrap=True, width=width)
    for heading, least in figures.items():
        grid.add_column(heading, justify="right", no_wrap=True, min_width=least)
    if wide:
        grid.add_column("anomalies", justify="right", no_wrap=True)
    for name in names[:room]:
        tally = watching.tallies[name]
        cells = {key if key != "interval" else interval: text for key, text in tally.cells().items()}
        flagged = bool(cells["anomaly"])
        line = sparkline(tally.values, width, *(() if _blocks(console) else (" .-:=+*#",)))
        style = {"value": "bold red" if flagged else "bold", "forecast": "cyan", "skill": _style(tally.skill)}
        texts = [Text(cells[heading], style=style.get(heading, "")) for heading in figures]
        mark = Text(f"{'! ' if flagged else ''}{tally.anomalies or ''}", style="red" if flagged else "dim")
        grid.add_row(Text(name), Text(line, style="blue"), *texts, *([mark] if wide else []))
    grid.caption = Text(caption(watching, len(names) - room))
    return grid


def caption(watching: Watch, beyond: int) -> str:
    """The line below the table: what to look at, or how much came."""
    if advice := watching.advice():
        return advice
    lost = sum(tally.lost for tally in watching.tallies.values())
    parts = [f"{watching.received} forecasts", f"{lost} lost on the way" if lost else ""]
    parts += [f"{beyond} series more than fit here" if beyond > 0 else "", "Ctrl-C ends"]
    return ", ".join(part for part in parts if part)


def on_change(say: Callable[[str], None]) -> Callable[[str], None]:
    """Says what is not empty and not what it was given last."""
    last = ""

    def maybe(text: str) -> None:
        nonlocal last
        if text and text != last:
            say(text)
        last = text

    return maybe


def _style(skill: float) -> str:
    return "green" if skill > 0 else "yellow" if skill < 0 else ""


def _blocks(console: Console) -> bool:
    return (console.encoding or "").lower().startswith("utf")
