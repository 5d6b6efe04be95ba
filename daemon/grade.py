"""What a replayed series was worth: errors, skill, coverage, per source and step ahead.

A forecast is scored against the sample it was for: what was said h steps ahead against the sample of the same series
that came h steps later, missed steps counted; where that one never came, against none. Errors are `y_pred - y`.
`backtest --json` prints one `Grade` a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from .batch import Floats
from .replay import Trace

NAN = float("nan")


class Aligned(NamedTuple):
    """Forecasts of one step ahead beside what came: m samples, K experts, L levels; oldest first, without the moments
    of warming.

    `target` (m,) is the number of the sample in its trace, `value` (m,) what it was; `mean` (m,), `lower` and `upper`
    (m, L) and `forecasts` (m, K) were made for it after sample number `made` (m,). An expert that had nothing to say is
    NaN.
    """

    target: NDArray[np.intp]
    made: NDArray[np.intp]
    value: Floats
    mean: Floats
    lower: Floats
    upper: Floats
    forecasts: Floats

    @property
    def error(self) -> Floats:
        """`y_pred - y` of the blend, shape (m,)."""
        return self.mean - self.value

    @property
    def naive(self) -> Floats:
        """`y_pred - y` of repeating the last value, shape (m,)."""
        error: Floats = self.forecasts[:, 0] - self.value
        return error

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Whether each level's interval held the value, shape (m, L)."""
        value = self.value[:, None]
        held: NDArray[np.bool_] = (self.lower <= value) & (value <= self.upper)
        return held


class Source(msgspec.Struct, frozen=True):
    """An expert's errors over the samples for which it spoke; `skill` against naive over the same ones. `weight` is its
    mean weight in the blend, one step ahead.
    """

    mae: float = NAN
    rmse: float = NAN
    skill: float = NAN
    scored: int = 0
    weight: float = NAN


class Interval(msgspec.Struct, frozen=True):
    """One level's share of values held, mean width, and interval score (Gneiting & Raftery 2007, eq. 43: lower is
    better).
    """

    coverage: float = NAN
    width: float = NAN
    winkler: float = NAN


class Step(msgspec.Struct, frozen=True):
    """All that is said of one step ahead."""

    step: int
    scored: int
    mae: float
    rmse: float
    bias: float
    skill: float
    relmae: float
    coverage: float
    width: float
    levels: dict[str, Interval]
    experts: dict[str, Source]


class Grade(msgspec.Struct, frozen=True):
    """One series. `n` samples were read, the forecasts of `scored` of them are scored, one step ahead; NaN (null in
    JSON) where there is nothing to say, as the skill of a flat line.

    `mase` is the MAE in units of the mean step between neighbours in the part that is not scored, `skill` 1 - rmse /
    rmse of naive, `relmae` MAE / MAE of naive; `coverage`, `width` and `winkler` are of the main `level`. `season` is
    in samples, `interval_s` the seconds between samples. `flagged` counts the samples flagged as anomalies in the
    scored part.
    """

    series: str
    n: int
    scored: int
    mae: float
    rmse: float
    mase: float
    skill: float
    coverage: float
    width: float
    experts: dict[str, Source]
    bias: float
    relmae: float
    winkler: float
    level: float
    levels: dict[str, Interval]
    best: str
    flagged: int
    gaps: int
    season: int
    interval_s: float
    skipped: int
    refused: dict[str, int]
    steps: list[Step]


class Summary(NamedTuple):
    """Over all series that move: `flat` ones, whose naive error is zero, are left out, as are those too short to be
    scored.
    """

    series: int
    flat: int
    short: int
    median_skill: float
    worst_skill: float
    worst: str
    above_zero: float
    relmae: float
    coverage: float


def aligned(trace: Trace, start: int = 0, step: int = 1) -> Aligned:
    """The forecasts made `step` ahead, 1-based, for the samples from number `start` on.

    Keyed by the step they were for: after a gap of two steps, the sample that comes is the target of what was said
    three ahead."""
    target = np.arange(start, len(trace))
    made = np.searchsorted(trace.moment, trace.moment[target] - step)
    kept = trace.moment[made] == trace.moment[target] - step
    kept &= ~np.isnan(trace.mean[made, step - 1])
    target, made = target[kept], made[kept]
    return Aligned(
        target=target,
        made=made,
        value=trace.value[target],
        mean=trace.mean[made, step - 1],
        lower=trace.lower[made, step - 1],
        upper=trace.upper[made, step - 1],
        forecasts=trace.forecasts[made, step - 1],
    )


def first_scored(trace: Trace, score_from: float) -> int:
    """The number of the first sample that is scored: the share `score_from` before it is for warming up."""
    return int(score_from * len(trace))


def grade(trace: Trace, score_from: float = 0.3) -> Grade:
    """Score a trace over the samples after its first share `score_from`."""
    start = first_scored(trace, score_from)
    steps = [_step(trace, start, h + 1) for h in range(trace.mean.shape[1])]
    one = steps[0]
    before = np.abs(np.diff(trace.value[:start]))
    scale = float(before.mean()) if len(before) else 0.0
    return Grade(
        series=trace.name,
        n=trace.read,
        scored=one.scored,
        mae=one.mae,
        rmse=one.rmse,
        mase=_ratio(one.mae, scale),
        skill=one.skill,
        coverage=one.coverage,
        width=one.width,
        experts=one.experts,
        bias=one.bias,
        relmae=one.relmae,
        winkler=one.levels[f"{trace.levels[0]:g}"].winkler,
        level=trace.levels[0],
        levels=one.levels,
        best=_best(one.experts),
        flagged=int(np.count_nonzero(trace.flag[start:])),
        gaps=trace.gaps,
        season=trace.season,
        interval_s=trace.step,
        skipped=trace.skipped,
        refused=trace.refused,
        steps=steps,
    )


def summary(grades: Sequence[Grade]) -> Summary:
    """The figures over all series; NaN where none moves. Relative errors are averaged geometrically."""
    moving = [g for g in grades if not np.isnan(g.skill)]
    short = sum(not g.scored for g in grades)
    counts = {"series": len(moving), "flat": len(grades) - len(moving) - short, "short": short}
    if not moving:
        return Summary(**counts, median_skill=NAN, worst_skill=NAN, worst="", above_zero=NAN, relmae=NAN, coverage=NAN)
    worst = min(moving, key=lambda g: g.skill)
    return Summary(
        **counts,
        median_skill=float(np.median([g.skill for g in moving])),
        worst_skill=worst.skill,
        worst=worst.series,
        above_zero=float(np.mean([g.skill > 0.0 for g in moving])),
        relmae=geometric_mean([g.relmae for g in moving]),
        coverage=float(np.median([g.coverage for g in moving])),
    )


def geometric_mean(ratios: Sequence[float]) -> float:
    """The geometric mean of positive ratios; one of 0 counts as a millionth, so that a perfect forecast does not hide
    the others.
    """
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-6)))))


def winkler(lower: Floats, upper: Floats, value: Floats, level: float) -> Floats:
    """The interval score of each interval: its width plus 2 / (1 - level) times the distance by which it was missed."""
    missed = np.maximum(lower - value, 0.0) + np.maximum(value - upper, 0.0)
    return upper - lower + 2.0 / (1.0 - level) * missed


def _step(trace: Trace, start: int, step: int) -> Step:
    a = aligned(trace, start, step)
    naive_mae, naive_rmse, _ = _sizes(a.naive)
    mae, rmse, bias = _sizes(a.error)
    levels = {f"{level:g}": _interval(a, k, level) for k, level in enumerate(trace.levels)}
    main = levels[f"{trace.levels[0]:g}"]
    # the weights that made a forecast were published with it, those of the first step ahead alone are kept
    known = step == 1 and len(a.target) > 0
    weights = trace.weights[a.made].mean(0).tolist() if known else [NAN] * len(trace.experts)
    return Step(
        step=step,
        scored=len(a.target),
        mae=mae,
        rmse=rmse,
        bias=bias,
        skill=1.0 - _ratio(rmse, naive_rmse),
        relmae=_ratio(mae, naive_mae),
        coverage=main.coverage,
        width=main.width,
        levels=levels,
        experts={name: _source(a, k, weights[k]) for k, name in enumerate(trace.experts)},
    )


def _source(a: Aligned, k: int, weight: float) -> Source:
    spoke = ~np.isnan(a.forecasts[:, k])
    mae, rmse, _ = _sizes(a.forecasts[spoke, k] - a.value[spoke])
    _, naive_rmse, _ = _sizes(a.naive[spoke])
    return Source(mae, rmse, 1.0 - _ratio(rmse, naive_rmse), int(np.count_nonzero(spoke)), weight)


def _interval(a: Aligned, k: int, level: float) -> Interval:
    if not len(a.target):
        return Interval()
    lower, upper = a.lower[:, k], a.upper[:, k]
    score = winkler(lower, upper, a.value, level)
    return Interval(float(a.covered[:, k].mean()), float((upper - lower).mean()), float(score.mean()))


def _sizes(error: Floats) -> tuple[float, float, float]:
    """MAE, RMSE and bias."""
    if not len(error):
        return NAN, NAN, NAN
    return float(np.abs(error).mean()), float(np.sqrt(np.square(error).mean())), float(error.mean())


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0.0 else NAN


def _best(experts: dict[str, Source]) -> str:
    """The expert with the highest skill among those that spoke for nine in ten samples; empty if nothing moves."""
    most = max(source.scored for source in experts.values())
    able = {name: s.skill for name, s in experts.items() if s.scored >= 0.9 * most and not np.isnan(s.skill)}
    return max(able, key=lambda name: able[name]) if able else ""
