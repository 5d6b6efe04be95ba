"""Causal statistics of a series, one row each: where it is, how much it moves, between which bounds.

`s` is the exponentially weighted rms of the first difference (half-life 128 samples): the unit in which everything
else is measured. `m` and the variance `v` are the weighted mean and spread (half-life 512). `low` and `high` are an
envelope that closes slowly; `centre` is a running median, around which linear prediction works. All means are plain
means until as many samples have come as their memory is long, so they are right from the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .table import Array, Column

DIFFERENCE_HALF_LIFE = 128.0
LEVEL_HALF_LIFE = 512.0
#: A difference counts as at most this many s, so that one spike does not blind the series for a hundred samples.
SPIKE = 10.0

COLUMNS = {
    "count": Column(dtype=np.int64),
    "origin": Column(),
    "centre": Column(),
    "last": Column(),
    "s2": Column(),
    "m": Column(),
    "v": Column(),
    "low": Column(),
    "high": Column(),
}


def rate(half_life: float) -> float:
    """The weight of the newest sample in a mean with that half-life."""
    return float(1.0 - 0.5 ** (1.0 / half_life))


DIFFERENCE_RATE = rate(DIFFERENCE_HALF_LIFE)
LEVEL_RATE = rate(LEVEL_HALF_LIFE)


#: So many samples are taken as they are: before, unit and envelope say little about the series.
TRUSTED = 10
#: After so many samples no mean is a plain one any more.
PLAIN_MEAN = int(1.0 / LEVEL_RATE) + 1


#: The running median moves by this many sd times its rate a sample; 1.25 sd is about the distance in which half of a
#: bell's samples lie.
CENTRE_STEP = 2.5
CENTRE_RATE = 1.0 / 1000.0


class Scale(NamedTuple):
    """What is known of each row after its newest sample; all of shape (n,), float64.

    `tame` is the sample, held within one envelope's width of the envelope: what a least-squares fit may see of a spike.
    `s` and `sd` are 1 where nothing has moved yet, so that they can be divided by.
    """

    difference: Array
    tame: Array
    s: Array
    sd: Array


def update(state: dict[str, Array], x: Array) -> Scale:
    """Take in one sample a row. `x`, shape (n,), float64, finite. The variance is West's weighted one (CACM 22(9),
    1979)."""
    count, s2, m, v = state["count"], state["s2"], state["m"], state["v"]
    youngest = int(count.min())
    if youngest == 0:
        new = count == 0
        for name in ("origin", "centre", "last", "m", "low", "high"):
            state[name][new] = x[new]
    count += 1
    difference = x - state["last"]
    state["last"][...] = x
    square = difference * difference
    # where nothing has moved yet there is no unit to cap by
    known = s2 > 0.0
    if youngest < TRUSTED:
        known &= count > TRUSTED
    np.minimum(square, SPIKE * SPIKE * s2, out=square, where=known)
    square -= s2
    weight: Array | float = LEVEL_RATE
    if youngest > PLAIN_MEAN:
        square *= DIFFERENCE_RATE
    else:
        # a new row has no difference: its k-th sample is the (k - 1)-th to be averaged
        square *= np.maximum(DIFFERENCE_RATE, 1.0 / np.maximum(count - 1, 1))
        weight = np.maximum(LEVEL_RATE, 1.0 / count)
    s2 += square
    tame = _envelope(state, x, youngest)
    deviation = tame - m
    moved = deviation * weight
    m += moved
    deviation -= moved
    deviation *= moved
    v *= 1.0 - weight
    v += deviation
    s, sd = np.sqrt(s2), np.sqrt(v)
    # the centre takes a step of the same size towards each sample, whatever its distance: it stays where half of them
    # are on either side
    step = np.sign(tame - state["centre"])
    step *= sd
    step *= CENTRE_STEP * np.maximum(CENTRE_RATE, 1.0 / count)
    state["centre"] += step
    s += s == 0.0
    sd += sd == 0.0
    return Scale(difference, tame, s, sd)


def _envelope(state: dict[str, Array], x: Array, youngest: int) -> Array:
    """Close the envelope a little towards the mean, open it for `x`, at most by its own width; return `x` held within
    that."""
    low, high, m = state["low"], state["high"], state["m"]
    width = high - low
    width[width == 0.0] = np.inf
    if youngest < TRUSTED:
        width[state["count"] <= TRUSTED] = np.inf
    tame: Array = np.minimum(np.maximum(x, low - width), high + width)
    np.minimum(low + LEVEL_RATE * (m - low), tame, out=low)
    np.maximum(high + LEVEL_RATE * (m - high), tame, out=high)
    return tame


def within_range(state: Mapping[str, Array], forecast: Array) -> Array:
    """`forecast`, shape (n,), held within the envelope and a fifth of its width: a linear forecaster that went astray
    stays near."""
    low, high = state["low"], state["high"]
    margin = 0.2 * (high - low)
    held: Array = np.minimum(np.maximum(forecast, low - margin), high + margin)
    return held
