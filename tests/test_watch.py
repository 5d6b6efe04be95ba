"""`forecastd watch`: every forecast scored when its target comes, and help when none comes."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import math
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from rich.console import Console

from forecastd.daemon import watch as watch_module
from forecastd.daemon.tally import Forecast, Tally, decode, number, sparkline
from forecastd.daemon.watch import Watch, caption, table


def forecast(seq: int, value: float, mean: float | None = None, **fields: Any) -> Forecast:
    """The forecast made on seeing `value`, with an interval of ± 1."""
    known = {} if mean is None else {"mean": [mean], "lower": [mean - 1], "upper": [mean + 1]}
    return Forecast(series="s", time=float(seq), value=value, seq=seq, **{**known, **fields})  # type: ignore[arg-type]


def tallied(*forecasts: Forecast) -> Tally:
    tally = Tally()
    for each in forecasts:
        tally.add(each)
    return tally


def test_a_forecast_is_scored_with_the_value_it_was_made_for() -> None:
    """The next one: a forecaster that knows it errs by nothing, one that is a step late errs by each step."""
    values = [0.0, 1.0, 3.0, 6.0, 10.0]
    clairvoyant = tallied(*(forecast(i, values[i], values[i + 1]) for i in range(4)), forecast(4, 10.0))
    assert clairvoyant.mae == 0.0
    assert clairvoyant.skill == 1.0
    naive = tallied(*(forecast(i, value, value) for i, value in enumerate(values)))
    assert naive.mae == naive.mae_naive == pytest.approx(2.5, rel=0.02)
    assert naive.skill == 0.0


def test_errors_of_long_ago_are_forgotten() -> None:
    """Half of the weight is on the last hundred."""
    bad = [forecast(i, float(i % 2), 100.0) for i in range(100)]
    good = [forecast(i, float(i % 2), float((i + 1) % 2)) for i in range(100, 1_100)]
    assert tallied(*bad, *good).mae < 0.2


def test_what_was_lost_on_the_way_is_counted_and_scores_nothing() -> None:
    """The forecast before a gap was for a value that never came here."""
    tally = tallied(forecast(1, 0.0, 50.0), forecast(4, 1.0, 2.0), forecast(5, 2.0))
    assert tally.lost == 2
    assert tally.mae == 0.0


def test_a_daemon_that_begins_anew_has_lost_nothing() -> None:
    """Its count starts again; the forecast of its former life is not scored."""
    tally = tallied(forecast(100, 0.0, 50.0), forecast(1, 1.0, 2.0))
    assert tally.lost == 0
    assert math.isnan(tally.mae)


def test_a_series_that_warms_up_says_so() -> None:
    """No figure is made up for it."""
    cells = tallied(forecast(1, 5.0)).cells()
    assert (cells["value"], cells["forecast"], cells["interval"], cells["MAE"], cells["skill"]) == (
        "5",
        "warming up",
        "",
        "",
        "",
    )


def test_what_is_unknown_is_no_error() -> None:
    """null stands for it in the JSON, in any list."""
    found = decode(
        b'{"series": "s", "time": 1, "value": 2, "seq": 1, "mean": [null], "lower": [null], "upper": [null]}'
    )
    assert found is not None
    assert tallied(found, forecast(2, 1.0)).cells()["MAE"] == ""


@pytest.mark.parametrize("message", [b"", b"{}", b"[1]", b'{"event": "promotion"}', b"\xff", b"[" * 100_000])
def test_what_is_no_forecast_is_passed_over(message: bytes) -> None:
    """The feed may carry events as well."""
    assert decode(message) is None


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], 8, "▁▂▃▄▅▆▇█"),
        ([9, 9, 1, 2], 2, "▁█"),
        ([3, 3, 3], 5, "▁▁▁"),
        ([], 5, ""),
        ([math.nan, 1, math.inf, 2], 5, "▁█"),
        ([-1.7e308, 1.7e308], 5, "▁█"),
    ],
)
def test_a_sparkline_spans_what_it_shows(values: list[float], width: int, expected: str) -> None:
    """The lowest at the bottom, the highest at the top, the newest on the right."""
    assert sparkline(values, width) == expected


def test_figures_have_four_digits() -> None:
    """And NaN is nothing."""
    assert [number(x) for x in (1234567.0, 0.000123456, -0.5, math.nan)] == ["1.235e+06", "0.0001235", "-0.5", ""]


class Publisher:
    """A feed such as the daemon's."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.XPUB)
        self.endpoint = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"
        self.seq = 0
        self.ended = threading.Event()
        self.thread: threading.Thread | None = None

    def start(self, *names: str) -> None:
        """Publish these series, over and over, as soon as anybody listens."""
        self.thread = threading.Thread(target=self._run, args=(names,))
        self.thread.start()

    def _run(self, names: tuple[str, ...]) -> None:
        while not self.ended.wait(0.01):
            self.seq += 1
            for name in names:
                message = {
                    "series": name,
                    "time": time.time(),
                    "value": self.seq,
                    "seq": self.seq,
                    "mean": [self.seq + 1],
                }
                self.socket.send_multipart([name.encode(), json.dumps(message).encode()])

    def close(self) -> None:
        self.ended.set()
        if self.thread:
            self.thread.join()
        self.context.destroy(linger=0)


@pytest.fixture
def feed() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.close()


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forecastd", "watch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **options)


def test_json_lines_are_the_forecasts_as_published(feed: Publisher) -> None:
    """Of the series named and no other, as many as asked for."""
    feed.start("boiler", "boiler-2")
    result = run("--from", feed.endpoint, "--json", "--count", "5", "boiler")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.returncode, result.stderr) == (0, "")
    assert [line["series"] for line in lines] == ["boiler"] * 5
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + 5))


def test_an_event_is_no_forecast(feed: Publisher) -> None:
    """Who watches everything gets those of the feed, too, and shows none."""
    feed.start("\0events", "boiler")
    result = run("--from", feed.endpoint, "--json", "--count", "5")
    assert {json.loads(line)["series"] for line in result.stdout.splitlines()} == {"boiler"}


def test_a_star_takes_all_that_begin_so(feed: Publisher) -> None:
    """A name without one is exact."""
    feed.start("a.1", "a.2", "b")
    result = run("--from", feed.endpoint, "--json", "--count", "20", "a.*")
    assert {json.loads(line)["series"] for line in result.stdout.splitlines()} == {"a.1", "a.2"}


def test_without_a_terminal_it_prints_lines(feed: Publisher) -> None:
    """A line a series each second, with the figures."""
    feed.start("wave", "other")
    result = run("--from", feed.endpoint, "--for", "1.5")
    assert (result.returncode, result.stderr) == (0, "")
    assert sum(" wave " in line for line in result.stdout.splitlines()) == 2
    assert "MAE 0  naive 1  skill +1.00" in result.stdout


def test_it_says_within_seconds_what_to_check_when_nobody_is_there() -> None:
    """Which endpoint it tried, and what would start a daemon."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
    result = run("--from", f"tcp://127.0.0.1:{port}", "--for", "2.5")
    assert result.returncode == 0
    assert f"nobody listens at tcp://127.0.0.1:{port}: start `forecastd run`" in result.stdout


@pytest.mark.parametrize(("names", "hint"), [((), "forecastd produce sine"), (("boiler",), "names are exact")])
def test_it_says_within_seconds_what_to_check_when_nothing_comes(
    feed: Publisher, names: tuple[str, ...], hint: str
) -> None:
    """On stderr where stdout is for machines."""
    result = run("--from", feed.endpoint, "--json", "--for", "2.5", *names)
    assert (result.returncode, result.stdout) == (0, "")
    assert hint in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_is_the_way_to_end_it(feed: Publisher, number: signal.Signals) -> None:
    """Status 0 and no traceback."""
    feed.start("wave")
    command = [sys.executable, "-m", "forecastd", "watch", "--json", "--from", feed.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.send_signal(number)
        errors = process.communicate(timeout=10)[1]
        assert (process.returncode, errors) == (0, b"")


def test_on_a_terminal_a_table_stays_in_its_place(feed: Publisher) -> None:
    """Redrawn as forecasts come; Ctrl-C ends it with status 0, and the cursor is there again."""
    feed.start("wave")
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "forecastd", "watch", "--from", feed.endpoint]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(command, stdout=its, stderr=subprocess.PIPE, env=environment) as process:
        os.close(its)
        shown = b""
        while shown.count(b"wave") < 3:
            shown += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # how a terminal says that its other end is closed
            while data := os.read(ours, 65_536):
                shown += data
        assert process.stderr
        assert (process.wait(10), process.stderr.read()) == (0, b"")
    os.close(ours)
    assert b"forecasts, Ctrl-C ends" in shown
    assert shown.rstrip().endswith(b"\x1b[?25h")


def test_a_reader_who_has_enough_ends_it(feed: Publisher) -> None:
    """`forecastd watch --json | head -1` is no failure."""
    feed.start("wave")
    command = [sys.executable, "-m", "forecastd", "watch", "--json", "--from", feed.endpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


def test_a_wrong_endpoint_is_a_line_that_says_so() -> None:
    """Status 2, as for any wrong usage."""
    result = run("--from", "nonsense")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def watching() -> Iterator[Watch]:
    with Watch("tcp://127.0.0.1:1") as made:
        for seq in range(1, 40):
            for name in ("wave", "a/very/long/name/for/a/table/of/this/width", "日本語"):
                fields = {"series": name, "time": 1.0, "value": 1000 * math.sin(seq), "seq": seq, "level": 0.9}
                flag = seq == 39 and name == "wave"
                known = {"mean": [1.5], "lower": [-123.45], "upper": [1234.5], "anomaly": {"score": 0.5, "flag": flag}}
                made.add(json.dumps({**fields, **known}).encode())
        yield made


def shown(watching: Watch, width: int, height: int = 20, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(width=width, height=height, file=file, color_system=None)
    console.print(table(watching, console))
    file.flush()
    return file.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("width", [80, 100, 130, 200])
def test_the_table_fits_the_terminal(watching: Watch, width: int) -> None:
    """Each figure whole, whatever the width; the sparkline takes the room that is left."""
    text = shown(watching, width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("wave", "▁", "█", "-123.5 … 1234", "90 % interval", "1.5"):
        assert word in text
    assert ("! 1" in text) == (width >= 120)


def test_a_terminal_without_blocks_gets_letters(watching: Watch) -> None:
    """And no error of encoding."""
    text = shown(watching, 100, encoding="latin-1")
    assert "#" in text
    assert "wave" in text


def test_what_does_not_fit_is_counted(watching: Watch) -> None:
    """Below the table."""
    watching.received, watching.heard = 117, time.monotonic()
    assert "2 series more than fit here" in shown(watching, 100, height=7)
    assert caption(watching, 0) == "117 forecasts, Ctrl-C ends"


def test_series_beyond_the_bound_are_not_tallied(watching: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; those that are known go on."""
    monkeypatch.setattr(watch_module, "SERIES_MAX", 3)
    watching.add(b'{"series": "new", "time": 1, "value": 1}')
    watching.add(b'{"series": "wave", "time": 1, "value": 7, "seq": 40}')
    assert "new" not in watching.tallies
    assert watching.unlisted == 1
    assert watching.tallies["wave"].last is not None and watching.tallies["wave"].last.value == 7
