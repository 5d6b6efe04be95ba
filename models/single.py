"""One sample of one series in plain floats: the arithmetic of `scaling`, `channels`, `conformal` and `blend`
without the price of an array call.

A quiet stream brings one sample at a time, and then a step of the array forms is a few hundred calls that each do one
number's work. These functions do the same work on the same state (the views of one row) one step ahead, in a quarter
of the time. `tests/test_single.py` holds them to the array forms, and with them the equations can be read one number
at a time."""

from __future__ import annotations

from collections.abc import Mapping
from math import asinh, exp, inf, sqrt

import numpy as np

from . import blend, conformal, lattice, scaling
from .channels import LEVEL_CLIP, ORDERS, Moment
from .table import Array

State = Mapping[str, Array]

_HUBER = 2.0 * blend.HUBER
_LEVEL_ONE = tuple(
    (place, float(d[0]), float(c[0])) for place, (d, c) in enumerate(zip(blend.DISCOUNTS, blend.CLIPS, strict=True))
)
_SHORT, _MEDIUM, _LONG = (float(rate) for rate in conformal.RATES)


def observe(state: State, value: float) -> Moment:
    """`channels.update` for one row that has had its first samples (`TRUSTED` of them)."""
    x, row = value, 0
    count = state["count"].item() + 1
    last, s2, m = state["last"].item(), state["s2"].item(), state["m"].item()
    low, high = state["low"].item(), state["high"].item()
    difference = x - last
    square = difference * difference
    if s2 > 0.0:
        square = min(square, scaling.SPIKE * scaling.SPIKE * s2)
    s2 += max(scaling.DIFFERENCE_RATE, 1.0 / (count - 1)) * (square - s2)
    width = high - low or inf
    tame = min(max(x, low - width), high + width)
    low = min(low + scaling.LEVEL_RATE * (m - low), tame)
    high = max(high + scaling.LEVEL_RATE * (m - high), tame)
    weight = max(scaling.LEVEL_RATE, 1.0 / count)
    deviation = tame - m
    moved = deviation * weight
    m += moved
    v = state["v"].item() * (1.0 - weight) + (deviation - moved) * moved
    news = ("count", count), ("last", x), ("s2", s2), ("low", low), ("high", high), ("m", m), ("v", v)
    for name, number in news:
        state[name][row] = number
    s, sd, centre = sqrt(s2) or 1.0, sqrt(v), state["centre"].item()
    if tame != centre:
        step = scaling.CENTRE_STEP * max(scaling.CENTRE_RATE, 1.0 / count) * sd
        centre += step if tame > centre else -step
        state["centre"][row] = centre
    sd = sd or 1.0
    residual, margin = x - state["ar"].item(), 0.2 * (high - low)
    lattice.update(state, np.array([tame - centre]))
    prediction = state["prediction"]
    for name, order in ORDERS:
        ar = min(max(centre - prediction.item(order - 1), low - margin), high + margin)
        state[name][row] = ar
    level = min(max((x - m) / sd, -LEVEL_CLIP), LEVEL_CLIP)
    channels = np.array([[asinh(difference / s), level, asinh((ar - x) / s), asinh(residual / s)]], np.float32)
    return Moment(np.array([x]), np.array([s]), np.array([sd]), channels)


def aggregate(state: State, experts: list[float], awake: list[float]) -> tuple[float, list[float], list[float]]:
    """`blend.forecast` for one row: the blend, the experts' weights in it, and the two aggregations of level one."""
    regret, square, bound = (state[k].ravel().tolist() for k in ("regret", "regret_square", "regret_bound"))
    kinds = len(experts)
    shares, level_one = [], []
    for place in range(2):
        at = slice(place * kinds, (place + 1) * kinds)
        share = _shares(regret[at], square[at], bound[place], awake)
        shares.append(share)
        level_one.append(sum(map(float.__mul__, share, experts)))
    names = ("second_regret", "second_square", "second_bound")
    second_regret, second_square, second_bound = (state[k].ravel().tolist() for k in names)
    naive, long, short = _shares(second_regret, second_square, second_bound[0], [1.0, 1.0, 1.0])
    weights = [long * a + short * b for a, b in zip(*shares, strict=True)]
    weights[0] += naive
    return naive * experts[0] + long * level_one[0] + short * level_one[1], weights, level_one


def _shares(regret: list[float], square: list[float], bound: float, awake: list[float]) -> list[float]:
    shares = [max(r, 0.0) / (bound + q or 1.0) * up for r, q, up in zip(regret, square, awake, strict=True)]
    total = sum(shares)
    if total == 0.0:
        shares, total = awake, sum(awake)
    return [share / total for share in shares]


def learn(state: State, error: list[float], made: list[float]) -> None:
    """`blend.update` for one row: `error` of the blend, the K experts and level one; `made` of the blend, which must
    be 1, and the experts."""
    kinds = len(made) - 1
    naive, scale = error[1], state["blend_scale"].item()
    square = naive * naive
    if scale > 0.0:
        scale += blend.SCALE_RATE * (min(square, blend.SPIKE * scale) - scale)
    else:
        scale = square
    state["blend_scale"][0] = scale
    unit = 1.0 / (sqrt(scale) or 1.0)
    z = [e * unit for e in error]
    regret, square_sum, bound = state["regret"], state["regret_square"], state["regret_bound"]
    regrets, squares, bounds = regret.ravel().tolist(), square_sum.ravel().tolist(), bound.ravel().tolist()
    for place, discount, clip in _LEVEL_ONE:
        outer = z[1 + kinds + place]
        slope = min(max(2.0 * outer, -_HUBER), _HUBER)
        top = discount * bounds[place]
        for k in range(kinds):
            r = min(max(slope * (outer - z[1 + k]) * made[1 + k], -clip), clip)
            at = place * kinds + k
            regrets[at] = regrets[at] * discount + r
            r *= r
            squares[at] = squares[at] * discount + r
            top = max(top, r)
        bounds[place] = top
    regret[0, 0] = [regrets[:kinds], regrets[kinds:]]
    square_sum[0, 0] = [squares[:kinds], squares[kinds:]]
    bound[0, 0, :, 0] = bounds
    _learn_second(state, z)


def _learn_second(state: State, z: list[float]) -> None:
    outer, discount = z[0], blend.DISCOUNT_SECOND
    slope = min(max(2.0 * outer, -_HUBER), _HUBER)
    regret, square, bound = state["second_regret"], state["second_square"], state["second_bound"]
    regrets, squares, top = regret.ravel().tolist(), square.ravel().tolist(), discount * bound.item()
    for at, inner in enumerate((z[1], z[-2], z[-1])):
        r = slope * (outer - inner)
        regrets[at] = regrets[at] * discount + r
        r *= r
        squares[at] = squares[at] * discount + r
        top = max(top, r)
    regret[0, 0], square[0, 0], bound[0, 0, 0] = regrets, squares, top


def sigma(state: State) -> float:
    """`conformal.sigma` for one row."""
    short, medium, long = map(float, state["residual_means"].ravel())
    return (short + medium) * 0.5 + conformal.LONG_SHARE * long


def half_widths(state: State, s: float) -> list[float]:
    """`conformal.half_widths` for one row."""
    size, limit = (sigma(state), state["residual_max"].item()) if state["residuals"].item() else (s, inf)
    limit *= conformal.MAXIMUM_SHARE
    return [min(exp(width) * size, limit) for width in state["log_width"].ravel().tolist()]


def cover(state: State, size: float, widths: list[float], miss_rates: list[float]) -> None:
    """`conformal.update` for one row with a due forecast."""
    log_width, means, bound = state["log_width"], state["residual_means"], conformal.BOUND
    log_width[0, 0] = [
        min(max(width + conformal.STEP * ((size > half) - rate), -bound), bound)
        for width, half, rate in zip(log_width.ravel().tolist(), widths, miss_rates, strict=True)
    ]
    short, medium, long = means.ravel().tolist()
    count = state["residuals"].item()
    cap = (short + medium) * 0.5 * conformal.SPIKE + long if count else inf
    plain = 1.0 / (count + 1)
    short += max(_SHORT, plain) * (min(size, cap) - short)
    medium += max(_MEDIUM, plain) * (min(size, cap) - medium)
    long += max(_LONG, plain) * (size - long)
    means[0, 0] = short, medium, long
    state["residuals"][0] = count + 1
    state["residual_max"][0] = max(state["residual_max"].item() * conformal.MAXIMUM_FORGETTING, size)
