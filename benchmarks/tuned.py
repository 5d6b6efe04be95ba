"""What fine-tuning is worth: the RNN and the blend with copies against without, and the RNN after a signal changed."""

from __future__ import annotations

from functools import cache

import numpy as np
from msgspec.structs import replace

from forecastd.daemon.grade import aligned, geometric_mean, grade, summary
from forecastd.daemon.replay import Trace
from forecastd.producers.playback import Recording
from forecastd.producers.waves import WAVES

from .corpus import SCORE_FROM, Floats, Size, play, real, real_recordings, recording, settings
from .section import Check, Section, figure

#: The wave has this many samples before it changes; skill is then looked for in spans of so many.
CHANGE, SPAN = 4_000, 256
#: Uniform noise around the changing wave. Around the tutorial's, ±0.15, four tenths of the frequency leave so little to
#: forecast that nobody could reach a skill of 0.3.
NOISE = 0.05


def recorded(size: Size) -> Section:
    """The real series with and without fine-tuning."""
    plain, tuned = real(size), _tuned(size)
    if not plain:
        return Section("Fine-tuning, real series", "Not measured: the series are not here.")
    off, on = ([grade(trace, SCORE_FROM) for trace in traces] for traces in (plain, tuned))
    alone = [[g.experts["rnn"] for g in grades] for grades in (off, on)]
    naive = [g.experts["naive"].mae for g in off]
    rows, change = [], []
    for g, h, a, b, n in zip(off, on, *alone, naive, strict=True):
        change.append(b.skill - a.skill)
        rnn = [figure(a.skill), figure(b.skill), figure(a.mae / n), figure(b.mae / n)]
        rows.append([g.series, f"{g.n:,}", *rnn, figure(g.skill), figure(h.skill)])
    ratio = geometric_mean([b.mae / a.mae for a, b in zip(*alone, strict=True)])
    total = summary(on)
    return Section(
        "Fine-tuning, real series",
        f"{len(off)} series, scored over the last {1 - SCORE_FROM:.0%}: the same recordings without and with "
        f"`--finetune`. The RNN alone: relMAE changes by {figure(100 * (ratio - 1), '+.1f')} %.",
        [
            (
                [
                    "series",
                    "n",
                    "`rnn`, skill",
                    "tuned",
                    "`rnn`, relMAE",
                    "tuned",
                    "blend, skill",
                    "tuned",
                ],
                rows,
            )
        ],
        [
            Check("fine-tuning: `rnn` alone, relMAE × ", ratio, 0.92, 0.88),
            Check("fine-tuning: `rnn` alone, greatest loss of skill", min(change), -0.03, -0.01, least=True),
            Check("fine-tuning: blend, median skill", total.median_skill, 0.215, 0.25, least=True),
            Check("fine-tuning: blend, worst skill", total.worst_skill, -0.01, 0.0, least=True),
            Check("fine-tuning: blend, relMAE", total.relmae, 0.77, 0.72),
        ],
    )


def simulated(size: Size) -> Section:
    """The tutorial's wave, and a wave that changes."""
    waves = [recording(f"sine.{seed}", WAVES["sine"](seed=seed).take(size.tutorial)[1]) for seed in range(size.seeds)]
    first = min(5_000, size.tutorial // 2)
    rows, errors = [], []
    for off, on in zip(_alone(waves, False), _alone(waves, True), strict=True):
        rmse = [float(np.sqrt(np.nanmean(np.square(_error(trace)[first:])))) for trace in (off, on)]
        errors.append(rmse[1])
        rows.append([off.name, *(figure(value, ".4f") for value in rmse)])
    changes, found = [], []
    for kind in ("frequency × 0.4", "amplitude × 10", "offset + 1000"):
        changed = [recording(f"{kind}.{seed}", _changing(kind, seed)) for seed in range(size.seeds)]
        waits = [[_wait(trace) for trace in _alone(changed, learning)] for learning in (False, True)]
        found.append(float(np.median(waits[1])))
        changes.append([kind, *(figure(float(np.median(w)), ".0f") for w in waits)])
    return Section(
        "Fine-tuning, simulated",
        f"`rnn` alone, model `general`. The tutorial's wave, RMSE from sample {first:,} to {size.tutorial:,}; and how "
        f"many samples after a change of a wave (noise ±{NOISE}) a span of {SPAN} begins in which the skill is above "
        f"0.3 again, the median of {size.seeds} seeds.",
        [
            (["the tutorial's wave", "RMSE", "tuned"], rows),
            (["change", "samples until skill 0.3", "tuned"], changes),
        ],
        [
            Check(
                "fine-tuning: tutorial's wave, `rnn` alone, RMSE", float(np.median(errors)), 0.0935, 0.0915, form=".4f"
            ),
            Check("fine-tuning: samples until skill 0.3 after a change", max(found), 1000, 300, form=".0f"),
        ],
    )


@cache
def _tuned(size: Size) -> list[Trace]:
    recordings = real_recordings(size)
    return play(recordings, replace(settings(), finetune=True)) if recordings else []


def _alone(recordings: list[Recording], learning: bool) -> list[Trace]:
    return play(recordings, replace(settings(experts=("rnn",)), finetune=learning))


def _error(trace: Trace) -> Floats:
    a = aligned(trace, 0)
    return a.forecasts[:, trace.experts.index("rnn")] - a.value


def _changing(kind: str, seed: int) -> Floats:
    """A wave of 62.4 samples a period that changes after `CHANGE` samples and goes on for 3,000."""
    after = np.arange(CHANGE + 3_000) >= CHANGE
    pace = np.where(after & (kind == "frequency × 0.4"), 0.4, 1.0) * 15 / 149
    height = np.where(after & (kind == "amplitude × 10"), 10.0, 1.0)
    noise = np.random.default_rng(seed).uniform(-NOISE, NOISE, len(after))
    lift: Floats = np.where(after & (kind == "offset + 1000"), 1000.0, 0.0)
    return lift + height * (np.sin(np.cumsum(pace)) + 1.0 + noise)


def _wait(trace: Trace) -> float:
    """Samples after the change until a span with a skill above 0.3 begins; NaN if there is none."""
    a = aligned(trace, CHANGE)
    rnn, naive = (np.square(a.forecasts[:, trace.experts.index(name)] - a.value) for name in ("rnn", "naive"))
    spans = [np.convolve(square, np.ones(SPAN), "valid") for square in (rnn, naive)]
    good = np.flatnonzero(1.0 - np.sqrt(spans[0] / spans[1]) > 0.3)
    return float(good[0]) if len(good) else float("nan")
