"""`make bench-learning`: what learning gains in backtests and costs a daemon that serves, for docs/learning.md."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import msgspec
import numpy as np
import zmq

from forecastd.daemon import copied
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.models import checkpoint
from forecastd.models.learner import FIRST
from forecastd.models.weights import structure
from forecastd.producers.client import Producer

from . import corpus, tuned
from .corpus import Floats
from .section import Check, Section, figure, machine, table
from .service import Service

PAGE = Path(__file__).resolve().parent.parent / "docs" / "learning.md"
HEADING = "## Measured"
BEGAN = 1.7e9
#: Samples a second of the round trips.
RATE = 1_000.0


class Size(NamedTuple):
    """Seconds at 1 Hz, and samples between two fine-tunes there; rounds of round trips, and seconds of each; samples
    and fine-tunes over which memory is to be flat."""

    steady_s: float
    every: int
    rounds: int
    trips_s: float
    samples: int
    tunes: int


FULL, QUICK = Size(140.0, 64, 5, 20.0, 1_000_000, 600), Size(10.0, 8, 1, 3.0, 20_000, 40)
SOAK = Size(140.0, 64, 5, 20.0, 10_000_000, 2_000)


class Waves:
    """Noisy waves of different periods, one sample a series at a time, a second apart."""

    def __init__(self, service: Service, series: int) -> None:
        self.names = [f"wave-{k}" for k in range(series)]
        self.sent = 0
        self._producer = Producer(service.address["ingest"], name="waves", window=20 * series)
        self._random, self._pace = np.random.default_rng(0), 5.0 + np.arange(series) % 30

    def send(self, count: int = 1) -> None:
        for _ in range(count):
            self.sent += 1
            value: Floats = np.sin(self.sent / self._pace) + 0.1 * self._random.normal(size=len(self._pace))
            self._producer.send_columns(self.names, value, np.full(len(value), BEGAN + self.sent))

    def close(self) -> None:
        self._producer.flush(60.0)
        self._producer.close()


def steady(size: Size) -> Section:
    """200 series at one sample a second, each with a copy."""
    series = 200
    with Service("--learning-every-samples", str(size.every)) as service:
        waves = Waves(service, series)
        waves.send(FIRST + 16)
        service.until(lambda: service.tunes >= series, 300.0)
        # how they are spread over the time between two fine-tunes is left to chance, as live
        began, used, tunes = time.monotonic(), service.cpu_s("trainer"), service.tunes
        while (passed := time.monotonic() - began) < size.steady_s:
            waves.send()
            time.sleep(max(0.0, 1.0 - (time.monotonic() - began - passed)))
        used, tunes = service.cpu_s("trainer") - used, service.tunes - tunes
        waves.close()
    asked = series * (size.steady_s // size.every)
    return Section(
        "A copy each for 200 series at 1 Hz",
        f"Over {passed:.0f} s; a copy asks to be tuned after {size.every} samples.",
        [
            (
                ["trainer", ""],
                [
                    ["processor", f"{figure(used / passed)} of a core"],
                    ["fine-tunes", f"{tunes:,.0f} of {asked:,.0f} asked for"],
                    ["a fine-tune", f"{1e3 * used / max(tunes, 1):.0f} ms of the processor, all included"],
                ],
            )
        ],
        [
            Check("200 series with copies at 1 Hz: cores used by the trainer", used / passed, 0.5),
            Check("of the fine-tunes asked for, share done", tunes / asked, 0.95, least=True),
        ],
    )


class _Heard(msgspec.Struct):
    time: float


def trips(size: Size) -> Section:
    """1,000 samples/s over 100 series, one by one, with and without learning, in turns."""
    taken: dict[str, list[Floats]] = {"--no-finetune": [], "--finetune": []}
    costs: dict[str, list[float]] = {option: [] for option in taken}
    rates = []
    for _ in range(size.rounds):
        for option, found in taken.items():
            # so often that the trainer is never done, and uses all that it may
            with Service(option, "--learning-every-samples", "16") as service:
                waves = Waves(service, 100)
                waves.send(FIRST + 16)
                if option == "--finetune":
                    service.until(lambda s=service: s.tunes >= 100, 300.0)
                waves.close()
                before, used = service.tunes, service.cpu_s("engine")
                found.append(_round_trips(service, waves.names, size.trips_s))
                costs[option].append((service.cpu_s("engine") - used) / (RATE * size.trips_s) * 1e6)
                if option == "--finetune":
                    rates.append((service.tunes - before) / size.trips_s)
    off, on = (
        [[1e6 * float(np.quantile(seconds, q)) for seconds in rounds] for q in (0.5, 0.99)] for rounds in taken.values()
    )
    ratios = [median(b / a for a, b in zip(off[k], on[k], strict=True)) for k in range(2)]
    rows = [
        [name, f"{median(off[k]):,.0f} µs", f"{median(on[k]):,.0f} µs", figure(ratios[k], ".2f")]
        for k, name in enumerate(("p50", "p99"))
    ]
    cost = [median(figures) for figures in costs.values()]
    rows.append(
        [
            "engine, processor time a sample",
            f"{cost[0]:,.0f} µs",
            f"{cost[1]:,.0f} µs",
            figure(cost[1] / cost[0], ".2f"),
        ]
    )
    return Section(
        "Round trips while the trainer works",
        f"1,000 samples/s over 100 series, one by one: sent to forecast received, {size.rounds} times "
        f"{size.trips_s:.0f} s of each in turns. {median(rates):.0f} fine-tunes/s on the way.",
        [(["round trip", "does not learn", "learns", "ratio, median of rounds"], rows)],
        [Check("round trip p99 while training, × without", ratios[1], 2.0, 1.3, form=".2f")],
    )


def _round_trips(service: Service, names: list[str], seconds: float, rate: float = RATE) -> Floats:
    """Seconds from sending a sample to having received its forecast, sent at a steady rate whatever comes back.

    Who sends sleeps until the next is due, and who receives blocks: a client that polled would hold one of two cores
    for itself, and its forecasts would wait for the end of its own slices.
    """
    sent: dict[float, float] = {}
    taken: list[float] = []
    with zmq.Context() as context, context.socket(zmq.DEALER) as out, context.socket(zmq.SUB) as back:
        back.subscribe(b"")
        back.rcvtimeo = 2_000
        back.connect(service.address["publish"])
        out.connect(service.address["ingest"])
        hears = threading.Thread(target=_hear, args=(back, sent, taken, count := int(seconds * rate)))
        hears.start()
        time.sleep(0.5)
        random, began = np.random.default_rng(1), time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.perf_counter()))
            stamp = round(BEGAN + 1000.0 + number / rate, 3)
            value = np.sin(number / 700.0) + 0.1 * random.normal()
            body = b'{"series":"%s","value":%f,"time":%f}' % (names[number % len(names)].encode(), value, stamp)
            sent[stamp] = time.perf_counter()
            out.send(body)
        hears.join()
    if len(taken) < 0.99 * count:
        raise RuntimeError(f"{count - len(taken)} of {count} forecasts did not come")
    return np.array(taken[count // 10 :])


def _hear(back: zmq.Socket[bytes], sent: dict[float, float], taken: list[float], count: int) -> None:
    """Until all have come, or for two seconds none."""
    decode = msgspec.json.Decoder(_Heard).decode
    while len(taken) < count:
        try:
            said = decode(back.recv_multipart()[1])
        except zmq.Again:
            return
        if (at := sent.pop(round(said.time, 3), None)) is not None:
            taken.append(time.perf_counter() - at)


def swaps(size: Size) -> Section:
    """How long the next sample waits when copies change."""
    shared = copied.bare(checkpoint.load("general").weights)
    pipeline, form, raw, spent = Pipeline(Settings(), shared), structure(shared), copied.packed(shared), []
    for _ in range(200):
        began = time.thread_time()
        pipeline.adopt(0, copied.unpacked(raw, form))
        spent.append(1e3 * (time.thread_time() - began))
    return Section(
        "A swap",
        "A copy is heard of between two batches, from bytes to service; the engine's own time.",
        [(["a copy", "ms"], [["median", figure(median(spent))], ["longest of 200", figure(max(spent))]])],
        [Check("a swap of copies, ms, the longest of 200", max(spent), 3.0, form=".2f")],
    )


def memory(size: Size) -> Section:
    """What engine and trainer hold, while samples come as fast as they are taken and all copies are tuned on and on."""
    names = ("engine", "trainer")
    rows, held = [], []
    with Service("--learning-cooldown-s", "0", "--learning-cpu-share", "1") as service:
        waves = Waves(service, 100)
        for part in range(5):
            # until each series has its copy, and all has been used once, there is growth in all that is
            while waves.sent * 100 < size.samples * part / 4 or service.tunes < size.tunes * (part + 1) / 4:
                waves.send(100)
            held.append([service.memory_mb(name) for name in names])
            rows.append([f"{waves.sent * 100:,}", f"{service.tunes:,.0f}", *(f"{mb:.1f}" for mb in held[-1])])
        waves.close()
    growth = [after - before for before, after in zip(held[1], held[-1], strict=True)]
    return Section(
        "Memory",
        "100 series as fast as they are taken, the trainer without a bound on its share. Growth is counted from the "
        "second row on, when all has been used once.",
        [(["samples", "fine-tunes", "engine, MB", "trainer, MB"], rows)],
        [
            Check("memory, growth of the engine, MB", growth[0], 8.0, form=".1f"),
            Check("memory, growth of the trainer, MB", growth[1], 24.0, form=".1f"),
        ],
    )


def gains(size: Size) -> Section:
    """What the real series gain."""
    return tuned.recorded(corpus.QUICK if size is QUICK else corpus.FULL)


def changes(size: Size) -> Section:
    """What the tutorial's wave gains, and a wave that changes."""
    return tuned.simulated(corpus.QUICK if size is QUICK else corpus.FULL)


TABLES: dict[str, Callable[[Size], Section]] = {
    "gains": gains,
    "changes": changes,
    "steady": steady,
    "trips": trips,
    "swaps": swaps,
    "memory": memory,
}


@click.command()
@click.option("--quick", is_flag=True, help="Short runs: whether it runs, not what it shows.")
@click.option("--soak", is_flag=True, help="Ten million samples and two thousand fine-tunes where memory is measured.")
@click.option("--only", default="", metavar="A,B,…", help=f"Some of the tables: {', '.join(TABLES)}.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=PAGE,
    metavar="FILE.md",
    help="The page whose last section is written anew.",
)
@click.option("--check", is_flag=True, help="Fail when a promise is not kept.")
def main(quick: bool, soak: bool, only: str, out: Path, check: bool) -> None:
    """Measure what learning costs, and write it into the page."""
    names = only.replace(",", " ").split() or list(TABLES)
    if unknown := [name for name in names if name not in TABLES]:
        raise click.UsageError(f"no table is called {unknown[0]!r}; there are {', '.join(TABLES)}")
    sections, load = [], os.getloadavg()[0]
    for name in names:
        sections.append(TABLES[name](QUICK if quick else SOAK if soak else FULL))
        click.echo(sections[-1].markdown() + "\n")
    text = out.read_text(encoding="utf-8") if out.exists() else ""
    out.write_text(inserted(text, sections, quick, load), encoding="utf-8")
    missed = [promise.what for section in sections for promise in section.checks if not promise.kept]
    click.echo(f"{out} written; promises missed: {', '.join(missed) or 'none'}", err=True)
    if check and missed:
        sys.exit(1)


def inserted(text: str, sections: list[Section], quick: bool, load: float = 0.0) -> str:
    """The page with these sections as its last one; `load` is the load average before they were made."""
    words = (
        f"Written by `make bench-learning` on {machine()}; the load average before it began was {load:.1f}, and times "
        "of a busy machine say little. `skill` and `relMAE` are those of [accuracy.md](accuracy.md)."
    )
    promises = table(
        ["what", "measured", "at least", "aim", ""], [check.row() for section in sections for check in section.checks]
    )
    parts = [HEADING, words, *(["**A quick run: it shows that everything runs.**"] if quick else []), promises]
    parts += [re.sub("^## ", "### ", section.markdown()) for section in sections]
    before = text.partition(f"\n{HEADING}\n")[0].rstrip()
    return before + "\n\n" + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
