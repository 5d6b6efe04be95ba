"""One sample of one series in plain floats: the arithmetic of `scaling`, `channels`, `conformal` and `blend`
without the price of an array call.

A quiet stream brings one sample at a time, and then a step of the array forms is a few hundred calls that each do one
number's work. These functions do the same work on the same state (one row, lent by the table) one step ahead, in a
tenth of the time. `tests/test_single.py` holds them to the array forms, and with them the equations can be read one
number at a time."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import asinh, exp, inf, sqrt
from operator import mul

import numpy as np

from . import blend, conformal, lattice, scaling
from .channels import LEVEL_CLIP, ORDERS, Instant
from .table import Row

_HUBER = 2.0 * blend.HUBER
_ORDERS = [order for _, order in ORDERS]
_SHORT, _MEDIUM, _LONG = (float(rate) for rate in conformal.RATES)


def observe(row: Row, x: float) -> Instant:
    """`channels.update` for one row that has had its first samples (`TRUSTED` of them)."""
    row.count = count = row.count + 1
    difference, row.last = x - row.last, x
    s2, m, low, high = row.s2, row.m, row.low, row.high
    square = difference * difference
    if s2 > 0.0:
        square = min(square, scaling.SPIKE * scaling.SPIKE * s2)
    row.s2 = s2 = s2 + max(scaling.DIFFERENCE_RATE, 1.0 / (count - 1)) * (square - s2)
    width = high - low or inf
    tame = min(max(x, low - width), high + width)
    row.low = low = min(low + scaling.LEVEL_RATE * (m - low), tame)
    row.high = high = max(high + scaling.LEVEL_RATE * (m - high), tame)
    weight = max(scaling.LEVEL_RATE, 1.0 / count)
    deviation = tame - m
    moved = deviation * weight
    row.m = m = m + moved
    row.v = v = row.v * (1.0 - weight) + (deviation - moved) * moved
    s, sd, centre = sqrt(s2) or 1.0, sqrt(v), row.centre
    if tame != centre:
        step = scaling.CENTRE_STEP * max(scaling.CENTRE_RATE, 1.0 / count) * sd
        row.centre = centre = centre + (step if tame > centre else -step)
    residual, margin = x - row.ar, 0.2 * (high - low)
    lowest, highest = low - margin, high + margin
    expected, terms = row.memo.get("expansion") or _expand(row)
    e = tame - centre - expected
    row.ar2, row.ar10, row.ar = [min(max(centre + q0 + (q1 + q2 * e) * e, lowest), highest) for q0, q1, q2 in terms]
    row.late.append(partial(_update_lattice, row, tame - centre))
    level = min(max((x - m) / (sd or 1.0), -LEVEL_CLIP), LEVEL_CLIP)
    channels = [asinh(difference / s), level, asinh((row.ar - x) / s), asinh(residual / s)]
    return Instant(x, s, np.array(channels, np.float32))


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
    if not any(shares):
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
    slope = min(max(2.0 * outer, -_HUBER), _HUBER)
    regrets = [slope * (outer - e * unit) * up for e, up in zip(error[1:], made[1:], strict=True)]
    largest = max(*regrets, -min(regrets))
    if largest > blend.LARGEST:
        regrets = [r * blend.LARGEST / largest for r in regrets]
        largest = blend.LARGEST
    learnt, discount = row.regret, blend.DISCOUNT
    start = row.due_situation[0] * (2 * kinds + 1)
    for at, r in enumerate(regrets, start):
        learnt[at] = max(learnt[at] * discount + r, blend.FLOOR)
        learnt[at + kinds] = learnt[at + kinds] * discount + r * r
    learnt[start + 2 * kinds] = max(discount * learnt[start + 2 * kinds], largest * largest)


def sigma(row: Row) -> float:
    """`conformal.sigma` for one row."""
    short, medium, long = row.residual_means
    return float((short + medium) * 0.5 + conformal.LONG_SHARE * long)


def half_widths(row: Row, s: float) -> list[float]:
    """`conformal.half_widths` for one row."""
    size, limit = (sigma(row), row.residual_max[0] * conformal.MAXIMUM_SHARE) if row.residuals[0] else (s, inf)
    return [min(exp(width) * size, limit) for width in row.log_width]


def in_order(widths: list[float], places: list[int]) -> list[float]:
    """`conformal.in_order` for one row."""
    published, first = widths.copy(), places.index(0)
    for before, place in pairwise(places[first:]):
        published[place] = max(published[place], published[before])
    for before, place in pairwise(places[first::-1]):
        published[place] = min(published[place], published[before])
    return published


def cover(row: Row, size: float, widths: list[float], miss_rates: list[float]) -> None:
    """`conformal.update` for one row with a due forecast."""
    bound = conformal.BOUND
    row.log_width = [
        min(max(width + conformal.STEP * ((size > half) - rate), -bound), bound)
        for width, half, rate in zip(row.log_width, widths, miss_rates, strict=True)
    ]
    short, medium, long = row.residual_means
    count = row.residuals[0]
    cap = (short + medium) * 0.5 * conformal.SPIKE + long if count else inf
    plain = 1.0 / (count + 1)
    short += max(_SHORT, plain) * (min(size, cap) - short)
    medium += max(_MEDIUM, plain) * (min(size, cap) - medium)
    long += max(_LONG, plain) * (size - long)
    row.residual_means = [short, medium, long]
    row.residuals[0] = count + 1
    row.residual_max[0] = max(row.residual_max[0] * conformal.MAXIMUM_FORGETTING, size)
