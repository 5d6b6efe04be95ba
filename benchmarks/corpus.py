"""What the accuracy benchmarks run on, replayed once and shared: the simulated waves and, where they are, the real
series.

The real series are not part of this repository: `FORECASTD_DATA` names their folder, `../shared/data` is looked at
without it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forecastd.daemon.backtest import load
from forecastd.daemon.replay import Trace, learner, replay
from forecastd.daemon.settings import Settings
from forecastd.models import checkpoint
from forecastd.models.weights import Weights
from forecastd.producers.playback import Recording
from forecastd.producers.waves import ORIGIN, WAVES

Floats = NDArray[np.float64]

#: The level that is published first, and those kept beside it.
LEVELS = (0.9, 0.8, 0.95, 0.99)
SCORE_FROM = 0.3
#: A flat line has no skill, and 309 samples are too few for the lattice of order 32 to learn from their first 30 %.
LEFT_OUT = ("art_flatline", "sunspots")


@dataclass(frozen=True)
class Size:
    """How much to run: seeds a wave, samples a wave, samples of the tutorial's wave, series side by side after a
    switch."""

    seeds: int = 5
    samples: int = 10_000
    tutorial: int = 20_000
    side_by_side: int = 64
    real: int = 100_000
    quick: bool = False


FULL = Size()
QUICK = Size(seeds=2, samples=2_500, tutorial=4_000, side_by_side=16, real=1_500, quick=True)


def settings(horizon: int = 1, experts: Sequence[str] | None = None, model: str = "general") -> Settings:
    """The daemon's own, with the levels that are measured."""
    names = tuple(experts or Settings().experts)
    return Settings(horizon=horizon, level=LEVELS[0], levels=LEVELS[1:], experts=names, model=model, finetune=False)


@cache
def weights(model: str = "general") -> Weights:
    """The weights of a shipped model."""
    return checkpoint.load(model).weights


def play(recordings: Sequence[Recording], chosen: Settings | None = None) -> list[Trace]:
    """Replay with all experts, or as chosen."""
    chosen = chosen or settings()
    model = checkpoint.serving(chosen.model, chosen.experts, chosen.horizon)
    served = model.weights if model else None
    return replay(recordings, chosen, served, learner=learner(chosen, served))


def recording(name: str, values: Floats, times: Floats | None = None) -> Recording:
    """An array as a recording, a second a sample if it has no times."""
    return Recording(name, ORIGIN + np.arange(len(values)) if times is None else times, values)


@cache
def waves(size: Size, horizon: int = 1) -> dict[str, list[Trace]]:
    """Each of `produce waves`, replayed for every seed."""
    samples = size.samples if horizon == 1 else size.samples // 2
    recordings = []
    for kind, wave in WAVES.items():
        for seed in range(size.seeds):
            times, values = wave(seed=1000 + seed).take(samples)
            recordings.append(recording(f"{kind}.{seed}", values, times))
    traces = play(recordings, settings(horizon))
    return {kind: [trace for trace in traces if trace.name.rpartition(".")[0] == kind] for kind in WAVES}


def folder() -> Path | None:
    """Where the real series are; None if they are not here."""
    named = os.environ.get("FORECASTD_DATA")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return path if path.is_dir() else None


@cache
def real(size: Size, horizon: int = 1) -> list[Trace]:
    """The real series but those left out, replayed; none if they are not here."""
    recordings = real_recordings(size)
    return play(recordings, settings(horizon)) if recordings else []


@cache
def real_recordings(size: Size) -> list[Recording]:
    """The real series but those left out."""
    found = folder()
    files = sorted(str(path) for path in found.rglob("*.csv")) if found else []
    return [
        Recording(r.name, r.time[: size.real], r.value[: size.real], r.skipped)
        for r in load(files)
        if r.name not in LEFT_OUT
    ]
