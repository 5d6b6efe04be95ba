"""Intervals that cover what they say: online conformal control per series, step ahead and level, O(1) a sample.

An interval reaches exp(l_a - b) S₋ below the forecast and exp(l_a + b) S₊ above it, S± being how large an error is
expected there (`dispersion`), and nowhere further than 1.5 M, a slowly forgotten maximum of |e|. A wider level's is at
least as wide as a narrower one's (`in_order`). For each miss rate a, and for what was published,

    l_a ← l_a + η_a (miss - a),  held within ±20 of its start,     η_a = (0.04 + 0.06 · 500 / (500 + t)) · g_a

where g_a = (0.1 / a)^0.6, within 1 and 4. This is quantile tracking (Gibbs & Candès 2021; Angelopoulos, Candès &
Tibshirani 2023) on the logarithm of the normalised residual, with steps that shrink (Angelopoulos, Barber & Bates
2024). Where S± and the error are both 0, as in a flat series, nothing is learnt. The balance
b ← b + 0.005 (missed above - missed below), of the first level, within ±2, shares the misses out evenly. While l_a is
inside its bounds, |mean(miss) - a| ≤ (max l_a - min l_a) / (η_a(T) T), whatever the data, flat stretches left out:
`docs/numerics.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from .scaling import rate
from .table import Array, Column

#: η at first less η in the end, η in the end, and the residuals after which half of the difference is gone.
STEP_EXTRA, STEP, STEP_AGE = 0.06, 0.04, 500.0
#: A level of few misses takes longer steps, or it would need far more samples: by that power, so many times at most.
STEP_POWER, STEP_MOST = 0.6, 4.0
BOUND = 20.0
BALANCE_STEP, BALANCE_BOUND = 0.005, 2.0
#: Half-lives of the three means of |e|, short to long, and the share of the long one in σ.
HALF_LIVES = (5.0, 50.0, 2300.0)
LONG_SHARE = 0.02
#: An error enters the two short means as at most this many times their own mean, and the long one as so many of those.
SPIKE, LONG_SPIKE = 10.0, 1_000.0
MAXIMUM_FORGETTING = 0.999
MAXIMUM_SHARE = 1.5

#: After so many residuals their usual size is known.
KNOWN = 20

RATES = np.array([rate(h) for h in HALF_LIVES])


def columns(horizon: int, levels: int) -> dict[str, Column]:
    """The state for that many steps ahead and levels."""
    return {
        "residuals": Column((horizon,), dtype=np.int64),
        "residual_means": Column((horizon, 3)),
        "residual_max": Column((horizon,)),
        #: l, less its start; b
        "log_quantile": Column((horizon, levels)),
        "balance": Column((horizon,)),
    }


def starts(miss_rates: Array) -> Array:
    """l of each level at first, shape (L,): the quantile of a law between the exponential and the normal one."""
    return np.asarray(np.log(-0.9 * np.log(miss_rates)))


def gains(miss_rates: Array) -> Array:
    """How much longer the steps of each level are, shape (L,)."""
    return np.asarray(np.clip((0.1 / miss_rates) ** STEP_POWER, 1.0, STEP_MOST))


def unit(state: Mapping[str, Array]) -> Array:
    """The mean size of recent errors, shape (n, H), in which `dispersion` counts; 0 where none has been seen."""
    means = state["residual_means"]
    scale: Array = means[:, :, 1] + LONG_SHARE * means[:, :, 2]
    return scale


def sigma(state: Mapping[str, Array]) -> Array:
    """What the size of the next residual is judged by, whatever the experts say, shape (n, H); 0 where no residual has
    been seen. A quicker mean than `unit`.
    """
    means = state["residual_means"]
    return (means[:, :, 0] + means[:, :, 1]) * 0.5 + LONG_SHARE * means[:, :, 2]


def usual(state: Mapping[str, Array]) -> Array:
    """The usual size of a residual, their mean with the middle half-life, shape (n, H); infinite where too few have
    been seen."""
    return np.where(state["residuals"] >= KNOWN, state["residual_means"][:, :, 1], np.inf)


def half_widths(state: Mapping[str, Array], size: Array, s: Array, first: Array, places: Sequence[int]) -> Array:
    """How far the intervals around the forecasts made now reach below and above them, as published, shape (n, H, 2, L).

    `size`, shape (n, H, 2), is `dispersion.sizes`; `s`, shape (n,), stands in for it before the first residual;
    `first`, shape (L,), is `starts`; for `places` see `in_order`."""
    limit = MAXIMUM_SHARE * state["residual_max"]
    if not state["residuals"].all():
        new = state["residuals"] == 0
        size = np.where(new[:, :, None], s[:, None, None], size)
        limit[new] = np.inf
    balance = np.exp(state["balance"])
    reach = np.stack([size[:, :, 0] / balance, size[:, :, 1] * balance])
    # where the quantiles are in order, so are the widths
    quantile = np.stack([state["log_quantile"][:, :, k] + start for k, start in enumerate(first)])
    width = np.exp(in_order(quantile, places)) * reach[:, None]
    return np.moveaxis(np.minimum(width, limit, out=width), (0, 1), (2, 3))


def in_order(quantiles: Array, places: Sequence[int]) -> Array:
    """The `quantiles`, shape (L, n, H), changed such that a wider level has no smaller one. The first level keeps its
    own; a wider one has at least the next narrower one's, a narrower one at most the next wider one's. `places` are
    those of the levels, narrowest first."""
    first = places.index(0)
    for before, wider in pairwise(places[first:]):
        np.maximum(quantiles[wider], quantiles[before], out=quantiles[wider])
    for before, narrower in pairwise(places[first::-1]):
        np.minimum(quantiles[narrower], quantiles[before], out=quantiles[narrower])
    return quantiles


def update(state: Mapping[str, Array], error: Array, width: Array, made: Array, miss_rates: Array, gain: Array) -> None:
    """Learn from `error`, y_pred - y, shape (n, H), finite, of forecasts whose intervals were `width`, shape (n, H, 2,
    L).

    `made`, shape (n, H), is 1 where a forecast was due, else 0; `miss_rates`, shape (L,), one minus each level, and
    `gain`, shape (L,), their `gains`.
    """
    below, above = error[:, :, None] > width[:, :, 0], -error[:, :, None] > width[:, :, 1]
    step: Array = (below | above) - miss_rates
    step *= gain
    # Where no error was expected and none came, nothing is said of how wide is wide enough.
    told = made * ((error != 0.0) | (width[:, :, 0, 0] + width[:, :, 1, 0] > 0.0))
    step *= (told * (STEP + STEP_EXTRA * STEP_AGE / (STEP_AGE + state["residuals"])))[:, :, None]
    log_quantile, balance = state["log_quantile"], state["balance"]
    log_quantile += step
    np.minimum(np.maximum(log_quantile, -BOUND, out=log_quantile), BOUND, out=log_quantile)
    balance += BALANCE_STEP * made * (above[:, :, 0] - 1.0 * below[:, :, 0])
    np.minimum(np.maximum(balance, -BALANCE_BOUND, out=balance), BALANCE_BOUND, out=balance)
    _average(state, np.abs(error), made)


def _average(state: Mapping[str, Array], size: Array, made: Array) -> None:
    count, means, largest = state["residuals"], state["residual_means"], state["residual_max"]
    cap = means[:, :, 0] + means[:, :, 1]
    cap *= SPIKE * 0.5
    cap += means[:, :, 2]
    cap[cap == 0.0] = np.inf
    count += made.astype(np.int64)
    plain, held = 1.0 / np.maximum(count, 1), np.minimum(size, cap)
    for k, entering in enumerate((held, held, np.minimum(size, LONG_SPIKE * cap))):
        means[:, :, k] += (entering - means[:, :, k]) * np.maximum(RATES[k], plain) * made
    largest *= 1.0 - (1.0 - MAXIMUM_FORGETTING) * made
    np.maximum(largest, size * made, out=largest)
