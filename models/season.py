"""How long the season of a series is, found in its last samples.

A season is a lag at which what a series does comes back. What it does is its change, not its level, or every wandering
level would look like half a season: the differences d_t = x_t - x_{t-1}, each held within three times their mean size.
One Fourier transform gives their autocovariance at all lags. A long season shows better in smoother differences, those
between means over m = 1, 2, 4, 8, 16 samples, whose autocovariance is the one at scale m / 2 smoothed with [1 4 6 4
1] / 16 at spacing m / 2. For each scale m and lag p:

    likeness   the mean correlation at p, 2p, 3p and 4p, over all pairs of samples that far apart
    contrast   the same minus that at p/2, 3p/2, 5p/2 and 7p/2, half a season off
    z          the lesser of the two in standard deviations of chance: times sqrt(pairs / e), where e, the sum of
               squared correlations up to p/6 to either side, says how many neighbouring differences are worth one
               (Bartlett 1946)

In noise, random walks and what lies between them z stays below about 5.5, and does not stay where it is.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .table import Array

Index = NDArray[np.intp]
Flags = NDArray[np.bool_]

#: The fewest samples to look at.
SAMPLES_MIN = 64
#: A difference counts as at most this many times their mean size.
CLIP = 3.0
MULTIPLES = 4
SCALES = 5
#: A scale is used for seasons of at least so many times its length.
SCALE_MAX = 6
#: What comes back sooner is in plain sight of every other expert.
SHORTEST = 4
#: Seasons that must fit into the samples, so that chance has little say.
REPEATS = 3
#: How clear (z) and how strong a season must be to be found, or to be found though weak, and to stay known.
Z_FOUND, FOUND = 5.5, 0.2
Z_WEAK, WEAK = 7.5, 0.12
Z_KNOWN, KNOWN = 3.5, 0.1
#: How much stronger another season must be than the known one, a longer than a shorter one.
GAIN = 0.05
#: Share by which two estimates of one season may differ.
TOLERANCE = 0.03
#: Share by which a closer look may move a season, and how near it must be to whole samples to be so many: what is
#: read between two samples is a blur of both.
REFINED, WHOLE = 0.01, 0.06
#: Integral of the squared autocorrelation of a difference of means, in units of m: the e of a random walk.
WALK = 1.08


class Evidence(NamedTuple):
    """What speaks for each lag 0 … P - 1 of n series at M scales: `pairs` of shape (P,), the others (n, M, P)."""

    likeness: Array
    contrast: Array
    z: Array
    pairs: Array


def decide(x: Array, season: Array, candidate: Array, doubts: Array) -> tuple[Array, Array, Array]:
    """Look once more for the season of n series in their last N samples, `x`, as `evidence` wants them.

    `season` is the known one in samples, `candidate` what the last look proposed instead (0: nothing) and `doubts` in
    how many looks the known one was not seen; all of shape (n,). Returns them as they are after this look. A season is
    taken up when two looks in a row agree on it, and given up when two in a row do not see it.
    """
    e = evidence(x)
    found, scale = find(e)
    found = refined(x, found)
    seen, strength = visible(e, season)
    again = same(found, season)
    other = np.where(again, 0.0, found)
    rival = (other > 0.0) & seen
    if rival.any():
        other[rival & (visible(e, other)[1] < strength + GAIN)] = 0.0
    for i in np.flatnonzero(other):
        if not steady(x[i], float(other[i]), 1 << int(scale[i])):
            other[i] = 0.0
    taken = same(other, candidate)
    doubts = np.where(again | seen | (season == 0.0), 0, doubts + 1)
    lost = doubts >= 2
    known = np.where(again, found, np.where(lost, 0.0, season))
    return np.where(taken, other, known), np.where(taken, 0.0, other), np.where(taken | lost, 0, doubts)


def same(a: Array, b: Array) -> Flags:
    """Whether `a` and `b`, in samples, are estimates of one season; 0 is none. Same shape."""
    close: Flags = np.abs(a - b) <= np.maximum(1.0, TOLERANCE * b)
    return close & (a > 0.0) & (b > 0.0)


def evidence(x: Array) -> Evidence:
    """What speaks for each lag. `x`, shape (n, N), N at least `SAMPLES_MIN`, oldest first; NaN where one is missing."""
    d = _differences(x)
    n, size = d.shape
    lags = size // REPEATS + 1
    scales = min(SCALES, ((lags - 1) // SCALE_MAX).bit_length())
    pairs, pairs_off = _pairs(size, lags)
    # all scales together: their calls into NumPy would take longer than the numbers
    c = _halved(_autocovariance(d), scales)
    unit = c[:, :, :1] / size
    unit[unit <= 0.0] = np.inf
    likeness, off = (np.zeros((n, scales, lags), np.float32) for _ in range(2))
    _gather(likeness, c, range(2, 2 * MULTIPLES + 1, 2))
    _gather(off, c, range(1, 2 * MULTIPLES, 2))
    likeness /= unit * pairs
    off /= unit * pairs_off
    z = likeness - np.maximum(off, 0.0)
    z *= np.sqrt(pairs / _worth(c[:, :, : 2 * (lags // 6) + 1 : 2] / (unit * size), lags))
    for j in range(scales):
        z[:, j, : SCALE_MAX << j if j else 2] = 0.0
    return Evidence(likeness, np.subtract(likeness, off, out=off), z, pairs)


@lru_cache(maxsize=16)
def _pairs(size: int, lags: int) -> tuple[Array, Array]:
    """Pairs of differences at all multiples of each lag, and at those half a lag off; shape (lags,), not to be
    changed."""
    lag = np.arange(lags)
    on, off = (
        np.maximum(size - np.outer(np.arange(first, MULTIPLES + first), lag), 0.0).sum(0) for first in (1.0, 0.5)
    )
    return on.astype(np.float32), off.astype(np.float32)


def _differences(x: Array) -> Array:
    """Differences in units of the largest, held within `CLIP` mean sizes, of mean 0; float32, shape (n, N - 1)."""
    d = np.diff(x, axis=1)
    missing = np.isnan(d)
    if missing.any():
        d[missing] = 0.0
    largest = np.maximum(d.max(1, keepdims=True), -d.min(1, keepdims=True))
    largest[largest == 0.0] = 1.0
    d = np.asarray(d / largest, np.float32)
    d -= d.mean(1, keepdims=True)
    limit = CLIP * np.abs(d).mean(1, keepdims=True)
    np.minimum(np.maximum(d, -limit, out=d), limit, out=d)
    d -= d.mean(1, keepdims=True)
    return d


def _autocovariance(d: Array) -> Array:
    """Sums of products at all lags, shape (n, N): the transform of the power spectrum of `d` and as many zeros."""
    size = d.shape[1]
    length = 1 << (2 * size - 1).bit_length()
    transform = np.fft.rfft(d, length)
    power = np.square(transform.real)
    power += np.square(transform.imag)
    covariance: Array = np.fft.irfft(power, length)[:, :size]
    return covariance


def _halved(c: Array, scales: int) -> Array:
    """The autocovariance at all scales and every half lag, shape (n, M, 2N - 1), out of that of the differences, (n,
    N); between two lags it is their mean, and 0 beyond what a scale reaches."""
    halves = np.zeros((len(c), scales, 2 * c.shape[1] - 1), c.dtype)
    for j in range(scales):
        if j:
            c = _coarser(c, 1 << j >> 1)
        stop = 2 * c.shape[1] - 1
        halves[:, j, :stop:2] = c
        between = halves[:, j, 1:stop:2]
        np.add(c[:, 1:], c[:, :-1], out=between)
        between *= 0.5
    return halves


def _coarser(c: Array, m: int) -> Array:
    """The autocovariance at scale 2m out of that at scale m, lags 0 … ; the last 2m lags are lost."""
    c = np.concatenate([c[:, 2 * m : 0 : -1], c], axis=1)
    for _ in range(4):
        c = c[:, :-m] + c[:, m:]
    c *= 1.0 / 16.0
    return c


def _gather(out: Array, c: Array, multiples: range) -> None:
    """Add to out[..., p] what `c` has at the multiples of p, where it reaches that far."""
    for k in multiples:
        part = c[:, :, : (out.shape[2] - 1) * k + 1 : k]
        out[:, :, : part.shape[2]] += part


def _worth(rho: Array, lags: int) -> Array:
    """e for each lag, shape (n, M, lags), from the correlations at the lags up to a sixth of them."""
    e = np.cumsum(rho * rho, axis=2)
    e *= 2.0 / WALK
    e -= 1.0 / WALK
    # no better than one in m, the scale
    np.maximum(e, np.exp2(np.arange(e.shape[1], dtype=np.float32))[:, None], out=e)
    return np.repeat(e, 6, axis=2)[:, :, :lags]


def find(e: Evidence) -> tuple[Array, Index]:
    """The season of each series in samples, 0 where none is clear, and the scale it shows at, as an exponent of 2.

    Both are of shape (n,). It is the shortest that is nearly as clear as the clearest; or a longer one, where that is
    more alike still.
    """
    n = len(e.z)
    row = np.arange(n)
    z = e.z.copy()
    z[:, :, :2] = z[:, :, -1] = 0.0
    inner = e.z[:, :, 1:-1]
    z[:, :, 1:-1][(inner < e.z[:, :, :-2]) | (inner < e.z[:, :, 2:])] = 0.0
    top = z.max(2)
    scale = np.argmax(top >= 0.8 * top.max(1, keepdims=True), axis=1)
    z = z[row, scale]
    lag = np.argmax(z >= 0.9 * z.max(1, keepdims=True), axis=1)
    clear, strong = z[row, lag], np.minimum(e.likeness[row, scale, lag], e.contrast[row, scale, lag])
    found = (clear >= Z_FOUND) & (strong >= FOUND) | (clear >= Z_WEAK) & (strong >= WEAK)
    season = np.zeros(n)
    keep = np.flatnonzero(found & (lag >= SHORTEST))
    if len(keep):
        likeness, contrast = (array[keep, scale[keep]] for array in (e.likeness, e.contrast))
        longer = _longer(likeness, contrast, e.pairs, lag[keep], 1 << scale[keep])
        season[keep] = _between(likeness, longer)
    return season, scale


def _longer(likeness: Array, contrast: Array, pairs: Array, season: Index, m: Index) -> Index:
    """Twice the season, where every other one is more alike; then any longer one that is clearly more alike.

    `likeness` and `contrast` are of shape (n, P), `season` and the scale `m` of shape (n,).
    """
    row, lags = np.arange(len(season)), likeness.shape[1]
    for _ in range(2):
        around = np.minimum(2 * season[:, None] + np.arange(-1, 2), lags - 1)
        twice = around[row, likeness[row[:, None], around].argmax(1)]
        better = contrast[row, twice] * np.sqrt(pairs[twice] / (2.0 * m)) >= 2.0
        better &= (likeness[row, twice] > likeness[row, season]) & (2 * season + 1 < lags)
        season = np.where(better, twice, season)
    inner = likeness[:, 1:-1]
    gain = inner - likeness[row, season][:, None] - np.maximum(GAIN, 3.0 * np.sqrt(m[:, None] / pairs[1:-1]))
    near = np.arange(1, lags - 1) < 1.5 * season[:, None]
    gain[near | (inner < likeness[:, :-2]) | (inner < likeness[:, 2:])] = 0.0
    top = gain.max(1, keepdims=True)
    return np.where(top[:, 0] > 0.0, 1 + np.argmax(gain >= 0.7 * top, axis=1), season)


def _between(likeness: Array, season: Index) -> Array:
    """The season with its fraction of a sample, from the parabola through its neighbours.

    It stays whole where it is nearly so, since what is read between two samples is a blur of both.
    """
    row, season = np.arange(len(season)), np.minimum(season, likeness.shape[1] - 2)
    left, middle, right = (likeness[row, season + k] for k in (-1, 0, 1))
    bend = np.minimum(left - 2.0 * middle + right, -1e-12)
    offset = 0.5 * (left - right) / bend
    offset[(np.abs(offset) <= 0.2) | (np.abs(offset) > 0.5)] = 0.0
    return season + offset


def refined(x: Array, season: Array) -> Array:
    """`season`, shape (n,), 0 for none, more precisely: the k-th multiple is known as well as the first, so a k-th of
    it k times as well. `x`, shape (n, N).

    From multiple to multiple up to half the samples, each looked for next to k times what the one before gave, where
    changes over a quarter of the season are most alike. One is enough to spoil a season that glides, so that it must
    stay within `REFINED` of what it was."""
    out = season.copy()
    for i in np.flatnonzero(season):
        first = best = float(season[i])
        apart = max(1, round(first / 4))
        y = np.nan_to_num(x[i, apart:] - x[i, :-apart])
        limit = CLIP * np.abs(y).mean()
        c = _autocovariance(np.minimum(np.maximum(y, -limit), limit)[None])[0]
        for k in range(2, int(len(y) / (2 * first)) + 1):
            at = round(k * best)
            at += int(np.argmax(c[at - 1 : at + 2])) - 1
            left, middle, right = c[at - 1 : at + 2].tolist()
            if middle < max(left, right) or left - 2.0 * middle + right >= 0.0:
                break
            best = (at + 0.5 * (left - right) / (left - 2.0 * middle + right)) / k
        if abs(best - first) <= max(0.5, REFINED * first):
            out[i] = round(best) if abs(best - round(best)) <= WHOLE else best
    return out


def visible(e: Evidence, season: Array) -> tuple[Flags, Array]:
    """Whether a known season, shape (n,), 0 for none, still shows at some scale, and its likeness there, else 0."""
    n, scales, lags = e.z.shape
    reach = int(0.02 * lags) + 1
    step = np.arange(-reach, reach + 1)
    at = np.minimum(np.maximum(np.rint(season).astype(np.intp)[:, None] + step, 0), lags - 1)
    z = e.z[np.arange(n)[:, None, None], np.arange(scales)[:, None], at[:, None]]
    far = np.abs(step) > np.maximum(1.0, 0.02 * season)[:, None]
    z[np.broadcast_to(far[:, None], z.shape)] = 0.0
    row, best = np.arange(n), z.reshape(n, -1).argmax(1)
    scale, place = np.divmod(best, len(step))
    where = (row, scale, at[row, place])
    likeness = e.likeness[where]
    seen = (z[row, scale, place] >= Z_KNOWN) & (np.minimum(likeness, e.contrast[where]) >= KNOWN) & (season > 0.0)
    return seen, np.where(seen, likeness, 0.0)


def steady(x: Array, season: float, m: int) -> bool:
    """Whether all parts of `x`, shape (N,), show the season found at scale `m`: a gliding tone has one only in passing.

    In each of three parts, two where there are few seasons, the differences are compared with those about a season
    earlier; a short season is taken several times, so that a fraction of a sample shows.
    """
    y = _differences(x[None])[0]
    if m > 1:
        box = np.ones(m, np.float32)
        y = np.convolve(np.convolve(y, box, "valid"), box, "valid")
    lag = round(max(1, int(24 // season)) * season)
    reach = max(2, min(lag // 4, int(season / 2)))
    parts = 2 if len(y) < 8 * lag else 3
    start, stop = lag + reach, len(y) - (reach if parts > 2 else 0)
    edges = [start + (stop - start) * k // parts for k in range(parts + 1)]
    best = [
        int(np.correlate(y[a - lag - reach : b - lag + reach], y[a:b], "valid").argmax()) for a, b in pairwise(edges)
    ]
    return max(best) - min(best) <= max(2.0, 4.0 * TOLERANCE * lag)
