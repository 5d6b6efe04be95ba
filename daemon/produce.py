"""`forecastd produce`: sends samples from simulated waves, recordings, standard input or Prometheus to the daemon."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .delivery import complain, delivery, feeding, said
from .errors import Failure, Misuse
from .simulated import sine, waves

if TYPE_CHECKING:
    from ..producers.feed import Feed


@click.group(
    epilog="""\b
Examples:
  forecastd produce sine
  forecastd produce waves --kind two-tone --kind outliers --series 100
  forecastd produce csv boiler.csv --rate 10
  vmstat 1 | awk 'NR > 2 { print "idle", $15; fflush() }' | forecastd produce stdin
  forecastd produce prometheus 'rate(http_requests_total[1m])'

\b
A sample is sent until the daemon has acknowledged it. Ctrl-C ends the sending;
then one line says how many were sent, acknowledged and refused."""
)
def produce() -> None:
    """Send samples to a daemon."""


produce.add_command(sine)
produce.add_command(waves)


@produce.command(
    short_help="Recordings, at their own pace or another.",
    epilog="""\b
Examples:
  forecastd produce csv boiler.csv
  forecastd produce csv boiler.csv pump.csv --speed 60
  forecastd produce csv plant.csv --series inlet --series outlet --rate 10
  forecastd produce csv boiler.csv --rate 0""",
)
@click.argument("files", type=click.Path(exists=True, dir_okay=False, path_type=Path), nargs=-1, required=True)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="X times as fast as it was recorded.  [default: 1]",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0),
    metavar="R",
    help="R samples a second of each series instead; 0: as fast as it goes.",
)
@click.option("--now", is_flag=True, help="Give the samples the time they are sent at instead of the recorded one.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N samples of each series.")
@click.option("--series", multiple=True, metavar="NAME", help="Only this series; may be repeated.")
@delivery
def csv(
    files: tuple[Path, ...],
    speed: float | None,
    rate: float | None,
    now: bool,
    count: int | None,
    series: tuple[str, ...],
    to: str,
    seconds: float | None,
    spool: Path | None,
) -> None:
    """Recordings: CSV files whose first column is a time and each other one a series.

    The first line names the columns; `timestamp,value` is the plain case, and its series is named by the file. Times
    may be ISO 8601 with or without a zone (UTC), YYYYMMDD, a year, or seconds or milliseconds since the epoch. Empty
    cells are skipped and counted.
    """
    from ..producers import feed, playback

    if speed is not None and rate is not None:
        raise Misuse("--speed keeps the recorded pace and --rate replaces it; give one of them")
    if now and rate == 0:
        raise Misuse(
            "--now needs a pace: with --rate 0 all samples would have one time; give another --rate, or --speed"
        )
    pace = None if rate is not None else speed or 1.0
    try:
        found = playback.read_all(files)
    except (playback.Unreadable, OSError) as error:
        raise Failure(said(error)) from error
    recordings = [recording for recording in found if len(recording) and (not series or recording.name in series)]
    if missing := [name for name in series if name not in {recording.name for recording in found}]:
        raise Misuse(f"no series {missing[0]!r}; there is {', '.join(recording.name for recording in found)}")
    if not recordings:
        raise Failure("nothing to send: all cells are empty")
    for recording in recordings:
        skipped = f", {recording.skipped} empty cells skipped" if recording.skipped else ""
        click.echo(f"{recording.name}: {len(recording)} samples{skipped}")
    with feeding(to, seconds, spool, sum(min(len(each), count or len(each)) for each in recordings)) as line:
        if now:
            recordings = feed.restamped(recordings, pace, rate or 0.0, time.time())
            pace = pace and 1.0
        feed.play_recordings(line, recordings, pace, rate or 0.0, count)


@produce.command(
    short_help="Lines `name value [time]`.",
    epilog="""\b
Examples:
  echo "boiler 71.3" | forecastd produce stdin
  tail -F boiler.log | awk '{ print "boiler", $3; fflush() }' | forecastd produce stdin
  seq 1000 | forecastd produce stdin --series counter""",
)
@click.option("--series", metavar="NAME", help="All lines are of this series and have no name: `value [time]`.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N samples.")
@delivery
def stdin(series: str | None, count: int | None, to: str, seconds: float | None, spool: Path | None) -> None:
    """Lines of standard input: `name value [time]`.

    The time is in seconds since the epoch or ISO 8601; without one it is now. A line that is no sample is reported,
    counted as malformed, and the next one is read. Blank lines and lines that begin with # are passed over.
    """
    from ..producers.lines import Malformed, Splitter

    splitter = Splitter(series or "")
    with feeding(to, seconds, spool, count) as feed:
        for chunk in _chunks(feed):
            for item in splitter.feed(chunk) if chunk else splitter.end():
                if isinstance(item, Malformed):
                    complain(feed, item)
                elif not feed.room(1):
                    return
                else:
                    feed.producer.send(*item)
                    feed.sent += 1
                    if feed.sent == count:
                        return


@produce.command(
    short_help="The results of a Prometheus query.",
    epilog="""\b
Examples:
  forecastd produce prometheus 'rate(http_requests_total[1m])'
  forecastd produce prometheus node_load1 --url http://monitor:9090 --every 15 --since 3600
  forecastd produce prometheus up --series '{job}/{instance}'""",
)
@click.argument("query")
@click.option("--url", default="http://127.0.0.1:9090", show_default=True, help="The Prometheus server.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=15.0, show_default=True, metavar="SECONDS", help="Ask so often."
)
@click.option(
    "--since", type=click.FloatRange(min=0), metavar="SECONDS", help="First send what it said in the last SECONDS."
)
@click.option(
    "--series",
    default="",
    metavar="FORMAT",
    help="Name the series by labels, as '{job}/{instance}'.  [default: all labels]",
)
@click.option("--token-file", type=click.File(), metavar="FILE", help="Send the bearer token in FILE.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N queries.")
@delivery
def prometheus(
    query: str,
    url: str,
    every: float,
    since: float | None,
    series: str,
    token_file: Any,
    count: int | None,
    to: str,
    seconds: float | None,
    spool: Path | None,
) -> None:
    """The results of a Prometheus query, asked again and again.

    Each series of the result is a series here, named by its labels, so any metric can be forecast without touching its
    exporter. A server that does not answer is asked again.
    """
    from ..producers.prometheus import QueryError, Sample, Source, Unreachable

    try:
        source = Source(url, query, series, token_file.read().strip() if token_file else "")
    except ValueError as error:
        raise Misuse(str(error)) from None
    trouble = ""

    def ask(get: Callable[[], list[Sample]]) -> list[Sample]:
        nonlocal trouble
        try:
            samples = get()
            trouble = ""
            return samples
        except Unreachable as error:
            if trouble != str(error):
                trouble = str(error)
                feed.notice(f"{trouble}; asking again")
            return []
        except QueryError as error:
            raise Failure(f"Prometheus refuses the query: {error}") from error

    with feeding(to, seconds, spool, None) as feed:
        asked, due = 0, feed.start + (every if since else 0.0)
        batch = ask(lambda: source.history(time.time() - (since or 0), time.time(), every)) if since else []
        while True:
            for at in range(0, len(batch), 1000):
                names, values, times = zip(*batch[at : at + 1000], strict=True)
                if not feed.send(names, values, times):
                    return
            if asked == count or not feed.sleep_until(due):
                return
            asked += 1
            batch = ask(lambda: source.poll(time.time()))
            # What was missed while a query hung, or the machine slept, is not made up for.
            due += every * max(1, math.ceil((time.monotonic() - due) / every))


def _chunks(feed: Feed) -> Iterator[bytes]:
    """Standard input as it comes, and at its end an empty chunk."""
    while not feed.over:
        feed.look()
        if select.select([0], [], [], 0.1)[0]:
            chunk = os.read(0, 1 << 16)
            yield chunk
            if not chunk:
                return
