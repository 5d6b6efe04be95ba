"""What a shock does: one huge spike, a doubled frequency, a level that jumps."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from forecastd.daemon.grade import aligned
from forecastd.daemon.replay import Trace
from forecastd.producers.waves import WAVES, FrequencySwitch, LevelShift, Wave

from .corpus import Size, play, recording
from .section import Check, Section, figure

BEFORE, FROM, TO = 2_000, 300, 2_300
SPIKE_AT = 4_000
SWITCH_AT = 4_096
#: Squared errors are averaged over the series and so many samples; "recovered" must hold for so many windows from
#: there on.
SMOOTH, HOLD = 16, 128
NEAR = 1.1


def spike(size: Size) -> Section:
    """RMSE around one spike of 1,000 sigma."""
    rows, ratios = [], []
    for kind in ("sine", "two-tone", "heavy-tails"):
        for unit in ("series", "noise"):
            before, after, experts = _spiked(kind, unit, size.seeds)
            rows.append(
                [
                    f"`{kind}`",
                    f"of the {unit}",
                    figure(before, ".4f"),
                    figure(after, ".4f"),
                    figure(after / before),
                    experts,
                ]
            )
            if kind != "heavy-tails":
                ratios.append(after / before)
    return Section(
        "One spike of 1,000 sigma",
        f"At sample {SPIKE_AT:,}; RMSE of the blend over the {BEFORE:,} samples before it and over the samples {FROM} "
        f"to {TO:,} after it, "
        f"pooled over {size.seeds} seeds. Sigma is the deviation of the whole series, or of its noise alone. The "
        f"heavy tails are shown "
        "for their experts; their own RMSE moves that much between stretches.",
        [(["wave", "sigma", "before", "after", "ratio", "experts' ratios"], rows)],
        [Check("RMSE after one spike of 1,000 sigma / before", max(ratios), 1.05, 1.01)],
    )


def _spiked(kind: str, unit: str, seeds: int) -> tuple[float, float, str]:
    recordings = []
    for seed in range(seeds):
        wave = WAVES[kind](seed=50 + seed)
        values = wave.take(SPIKE_AT + TO + 1)[1]
        sigma = values[:SPIKE_AT].std() if unit == "series" else wave.floor
        values[SPIKE_AT] += 1_000 * sigma * (1 if seed % 2 else -1)
        recordings.append(recording(f"{kind}.{seed}", values))
    traces = play(recordings)
    before = [_mean_square(trace, SPIKE_AT - BEFORE, SPIKE_AT) for trace in traces]
    after = [_mean_square(trace, SPIKE_AT + FROM, SPIKE_AT + TO) for trace in traces]
    ratio = np.sqrt(np.mean(after, 0) / np.mean(before, 0))
    experts = ", ".join(
        f"{name} {figure(r, '.2f')}" for name, r in zip(traces[0].experts, ratio[1:], strict=True) if not np.isnan(r)
    )
    return float(np.sqrt(np.mean(before, 0)[0])), float(np.sqrt(np.mean(after, 0)[0])), experts


def _mean_square(trace: Trace, start: int, stop: int) -> np.ndarray:
    """Mean squared error of the blend and each expert over the samples `start` to `stop`, shape (1 + K,)."""
    errors = _squares(trace)[start:stop]
    asleep = np.isnan(errors).mean(0) > 0.1
    mean = np.where(np.isnan(errors), 0.0, errors).sum(0) / np.maximum((~np.isnan(errors)).sum(0), 1)
    return np.where(asleep, np.nan, mean)


def _squares(trace: Trace) -> np.ndarray:
    a = aligned(trace)
    squares = np.full((len(trace), 1 + len(trace.experts)), np.nan)
    squares[a.target, 0] = np.square(a.error)
    squares[a.target, 1:] = np.square(a.forecasts - a.value[:, None])
    return squares


class Faster(FrequencySwitch):
    """The frequency doubles once."""

    hold: ClassVar[float] = float(SWITCH_AT)


class Higher(LevelShift):
    """The level jumps by three amplitudes once."""

    hold: ClassVar[int] = SWITCH_AT
    levels: ClassVar[tuple[float, ...]] = (0.0, 3.0)


def switch(size: Size) -> Section:
    """How soon the blend is as good as its best expert again."""
    rows, slowest = [], 0
    for name, kind in (("×2 frequency", Faster), ("level shift by 3 amplitudes", Higher)):
        ratio, best = _after(kind, size.side_by_side)
        lag = recovered(ratio)
        slowest = max(slowest, lag)
        spans = [figure(float(ratio[a:b].mean())) for a, b in ((0, 16), (16, 64), (64, 128), (128, 480))]
        rows.append([name, str(lag), *spans, best])
    return Section(
        "After a switch",
        f"{size.side_by_side} series with different phases and noise; errors squared, averaged over the series and "
        f"{SMOOTH} samples. RMSE of the blend over that of "
        f"the expert that is best in just those samples. Recovered: from there on within {NEAR - 1:.0%} for at least "
        f"{HOLD} samples.",
        [
            (
                [
                    "switch",
                    "recovered after samples",
                    "ratio, samples 0–15",
                    "16–63",
                    "64–127",
                    "128–479",
                    "best expert then",
                ],
                rows,
            )
        ],
        [Check("samples until within 10 % of the best expert after a switch", slowest, 64, 15, form=".0f")],
    )


def _after(kind: type[Wave], count: int) -> tuple[np.ndarray, str]:
    """RMSE of the blend / RMSE of the best expert, by samples since the switch."""
    values = kind(seed=7, series=count).rows(SWITCH_AT + 512)[1]
    traces = play([recording(f"{kind.__name__}.{k}", values[:, k].copy()) for k in range(count)])
    mean = np.mean([_squares(trace)[SWITCH_AT:] for trace in traces], axis=0)
    smooth = np.stack([np.convolve(column, np.ones(SMOOTH) / SMOOTH, "valid") for column in mean.T], 1)
    experts = np.nan_to_num(smooth[:, 1:], nan=np.inf)
    best = experts.argmin(1)
    named = ", ".join(dict.fromkeys(traces[0].experts[best[k]] for k in (0, 16, 64, 128, 480)))
    return np.sqrt(smooth[:, 0] / experts.min(1)), named


def recovered(ratio: np.ndarray) -> int:
    """The first lag from which the ratio stays near; the length where it never does."""
    near = ratio <= NEAR
    for lag in range(len(near)):
        if near[lag : lag + HOLD].all():
            return lag
    return len(near)
