"""One sample of one series in plain floats: the arithmetic of `scaling`, `channels`, `conformal` and `blend`
without the price of an array call.

A quiet stream brings one sample at a time, and then a step of the array forms is a few hundred calls that each do one
number's work. These functions do the same work on the same state (one row, lent by the table) one step ahead, in a
tenth of the time. `tests/test_single.py` holds them to the array forms, and with them the equations can be read one
number at a time."""

from __future__ import annotations

from functools import partial
from math import asinh, exp, inf, sqrt
from operator import mul

import numpy as np

from . import blend, conformal, lattice, scaling
from .channels import LEVEL_CLIP, ORDERS, Instant
from .table import Row

_HUBER = 2.0 * blend.HUBER
_LEVEL_ONE = tuple(
    (place, float(d[0]), float(c[0])) for place, (d, c) in enumerate(zip(blend.DISCOUNTS, blend.CLIPS, strict=True))
)
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


def aggregate(row: Row, experts: list[float], awake: list[float]) -> tuple[float, list[float], list[float]]:
    """`blend.forecast` for one row: the blend, the experts' weights in it, and the two aggregations of level one."""
    regret, square, bound = row.regret, row.regret_square, row.regret_bound
    kinds = len(experts)
    shares, level_one = [], []
    for place in range(2):
        at = slice(place * kinds, (place + 1) * kinds)
        share = _shares(regret[at], square[at], bound[place], awake)
        shares.append(share)
        level_one.append(sum(map(mul, share, experts)))
    naive, long, short = _shares(row.second_regret, row.second_square, row.second_bound[0], [1.0, 1.0, 1.0])
    weights = [long * a + short * b for a, b in zip(*shares, strict=True)]
    weights[0] += naive
    return naive * experts[0] + long * level_one[0] + short * level_one[1], weights, level_one


def _shares(regret: list[float], square: list[float], bound: float, awake: list[float]) -> list[float]:
    shares = [r / (bound + q or 1.0) * up if r > 0.0 else 0.0 for r, q, up in zip(regret, square, awake, strict=True)]
    total = sum(shares)
    if total == 0.0:
        shares, total = awake, sum(awake)
    return [share / total for share in shares]


def learn(row: Row, error: list[float], made: list[float]) -> None:
    """`blend.update` for one row: `error` of the blend, the K experts and level one; `made` of the blend, which must
    be 1, and the experts."""
    kinds = len(made) - 1
    naive, scale = error[1], row.blend_scale[0]
    square = naive * naive
    if scale > 0.0:
        scale += blend.SCALE_RATE * (min(square, blend.SPIKE * scale) - scale)
    else:
        scale = square
    row.blend_scale[0] = scale
    unit = 1.0 / (sqrt(scale) or 1.0)
    z = [e * unit for e in error]
    regrets, squares, bounds = row.regret, row.regret_square, row.regret_bound
    each = list(zip(z[1 : 1 + kinds], made[1:], strict=True))
    for place, discount, clip in _LEVEL_ONE:
        outer = z[1 + kinds + place]
        slope = min(max(2.0 * outer, -_HUBER), _HUBER)
        top = discount * bounds[place]
        for at, (inner, up) in enumerate(each, place * kinds):
            r = slope * (outer - inner) * up
            if not -clip <= r <= clip:
                r = clip if r > 0.0 else -clip
            regrets[at] = regrets[at] * discount + r
            r *= r
            squares[at] = squares[at] * discount + r
            if r > top:
                top = r
        bounds[place] = top
    _learn_second(row, z)


def _learn_second(row: Row, z: list[float]) -> None:
    outer, discount = z[0], blend.DISCOUNT_SECOND
    slope = min(max(2.0 * outer, -_HUBER), _HUBER)
    regrets, squares, top = row.second_regret, row.second_square, discount * row.second_bound[0]
    for at, inner in enumerate((z[1], z[-2], z[-1])):
        r = slope * (outer - inner)
        regrets[at] = regrets[at] * discount + r
        r *= r
        squares[at] = squares[at] * discount + r
        top = max(top, r)
    row.second_bound[0] = top


def sigma(row: Row) -> float:
    """`conformal.sigma` for one row."""
    short, medium, long = row.residual_means
    return float((short + medium) * 0.5 + conformal.LONG_SHARE * long)


def half_widths(row: Row, s: float) -> list[float]:
    """`conformal.half_widths` for one row."""
    size, limit = (sigma(row), row.residual_max[0] * conformal.MAXIMUM_SHARE) if row.residuals[0] else (s, inf)
    return [min(exp(width) * size, limit) for width in row.log_width]


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
