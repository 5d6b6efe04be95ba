"""Streams for the tests of journal, snapshot and recovery: small, seeded, and with everything in them that a
pipeline has to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from forecastd.daemon import snapshot
from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Limits, Settings
from forecastd.models.checkpoint import Checkpoint
from forecastd.models.weights import Weights

NOW = 1.7e9


def model(seed: int = 0, units: int = 12) -> Checkpoint:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return random.normal(0.0, 0.2, shape).astype(np.float32)

    return Checkpoint(
        Weights(draw(4, units), draw(units, units), draw(units), draw(units), np.asarray(draw(), np.float32)),
        {"name": f"seed-{seed}"},
    )


def settings(**changes: Any) -> Settings:
    limits = Limits(series=changes.pop("series_max", 12), series_per_producer=7, bridge_steps=3)
    return Settings(limits=limits, **changes)


def steps(count: int, seed: int = 0, first: int = 0) -> Iterator[tuple[Batch, float]]:
    """Batches and their `now`. The same seed gives the same ones, `first` leaves so many out at the front."""
    random = np.random.default_rng(seed)
    seqs = {"a": 1, "b": 1}
    clock = NOW
    for k in range(count):
        clock += float(random.exponential(1.0))
        names: list[str] = []
        values: list[float] = []
        times: list[float] = []
        parcels = []
        for _ in range(int(random.integers(1, 4))):
            start, n = len(names), int(random.integers(1, 9))
            for _ in range(n):
                names.append(_name(random))
                values.append(_value(random, clock))
                times.append(_time(random, clock))
            parcels.append(_parcel(random, seqs, start, len(names)))
        if random.random() < 0.2:
            producer = str(random.choice(["a", "b"]))
            parcels.append(Parcel(len(names), len(names), b"", True, producer, 1, seqs[producer], "malformed", 1))
            seqs[producer] += 1
        refused = {"malformed": 1} if random.random() < 0.1 else {}
        if k >= first:
            yield Batch(names, np.array(values), np.array(times), parcels, refused), clock


def _name(random: np.random.Generator) -> str:
    kind = random.random()
    if kind < 0.03:
        return str(random.choice(["", " blank", "tab\t", "x" * 5000, "half \ud800"]))
    return f"series-{int(random.integers(0, 3 if kind < 0.5 else 14))}"


def _value(random: np.random.Generator, clock: float) -> float:
    kind = random.random()
    if kind < 0.02:
        return float(random.choice([np.nan, np.inf, 1e300]))
    return float(np.sin(clock / 7.0) * 10.0 + random.normal())


def _time(random: np.random.Generator, clock: float) -> float:
    kind = random.random()
    if kind < 0.5:
        return np.nan
    return clock + float(random.choice([0.0, 0.0, 0.1, -50.0, 1e6], p=[0.5, 0.2, 0.2, 0.08, 0.02]))


def _parcel(random: np.random.Generator, seqs: dict[str, int], start: int, stop: int) -> Parcel:
    if random.random() < 0.3:
        return Parcel(start, stop)
    producer = str(random.choice(["a", "b", "half \ud800"]))
    if producer not in seqs:
        return Parcel(start, stop, b"", False, producer, 0, 1)
    seq, lossless = seqs[producer], bool(random.random() < 0.7)
    slip = int(random.choice([0, -2, 3], p=[0.8, 0.1, 0.1]))
    if not slip or not lossless:
        seqs[producer] = max(seq, seq + slip + stop - start)
    return Parcel(start, stop, b"peer-" + producer.encode(), lossless, producer, 1, max(seq + slip, 1))


def live(core: Pipeline, stream: Any) -> Pipeline:
    for batch, now in stream:
        core.step(batch, now)
    return core


def state(core: Pipeline) -> bytes:
    """All that a pipeline is, as bytes: equal for pipelines that are equal to the bit."""
    return b"".join(map(bytes, snapshot.encode(snapshot.capture(core, 0))))
