"""One sample of one series in plain floats: the arithmetic of `scaling`, `channels`, `conformal`, `dispersion` and
`blend` without the price of an array call.

A quiet stream brings one sample at a time, and then a step of the array forms is a few hundred calls that each do one
number's work. These functions do the same work on the same state (one row, lent by the table) one step ahead, in a
tenth of the time; a bound is a comparison here, since calling `min` costs four of them. `tests/test_single.py` holds
them to the array forms, and with them the equations can be read one number at a time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import asinh, exp, inf, log, sqrt
from operator import mul

import numpy as np

from . import blend, conformal, dispersion, lattice, scaling
from .channels import LEVEL_CLIP, ORDERS, Instant
from .table import Array, Row

_HUBER = 2.0 * blend.HUBER
_DISCOUNT, _LARGEST, _LEAST = blend.DISCOUNT, blend.LARGEST, blend.FLOOR
_SQUARE_SPIKE, _DIFFERENCE, _LEVEL = scaling.SPIKE * scaling.SPIKE, scaling.DIFFERENCE_RATE, scaling.LEVEL_RATE
_ORDERS = [order for _, order in ORDERS]
_SHORT, _MEDIUM, _LONG = (float(rate) for rate in conformal.RATES)
_COMMON, _BOUND, _FLOOR = dispersion.COMMON, conformal.BOUND, dispersion.FLOOR
_LOG, _SIDED, _SCALE = dispersion.LOG_MAX, dispersion.SIDED_MAX, dispersion.SCALE_MAX
_SHORT_START, _TINY, _LONG_SHARE = dispersion.SHORT_START, dispersion.TINY, conformal.LONG_SHARE


class Control:
    """What `conformal` knows of each level: (miss rate, gain), start, and what `in_order` compares, (place, place next
    to it, whether that is the wider one)."""

    def __init__(self, miss_rates: Array, places: list[int]) -> None:
        gains = conformal.gains(miss_rates)
        self.rates: list[tuple[float, float]] = list(zip(miss_rates.tolist(), gains.tolist(), strict=True))
        self.starts: list[float] = conformal.starts(miss_rates).tolist()
        first = places.index(0)
        self.ordered = [(a, b, True) for a, b in pairwise(places[first:])]
        self.ordered += [(a, b, False) for a, b in pairwise(places[first::-1])]


def observe(row: Row, x: float) -> Instant:
    """`channels.update` for one row that has had its first samples (`TRUSTED` of them)."""
    row.count = count = row.count + 1
    difference, row.last = x - row.last, x
    s2, m, low, high = row.s2, row.m, row.low, row.high
    square = difference * difference
    if square > _SQUARE_SPIKE * s2 > 0.0:
        square = _SQUARE_SPIKE * s2
    plain = 1.0 / (count - 1)
    row.s2 = s2 = s2 + (plain if plain > _DIFFERENCE else _DIFFERENCE) * (square - s2)
    width = high - low or inf
    lowest, highest = low - width, high + width
    tame = lowest if x < lowest else highest if x > highest else x
    low, high = low + _LEVEL * (m - low), high + _LEVEL * (m - high)
    row.low = low = tame if tame < low else low
    row.high = high = tame if tame > high else high
    plain = 1.0 / count
    weight = plain if plain > _LEVEL else _LEVEL
    deviation = tame - m
    moved = deviation * weight
    row.m = m = m + moved
    row.v = v = row.v * (1.0 - weight) + (deviation - moved) * moved
    s, sd, centre = sqrt(s2) or 1.0, sqrt(v), row.centre
    if tame != centre:
        step = scaling.CENTRE_STEP * max(scaling.CENTRE_RATE, plain) * sd
        row.centre = centre = centre + (step if tame > centre else -step)
    residual, margin = x - row.ar, 0.2 * (high - low)
    lowest, highest = low - margin, high + margin
    expected, terms = row.memo.get("expansion") or _expand(row)
    e = tame - centre - expected
    said = []
    for q0, q1, q2 in terms:
        value = centre + q0 + (q1 + q2 * e) * e
        said.append(lowest if value < lowest else highest if value > highest else value)
    row.ar2, row.ar10, row.ar = said
    row.late.append(partial(_update_lattice, row, tame - centre))
    level = (x - m) / (sd or 1.0)
    if not -LEVEL_CLIP < level < LEVEL_CLIP:
        level = min(max(level, -LEVEL_CLIP), LEVEL_CLIP)
    channels = [asinh(difference / s), level, asinh((row.ar - x) / s), asinh(residual / s)]
    return Instant(x, s, channels)


def _update_lattice(row: Row, y: float) -> None:
    lattice.update(row.views, np.array([y]))
    row.memo["expansion"] = _expand(row)


def _expand(row: Row) -> tuple[float, list[list[float]]]:
    return lattice.expand(row.views, _ORDERS)


def aggregate(row: Row, experts: list[float], awake: list[float]) -> tuple[float, list[float]]:
    """`blend.forecast` for one row: the blend, and the experts' weights in it."""
    now = situation(row.calm)
    row.due_situation = [now]
    shares = _shares(row, now, awake)
    total = sum(shares)
    if total == 0.0:
        shares = _shares(row, blend.CALM, awake)
        total = sum(shares)
    if total == 0.0:
        shares[0] = total = 1.0
    weights = [share / total for share in shares]
    return sum(map(mul, weights, experts)), weights


def _shares(row: Row, now: int, awake: list[float]) -> list[float]:
    kinds, learnt = len(awake), row.regret
    start = now * (2 * kinds + 1)
    square = start + kinds
    bound = learnt[square + kinds]
    return [
        r / (bound + q or 1.0) * up if r > 0.0 else 0.0
        for r, q, up in zip(learnt[start:square], learnt[square : square + kinds], awake, strict=True)
    ]


def situation(calm: int) -> int:
    """`blend.situation` after so many samples without a surprise."""
    if calm >= blend.AFTERMATH_UNTIL:
        return blend.CALM
    return blend.STRUCK if calm < blend.STRUCK_UNTIL else blend.AFTERMATH


def notice(row: Row, size: float) -> None:
    """`blend.notice` for one row with a due forecast."""
    known = row.residuals[0] >= conformal.KNOWN
    row.calm = 0 if known and size > blend.SURPRISE * row.residual_means[1] else row.calm + 1


def learn(row: Row, error: list[float], made: list[float]) -> None:
    """`blend.update` for one row: `error` of the blend and the K experts; `made` of the blend, which must be 1, and
    the experts."""
    kinds, naive, scale = len(made) - 1, error[1], row.blend_scale[0]
    square = naive * naive
    if scale > 0.0:
        scale += blend.SCALE_RATE * (min(square, blend.SPIKE * scale) - scale)
    else:
        scale = square
    row.blend_scale[0] = scale
    unit = 1.0 / (sqrt(scale) or 1.0)
    outer = error[0] * unit
    slope = 2.0 * outer
    if not -_HUBER < slope < _HUBER:
        slope = min(max(slope, -_HUBER), _HUBER)
    regrets = [slope * (outer - e * unit) * up for e, up in zip(error[1:], made[1:], strict=True)]
    largest = max(*regrets, -min(regrets))
    if largest > _LARGEST:
        regrets = [r * _LARGEST / largest for r in regrets]
        largest = _LARGEST
    learnt, start = row.regret, row.due_situation[0] * (2 * kinds + 1)
    for at, r in enumerate(regrets, start):
        moved = learnt[at] * _DISCOUNT + r
        learnt[at] = moved if moved > _LEAST else _LEAST
        learnt[at + kinds] = learnt[at + kinds] * _DISCOUNT + r * r
    learnt[start + 2 * kinds] = max(_DISCOUNT * learnt[start + 2 * kinds], largest * largest)


def sigma(row: Row) -> float:
    """`conformal.sigma` for one row."""
    short, medium, long = row.residual_means
    return float((short + medium) * 0.5 + _LONG_SHARE * long)


def expect(row: Row, mean: float, experts: list[float], awake: list[float]) -> tuple[list[float], list[float]]:
    """`dispersion.features` and `dispersion.sizes` for one row."""
    short, medium, long = row.residual_means
    unit = medium + _LONG_SHARE * long
    scale = 1.0 / (unit if unit > _TINY else _TINY)
    off = spoke = 0.0
    for value, up in zip(experts, awake, strict=True):
        off += abs(value - mean) * up
        spoke += up
    ratio, old = log(short * scale + _FLOOR), log(long * scale + _FLOOR)
    apart = log(off / (spoke or 1.0) * scale + _FLOOR)
    if not (-_LOG < ratio < _LOG and -_LOG < old < _LOG and -_LOG < apart < _LOG):
        ratio, old, apart = (min(max(at, -_LOG), _LOG) for at in (ratio, old, apart))
    towards, before = (experts[0] - mean) * scale, row.surprise[0] * scale
    if not (-_SIDED < towards < _SIDED and -_SIDED < before < _SIDED):
        towards, before = (min(max(at, -_SIDED), _SIDED) for at in (towards, before))
    more = apart if apart > 0.0 else 0.0
    struck = 1.0 if row.due_situation[0] == blend.STRUCK else 0.0
    t0, t1, t2, t3, t4, t5, p0, p1 = row.dispersion
    both = t0 + (t1 + _SHORT_START) * ratio + t2 * old + t3 * apart + t4 * more + t5 * struck
    side = p0 * towards + p1 * before
    below, above = both - side, both + side
    if not (-_SCALE < below < _SCALE and -_SCALE < above < _SCALE):
        below, above = (min(max(at, -_SCALE), _SCALE) for at in (below, above))
    return [1.0, ratio, old, apart, more, struck, towards, before], [exp(below) * unit, exp(above) * unit]


def disperse(row: Row, error: float, features: list[float], sizes: list[float]) -> None:
    """`dispersion.update` for one row with a due forecast."""
    side = 1.0 if error <= 0.0 else -1.0
    expected = sizes[1] if error <= 0.0 else sizes[0]
    if expected <= 0.0:
        return
    most = dispersion.SURPRISE_MAX
    learnt = min(abs(error), (1.0 + most) * expected) / max(expected, _TINY) - 1.0
    known = [dispersion.FORGETTING * g + x * x for g, x in zip(row.information, features, strict=True)]
    signs = [learnt] * _COMMON + [learnt * side] * dispersion.SIDED
    row.information = known
    row.dispersion = [
        at + x * sign / (g + dispersion.DAMPING)
        for at, x, sign, g in zip(row.dispersion, features, signs, known, strict=True)
    ]


def half_widths(row: Row, sizes: list[float], s: float, control: Control) -> tuple[list[float], list[float]]:
    """`conformal.half_widths` for one row: below and above the forecast."""
    (below, above), limit = sizes, row.residual_max[0] * conformal.MAXIMUM_SHARE
    if not row.residuals[0]:
        below, above, limit = s, s, inf
    balance = exp(row.balance[0])
    below, above = below / balance, above * balance
    quantiles = [exp(at + start) for at, start in zip(row.log_quantile, control.starts, strict=True)]
    in_order(quantiles, control.ordered)
    if max(quantiles) * (below if below > above else above) <= limit:
        return [quantile * below for quantile in quantiles], [quantile * above for quantile in quantiles]
    return [min(quantile * below, limit) for quantile in quantiles], [
        min(quantile * above, limit) for quantile in quantiles
    ]


def in_order(quantiles: list[float], ordered: list[tuple[int, int, bool]]) -> None:
    """`conformal.in_order` for one row: in place."""
    for before, place, wider in ordered:
        at, bound = quantiles[place], quantiles[before]
        if at < bound if wider else at > bound:
            quantiles[place] = bound


def cover(row: Row, error: float, widths: list[float], control: Control) -> None:
    """`conformal.update` for one row with a due forecast; `widths` are those below it, then those above."""
    levels = len(control.rates)
    count = row.residuals[0]
    step = conformal.STEP + conformal.STEP_EXTRA * conformal.STEP_AGE / (conformal.STEP_AGE + count)
    if not error and not widths[0] and not widths[levels]:
        step = 0.0
    size, widths = abs(error), widths[levels:] if error < 0.0 else widths[:levels]
    row.log_quantile = moved = [
        at + step * gain * ((size > width) - rate)
        for at, width, (rate, gain) in zip(row.log_quantile, widths, control.rates, strict=True)
    ]
    if max(moved) > _BOUND or min(moved) < -_BOUND:
        row.log_quantile = [min(max(at, -_BOUND), _BOUND) for at in moved]
    if size > widths[0]:
        balance = row.balance[0] + (conformal.BALANCE_STEP if error < 0.0 else -conformal.BALANCE_STEP)
        row.balance[0] = min(max(balance, -conformal.BALANCE_BOUND), conformal.BALANCE_BOUND)
    short, medium, long = row.residual_means
    cap = (short + medium) * 0.5 * conformal.SPIKE + long or inf
    plain, far = 1.0 / (count + 1), cap * conformal.LONG_SPIKE
    tame = cap if size > cap else size
    short += (plain if plain > _SHORT else _SHORT) * (tame - short)
    medium += (plain if plain > _MEDIUM else _MEDIUM) * (tame - medium)
    long += (plain if plain > _LONG else _LONG) * ((far if size > far else size) - long)
    row.residual_means = [short, medium, long]
    row.residuals[0] = count + 1
    most = row.residual_max[0] * conformal.MAXIMUM_FORGETTING
    row.residual_max[0] = size if size > most else most
