"""Intervals that cover what they say: online conformal control per series, step ahead and level, O(1) a sample.

The residual e = |y - ŷ| is measured in units of its recent size σ, a mean of exponentially weighted means of e with
half-lives 5 and 50 plus a little of the long one (2,300). The half-width for miss rate a is min(exp(l_a) σ, 1.5 M), M
a slowly forgotten maximum of e, and

    l_a ← l_a + 0.1 (miss - a),  held within ±20.

This is quantile tracking (Gibbs & Candès 2021; Angelopoulos, Candès & Tibshirani 2023) on the logarithm of the
normalised residual. While l_a is inside its bounds the sum telescopes, whatever the data: mean(miss) - a = (l_T -
l_0) / (0.1 T)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .scaling import rate
from .table import Array, Column

STEP = 0.1
BOUND = 20.0
#: Half-lives of the three means of e, short to long, and the share of the long one in σ.
HALF_LIVES = (5.0, 50.0, 2300.0)
LONG_SHARE = 0.02
#: An error enters the two short means as at most this many times their own mean.
SPIKE = 10.0
MAXIMUM_FORGETTING = 0.999
MAXIMUM_SHARE = 1.5

#: After so many residuals their usual size is known.
KNOWN = 20

RATES = np.array([rate(h) for h in HALF_LIVES])
#: After so many residuals no mean is a plain one any more.
PLAIN_MEAN = int(1.0 / RATES[-1]) + 1


def columns(horizon: int, levels: int) -> dict[str, Column]:
    """The state for that many steps ahead and levels."""
    return {
        "residuals": Column((horizon,), dtype=np.int64),
        "residual_means": Column((horizon, 3)),
        "residual_max": Column((horizon,)),
        "log_width": Column((horizon, levels), float(np.log(2.0))),
    }


def sigma(state: Mapping[str, Array]) -> Array:
    """The expected size of the next residual, shape (n, H); 0 where no residual has been seen."""
    means = state["residual_means"]
    return (means[:, :, 0] + means[:, :, 1]) * 0.5 + LONG_SHARE * means[:, :, 2]


def usual(state: Mapping[str, Array]) -> Array:
    """The usual size of a residual, their mean with the middle half-life, shape (n, H); infinite where too few have
    been seen."""
    return np.where(state["residuals"] >= KNOWN, state["residual_means"][:, :, 1], np.inf)


def half_widths(state: Mapping[str, Array], s: Array) -> Array:
    """Half-widths of the intervals around the forecasts made now, shape (n, H, L), each as its own level learnt it: a
    wider level may for a while have the smaller width, so `in_order` comes before publishing. `s`, shape (n,),
    stands in for σ before the first residual."""
    width = np.exp(state["log_width"])
    if not state["residuals"].all():
        new = state["residuals"] == 0
        size = np.where(new, s[:, None], sigma(state))
        limit = np.where(new, np.inf, state["residual_max"])
    else:
        size, limit = sigma(state), state["residual_max"]
    width *= size[:, :, None]
    return np.minimum(width, MAXIMUM_SHARE * limit[:, :, None], out=width)


def in_order(widths: Array, places: Sequence[int]) -> Array:
    """The half-widths `widths`, shape (n, H, L), as published: a wider level has no smaller one. The first level keeps
    its own, and with it what is guaranteed; a wider one has at least the next narrower one's, a narrower one at most
    the next wider one's. `places` are those of the levels, narrowest first."""
    first = places.index(0)
    ordered = widths[:, :, places]
    wider, narrower = ordered[:, :, first:], ordered[:, :, first::-1]
    wider[...] = np.maximum.accumulate(wider, axis=2)
    narrower[...] = np.minimum.accumulate(narrower, axis=2)
    published = np.empty_like(widths)
    published[:, :, places] = ordered
    return published


def update(state: Mapping[str, Array], size: Array, width: Array, made: Array, miss_rates: Array) -> None:
    """Learn from `size`, |y_pred - y|, shape (n, H), finite, of forecasts whose half-widths were `width`, shape (n,
    H, L).

    `made`, shape (n, H), is 1 where a forecast was due, else 0; `miss_rates`, shape (L,), one minus each level.
    """
    count, means, largest, log_width = (state[k] for k in ("residuals", "residual_means", "residual_max", "log_width"))
    step: Array = (size[:, :, None] > width) - miss_rates
    step *= (STEP * made)[:, :, None]
    log_width += step
    np.minimum(np.maximum(log_width, -BOUND, out=log_width), BOUND, out=log_width)
    cap = means[:, :, 0] + means[:, :, 1]
    cap *= SPIKE * 0.5
    cap += means[:, :, 2]
    youngest = int(count.min())
    if youngest == 0:
        cap[count == 0] = np.inf
    count += made.astype(np.int64)
    entering = np.empty_like(means)
    entering[:, :, 2] = size
    entering[:, :, :2] = np.minimum(size, cap)[:, :, None]
    entering -= means
    if youngest > PLAIN_MEAN:
        entering *= RATES
    else:
        entering *= np.maximum(RATES, 1.0 / np.maximum(count, 1)[:, :, None])
    entering *= made[:, :, None]
    means += entering
    largest *= 1.0 - (1.0 - MAXIMUM_FORGETTING) * made
    np.maximum(largest, size * made, out=largest)
