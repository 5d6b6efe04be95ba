"""`forecastd bench`: what this machine makes of the kernel, the engine and the wire, as ratios to a measure taken in
the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import click
import numpy as np

from .errors import CannotStart

#: Repeats of each figure; the median is quoted.
REPEATS = 7
SERIES = 10_000
SINGLES_SERIES = 1_000
PAUSE_S = 0.003
#: The engine alone: a trainer that has just started takes whole cores, and what is measured then is who else had them.
ALONE = ("--web", "", "--no-finetune")


class Figure(NamedTuple):
    """A figure, what it is compared with, and the ratio of the two; `goal` is what the project promises of the ratio
    or the figure."""

    what: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    goal: str = ""


def clock(call: Callable[[], Any], number: int) -> float:
    """Median seconds of one `call`, of REPEATS runs of `number` calls each."""
    call()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(number):
            call()
        taken.append((time.perf_counter() - began) / number)
    return median(taken)


def kernel() -> list[Figure]:
    """One sample and many, against Keras and against the machine's own matrix product."""
    from ..models import checkpoint
    from ..models.kernel import Kernel, OpenWindows

    weights = checkpoint.load("general").weights
    made = Kernel(weights)
    random = np.random.default_rng(0)
    windows = random.normal(size=(SERIES, weights.window, len(weights.channels))).astype(np.float32)
    square = random.normal(size=(2048, 2048)).astype(np.float32)
    pairs = [(clock(lambda: made.forward(windows), 1), clock(lambda: square @ square, 1)) for _ in range(3)]
    many_s, product_s = (median(column) for column in zip(*pairs, strict=True))
    stacked = len(made.transposed)
    operations = 2.0 * SERIES * weights.window * stacked * made.units
    rate, own = operations / many_s, 2.0 * 2048**3 / product_s
    opened, count = OpenWindows(made), 0

    def one() -> None:
        nonlocal count
        count += 1
        opened.forecast(0, count, windows[count % SERIES])

    one_s = clock(one, 2000)
    keras = _keras(weights, windows[:1])
    return [
        Figure("one forecast, rolling windows", one_s * 1e6, "µs"),
        Figure("", keras["predict"] * 1e6, "µs", "model.predict", keras["predict"] / one_s, "≥ 2,500"),
        Figure("", keras["function"] * 1e6, "µs", "tf.function", keras["function"] / one_s, "≥ 15"),
        Figure(
            "10,000 series a batch, one core",
            SERIES / many_s,
            "forecasts/s",
            "2048³ matrix product",
            rate / own,
            "≥ 0.75",
        ),
    ]


def _keras(weights: Any, window: Any) -> dict[str, float]:
    """Seconds of one forecast by Keras, after everything else has been measured: TensorFlow starts threads of its
    own."""
    from ..models import rnn

    return {
        name: clock(call, 10 if name == "predict" else 200) for name, call in rnn.callables(weights, window).items()
    }


@contextmanager
def running(*arguments: str) -> Iterator[tuple[dict[str, str], float]]:
    """A daemon on free ports without state: the addresses it printed, and the seconds until it was ready."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "forecastd", "run", "--ephemeral", "--publish", "tcp://127.0.0.1:0", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as daemon:
        assert daemon.stdout is not None
        bound: dict[str, str] = {}
        try:
            for line in map(str.strip, daemon.stdout):
                if line == "ready":
                    break
                what, _, where = line.rpartition(" ")
                bound[what] = where
            else:
                raise CannotStart("the daemon did not start; try `forecastd run --ephemeral` to see why")
            yield bound, time.perf_counter() - began
        finally:
            daemon.terminate()


def start() -> list[Figure]:
    """From `forecastd run` to ready, engine and web process and all; and the help."""
    places = ["--ingest", "tcp://127.0.0.1:0", "--web", "127.0.0.1:0"]
    taken = []
    for _ in range(5):
        with running(*places) as (_, ready_s):
            taken.append(ready_s)

    def ask() -> None:
        subprocess.run([sys.executable, "-m", "forecastd", "--help"], stdout=subprocess.DEVNULL, check=True)

    return [
        Figure("`forecastd run` until ready", median(taken), "s", goal="< 1.5"),
        Figure("`forecastd --help`", clock(ask, 1), "s", goal="< 0.3"),
    ]


def round_trip() -> list[Figure]:
    """Sent to received, idle, against a bare echo through the same kinds of sockets: blocks of each in turn."""
    from .yardstick import RoundTrip

    command = [sys.executable, "-m", "forecastd.daemon.yardstick"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as echo,
        running("--ingest", "tcp://127.0.0.1:0", *ALONE) as (bound, _),
    ):
        assert echo.stdout is not None and echo.stdin is not None
        bare = RoundTrip(*echo.stdout.readline().split())
        daemon = RoundTrip(bound["ingest router"], bound["publish"])
        daemon.measure(200, 0.0)
        blocks = [(bare.measure(100, PAUSE_S), daemon.measure(100, PAUSE_S)) for _ in range(10)]
        bare.close()
        daemon.close()
        echo.stdin.close()
    ratios = [median(ours) / median(theirs) for theirs, ours in blocks]
    theirs, ours = (np.concatenate([block[side] for block in blocks]) * 1e6 for side in (0, 1))
    return [
        Figure("round trip, idle, p50", float(np.median(ours)), "µs", "bare echo", median(ratios), "≤ 1.6"),
        Figure("round trip, idle, p99", float(np.quantile(ours, 0.99)), "µs", "bare echo",
               float(np.quantile(ours, 0.99) / np.quantile(theirs, 0.99))),
    ]  # fmt: skip


def throughput() -> list[Figure]:
    """Columns of 10,000 series, and single samples in JSON, over PULL through the whole engine."""
    from .yardstick import flood

    random = np.random.default_rng(0)
    names = [f"series-{k}" for k in range(SERIES)]
    header = json.dumps({"columns": 1, "n": SERIES, "series": names}).encode()
    columns = [[header, random.normal(size=SERIES).astype("<f8").tobytes()]]
    singles = [[b'{"series":"single-%d","value":%f}' % (k, random.normal())] for k in range(SINGLES_SERIES)]
    figures = []
    for what, payloads, last, size, rounds, goal in (
        ("whole path, columns of 10,000 series", columns, names[-1], SERIES, 20, "≥ 120,000"),
        ("whole path, JSON singles, 1,000 series", singles, "single-999", SINGLES_SERIES, 100, "≥ 40,000"),
    ):
        rates = []
        for _ in range(3):
            with running("--ingest", "pull+tcp://127.0.0.1:0", *ALONE) as (bound, _):
                seconds = flood(bound["ingest pull"], bound["publish"], payloads, last, rounds)
                rates.append(rounds * size / seconds)
        figures.append(Figure(what, median(rates), "samples/s", goal=goal))
    return figures


PARTS = {"kernel": kernel, "start": start, "round-trip": round_trip, "throughput": throughput}


@click.command(
    epilog="""\b
Examples:
  forecastd bench                      all of it, two minutes
  forecastd bench --only round-trip    one part
  forecastd bench --json"""
)
@click.option("--only", type=click.Choice(list(PARTS)), multiple=True, help="Measure this part; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a figure.")
def bench(only: tuple[str, ...], as_json: bool) -> None:
    """Measure kernel, throughput and round trip on this machine.

    Times differ from machine to machine and from minute to minute: the ratios, each to a measure taken in the same
    run, say more."""
    # One core is what the engine has; the variable is read when NumPy's BLAS is loaded, which is why a child measures.
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "forecastd", *sys.argv[1:]])  # noqa: S606
    from rich.console import Console
    from rich.table import Table

    names = only or tuple(PARTS)
    progress = Console(stderr=True)
    figures: list[Figure] = []
    for name in names:
        with progress.status(f"measuring {name} …"):
            figures += PARTS[name]()
    if as_json:
        for figure in figures:
            click.echo(json.dumps(figure._asdict()))
        return
    table = Table("figure", "value", "unit", "against", "ratio", "promised", box=None, pad_edge=False)
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:,.2f}"
        table.add_row(figure.what, f"{figure.value:,.2f}", figure.unit, figure.against, ratio, figure.goal)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
