"""How unusual a sample is, in the series' own terms: the chance p of one like it, and whether to raise the flag.

Of each residual e = x - ŷ, in units of its usual size σ (`conformal`), z = e / σ, two measures are taken: `size`, |z|,
which sees spikes, and `drift`, the larger of the two sums D ← max(D ± z - 0.7, 0) of Page (Biometrika 41, 1954), which
sees a level that has moved by too little for any one sample to show. Each becomes a chance by what it has been on this
very stream:

- The values that 80, 50, 20, 5 and 1 % exceed are tracked as interval widths are in `conformal`, on a logarithmic
  scale: l ← l + η ([v > e^l] - a). Between them ln p is a straight line in v. The sum telescopes here too: whatever the
  stream does, the share of samples beyond each is a + (l_T - l_0) / (η T).
- Beyond the last, v₁, p falls off as a generalised Pareto tail of shape s = 0.15 (Pickands, Annals of Statistics 3(1),
  1975): ln p = ln 0.01 - κ / s · ln(1 + s x / ((1 - s) m)), with x = v / v₁ - 1 and m the mean of x.
- κ is steered by the alarms: ln κ ← ln κ - (c - r), c = 1 at a new alarm, half at one that follows another within ten
  samples, 0 else. While κ is within its bounds, the sum of c over T samples is r T + ln κ_0 - ln κ_T.

The published p is that of `size`; where `drift` alone is out of the ordinary, it is that, and the sum starts anew. A
third thing is no residual at all: the value stays the same for much longer than ever before.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import accumulate, pairwise
from math import copysign, exp, isnan, log, log1p, nan
from typing import NamedTuple

import numpy as np

from .table import Array, Column, Row

SPIKE, SHIFT, FLAT = 1, 2, 3
#: What a flag is raised for, by number.
KINDS = ("", "spike", "shift", "flat")

#: Chances of more than the tracked quantiles of `size`, and where these start; of `drift` only the last one is.
TAILS = np.array([0.8, 0.5, 0.2, 0.05, 0.01])
STARTS = np.log([0.3, 0.85, 1.75, 2.9, 4.5])
DRIFT_START = log(4.5)
#: η: `drift` is above its quantile for many samples on end, which must not follow at once.
STEP, DRIFT_STEP = 0.07, 0.02
BOUND = 20.0
#: m: what it starts with, for how many excesses that counts, its rate once many have come, its least value, and the
#: most that one excess counts in it.
TAIL_STARTS, TAIL_WEIGHTS = np.array([0.3, 0.18]), np.array([10.0, 50.0])
TAIL_RATE, TAIL_MIN, EXCESS = 1.0 / 200.0, 0.02, 20.0
SHAPE = 0.15
#: ln κ: its start, which is a little careful, its gain and its bounds.
SLOPE_START, GAIN, SLOPE_MIN, SLOPE_MAX = -0.3, 1.0, -4.0, 3.0
#: In alarm rates: what each measure may use up, r, all of it together, and the p at which it raises the alarm. `drift`
#: is beyond that for several samples at a time, which are one alarm.
SHARES, LEVELS = np.array([0.9, 0.1]), np.array([1.0, 0.2])
#: An alarm is a new one after so many samples without; otherwise it counts that much.
CALM, AGAIN = 10, 0.5
#: A residual counts as at most so many σ.
Z_MAX = 1e6
#: What z must exceed to add to `drift`, and the most it counts there.
ALLOWANCE, DRIFT_MAX = 0.7, 5.0
#: A line is flat after so many samples like the one before, if that is so many times as long as ever before, and as
#: unlikely as this, the share of such samples being what it was in about the last 500.
FLAT_MIN, FLAT_FACTOR, FLAT_CHANCE, FLAT_MEMORY = 8.0, 3.0, 1e-6, 500.0

COLUMNS = {
    #: logarithms of the quantiles of `size` but the last, less `STARTS`
    "size_body": Column((4,)),
    #: of both measures: logarithm of the last quantile, less its start; m, less its start; ln κ, less its start;
    #: excesses
    #: so far; samples since the last alarm
    "unusual": Column((2, 5)),
    #: Page's sums, of values above the forecast and below it
    "drift": Column((2,)),
    #: samples in a row like the one before, the longest such run that has ended, their share, whether it was told
    "still": Column((4,)),
}
_LAST, _TAIL, _SLOPE, _EXCESSES, _CALM = range(5)
#: Of the quantiles of `size` and, last, that of `drift`, each a row.
_STARTS = np.append(STARTS, DRIFT_START)[:, None]
_CHANCES = np.append(TAILS, TAILS[-1])[:, None]
_STEPS = np.append(np.full(len(TAILS), STEP), DRIFT_STEP)[:, None]
_LOW, _HIGH = SLOPE_MIN - SLOPE_START, SLOPE_MAX - SLOPE_START
_LOG_TAILS = np.log(TAILS)
_SLOPES = np.diff(_LOG_TAILS, prepend=0.0)
_BEND = SHAPE / (1.0 - SHAPE)
_SIDES = np.array([1.0, -1.0])
_TINY = 1e-300
# the same as plain numbers, for one row
_LEVELS, _SHARES = LEVELS.tolist(), SHARES.tolist()
_TAIL_STARTS, _TAIL_WEIGHTS = TAIL_STARTS.tolist(), TAIL_WEIGHTS.tolist()
_LAST_START, _LAST_STEP = _STARTS[-2:, 0].tolist(), _STEPS[-2:, 0].tolist()
_LOG_LAST, _TAIL_LAST = float(_LOG_TAILS[-1]), float(TAILS[-1])
_SIZE_CHANCES, _SIZE_STARTS = TAILS.tolist(), STARTS.tolist()
_SIZE_SLOPES: list[float] = _SLOPES.tolist()
_FLAT_RATE = 1.0 / FLAT_MEMORY


class Rule(NamedTuple):
    """What to raise the flag for.

    `rate` is the share of samples that may be flagged. `direction` is +1 for values above the forecast, -1 for those
    below, 0 for both. A sample nearer to its forecast than `deviation`, in units of the value, or than `share` of the
    forecast is no spike.
    """

    rate: float = 1e-3
    direction: int = 0
    deviation: float = 0.0
    share: float = 0.0


class Verdict(NamedTuple):
    """Of n samples, all of shape (n,): the chance `p` of one as unusual, float64, in [0, 1], NaN where there was
    nothing to judge by; and `kind`, int8, what the flag is raised for, 0 where it is not.
    """

    p: Array
    kind: Array


def update(state: Mapping[str, Array], x: Array, error: Array, sigma: Array, rule: Rule) -> Verdict:
    """Judge the samples `x` and learn from them, before `channels.update` sees them. All of shape (n,), float64.

    `error` is y_pred - y; `sigma` is the usual size of it: 0 where there has never been any, NaN where no forecast was
    due or none has ever been scored.
    """
    due = ~np.isnan(sigma)
    rise = np.where(due, -error, 0.0)
    size = np.abs(rise)
    z = np.copysign(size / np.maximum(np.maximum(np.where(due, sigma, 1.0), size / Z_MAX), _TINY), rise)
    measures = np.stack([_size(z, rule.direction), _drift(state, z, due, rule.direction)], axis=1)
    levels = np.log(np.maximum(measures, _TINY))
    log_p, tops = _below(state, measures, levels, due)
    _beyond(state, measures / tops - 1.0, due, log_p)
    unusual = (log_p < np.log(rule.rate * LEVELS)) & due[:, None]
    _steer(state, unusual, due, rule.rate)
    state["drift"][unusual[:, 1]] = 0.0
    still = _still(state, x)
    log_p[:, 1] -= log(LEVELS[1])
    p = np.exp(np.where(unusual[:, 1], log_p.min(1), log_p[:, 0]))
    least = np.maximum(rule.deviation, rule.share * np.abs(x - rise))
    kind = np.zeros(len(x), np.int8)
    kind[unusual[:, 0] & (size >= least)] = SPIKE
    kind[unusual[:, 1]] = SHIFT
    flat = still < 1.0
    kind[flat] = FLAT
    p[~due] = np.nan
    return Verdict(np.where(flat, np.fmin(p, still), p), kind)


def _size(z: Array, direction: int) -> Array:
    return np.maximum(direction * z, 0.0) if direction else np.abs(z)


def _drift(state: Mapping[str, Array], z: Array, due: Array, direction: int) -> Array:
    sums = state["drift"]
    step = np.minimum(np.maximum(z, -DRIFT_MAX), DRIFT_MAX)[:, None] * _SIDES
    step -= ALLOWANCE
    step[~due] = 0.0
    sums += step
    np.maximum(sums, 0.0, out=sums)
    drift: Array = sums[:, 0 if direction > 0 else 1] if direction else np.maximum(sums[:, 0], sums[:, 1])
    return drift


def _below(state: Mapping[str, Array], measures: Array, levels: Array, due: Array) -> tuple[Array, Array]:
    """ln p of the measures as far as their quantiles reach, and the last quantiles, both of shape (n, 2); they learn.

    `levels` are the logarithms of the measures. That of `drift` is 0 up to its last quantile: it is no alarm.
    """
    body, last = state["size_body"], state["unusual"][:, :, _LAST]
    # the few quantiles first, so that each is a row in memory; at the end that of `drift`
    logs = np.empty((len(TAILS) + 1, len(due)))
    few = body.shape[1]
    logs[:few], logs[few:] = body.T, last.T
    logs += _STARTS
    quantiles = np.exp(logs)
    of_size = quantiles[:-1]
    for before, after in pairwise(of_size):
        np.maximum(before, after, out=after)
    width = of_size.copy()
    width[1:] -= of_size[:-1]
    share = measures[:, 0] - of_size
    share /= np.maximum(width, _TINY, out=width)
    share += 1.0
    np.minimum(np.maximum(share, 0.0, out=share), 1.0, out=share)
    share *= _SLOPES[:, None]
    log_p = np.zeros(measures.shape)
    share.sum(0, out=log_p[:, 0])
    above = np.empty(logs.shape, np.bool_)
    np.greater(levels[:, 0], logs[:-1], out=above[:-1])
    np.greater(levels[:, 1], logs[-1], out=above[-1])
    learnt = (above - _CHANCES) * _STEPS
    learnt[:, ~due] = 0.0
    logs += learnt
    np.minimum(np.maximum(logs, -BOUND, out=logs), BOUND, out=logs)
    logs -= _STARTS
    body[...], last[...] = logs[:few].T, logs[few:].T
    return log_p, quantiles[-2:].T


def _beyond(state: Mapping[str, Array], excess: Array, due: Array, log_p: Array) -> None:
    """Take from ln p, shape (n, 2), what lies beyond the last quantile, which few samples do, and learn how far that
    is.

    `excess`, shape (n, 2), is x where it is above 0.
    """
    row, which = np.nonzero((excess > 0.0) & due[:, None])
    if not len(row):
        return
    x, known = excess[row, which], state["unusual"]
    mean = known[row, which, _TAIL] + TAIL_STARTS[which]
    slope = np.exp(known[row, which, _SLOPE] + SLOPE_START)
    log_p[row, which] += _LOG_LAST * which - np.log1p(_BEND * x / mean) * slope / SHAPE
    known[row, which, _EXCESSES] += 1.0
    weight = np.maximum(TAIL_RATE, 1.0 / (TAIL_WEIGHTS[which] + known[row, which, _EXCESSES]))
    mean += weight * (np.minimum(x, EXCESS) - mean)
    known[row, which, _TAIL] = np.maximum(mean, TAIL_MIN) - TAIL_STARTS[which]


def _steer(state: Mapping[str, Array], unusual: Array, due: Array, alarm_rate: float) -> None:
    slope, calm = state["unusual"][:, :, _SLOPE], state["unusual"][:, :, _CALM]
    slope += np.where(due[:, None], GAIN * alarm_rate * SHARES, 0.0)
    np.minimum(slope, _HIGH, out=slope)
    if unusual.any():
        slope[unusual] = np.maximum(slope[unusual] - GAIN * np.where(calm[unusual] >= CALM, 1.0, AGAIN), _LOW)
    calm += due[:, None]
    calm[unusual] = 0.0


def _still(state: Mapping[str, Array], x: Array) -> Array:
    """Where a line has become flat with this sample, the chance of that; 1 elsewhere. Shape (n,)."""
    count, (run, longest, share, told) = state["count"], state["still"].T
    same = (x == state["last"]) & (count > 0)
    np.maximum(longest, np.where(same, 0.0, run), out=longest)
    run += 1.0
    run *= same
    told *= same
    share += np.maximum(1.0 / FLAT_MEMORY, 1.0 / (count + 1.0)) * (same - share)
    flat = (run >= FLAT_MIN) & (run >= FLAT_FACTOR * (longest + 1.0)) & (told == 0.0)
    if not flat.any():
        return np.ones(len(x))
    seen = np.minimum(count, FLAT_MEMORY)
    chance = ((share * seen + 1.0) / (seen + 2.0)) ** run
    flat &= chance < FLAT_CHANCE
    told[flat] = 1.0
    return np.where(flat, chance, 1.0)


def judge(row: Row, x: float, error: float, sigma: float, rule: Rule) -> tuple[float, int]:
    """`update` for one row, in plain floats: p and the kind. What is to be learnt is left to `row.late`."""
    flat = _still_one(row, x)
    if isnan(sigma):
        return (nan, 0) if flat == 1.0 else (flat, FLAT)
    rise = -error
    least = max(abs(rise) / Z_MAX, _TINY)
    z = rise / (sigma if sigma > least else least)
    step = z if -DRIFT_MAX < z < DRIFT_MAX else copysign(DRIFT_MAX, z)
    up, down = row.drift
    up, down = up + step - ALLOWANCE, down - step - ALLOWANCE
    up, down = up if up > 0.0 else 0.0, down if down > 0.0 else 0.0
    direction = rule.direction
    size, drift = (max(direction * z, 0.0), up if direction > 0 else down) if direction else (abs(z), max(up, down))
    of_size, of_drift = row.memo.get("quantiles") or _quantiles(row)
    excess, drift_excess = size / of_size[-1] - 1.0, drift / of_drift - 1.0
    log_p, log_drift = _below_one(of_size, size), 0.0
    if excess > 0.0:
        log_p += _beyond_one(row, 0, excess)
    if drift_excess > 0.0:
        log_drift = _beyond_one(row, 1, drift_excess)
    spike, shift = (log_p < log(rule.rate * _LEVELS[0])), (log_drift < log(rule.rate * _LEVELS[1]))
    row.drift = [0.0, 0.0] if shift else [up, down]
    row.late.append(partial(_learn_one, row, (size, drift), (excess, drift_excess), (spike, shift), rule.rate))
    p = min(exp(min(log_p, log_drift - log(_LEVELS[1])) if shift else log_p), flat)
    kind = SPIKE if spike and abs(rise) >= max(rule.deviation, rule.share * abs(x - rise)) else 0
    return p, FLAT if flat < 1.0 else SHIFT if shift else kind


def _quantiles(row: Row) -> tuple[list[float], float]:
    """Those of `size`, in order, and that of `drift`."""
    logs = [*row.size_body, row.unusual[_LAST]]
    of_size = [exp(at + start) for at, start in zip(logs, _SIZE_STARTS, strict=True)]
    return list(accumulate(of_size, max)), exp(row.unusual[_LAST + 5] + DRIFT_START)


def _below_one(quantiles: list[float], size: float) -> float:
    """`_below` for `size`: ln p."""
    log_p = below = 0.0
    for quantile, slope in zip(quantiles, _SIZE_SLOPES, strict=True):
        if size < quantile:
            return log_p + slope * (size - below) / (quantile - below)
        log_p += slope
        below = quantile
    return log_p


def _beyond_one(row: Row, which: int, excess: float) -> float:
    """`_beyond` for one measure with an excess: ln p."""
    tail, slope = row.unusual[5 * which + _TAIL], row.unusual[5 * which + _SLOPE]
    far = log1p(_BEND * excess / (tail + _TAIL_STARTS[which]))
    beyond: float = _LOG_LAST * which - far * exp(slope + SLOPE_START) / SHAPE
    return beyond


def _learn_one(
    row: Row, measures: tuple[float, float], excesses: tuple[float, float], alarms: tuple[bool, bool], rate: float
) -> None:
    """What `_below`, `_beyond` and `_steer` learn, for one row."""
    level = log(max(measures[0], _TINY))
    row.size_body = [
        _moved(at, start, STEP * ((level > at + start) - tail))
        for at, start, tail in zip(row.size_body, _SIZE_STARTS[:-1], _SIZE_CHANCES[:-1], strict=True)
    ]
    known = row.unusual[:5], row.unusual[5:]
    for which, (of, measure, excess, alarm) in enumerate(zip(known, measures, excesses, alarms, strict=True)):
        start = _LAST_START[which]
        above = log(max(measure, _TINY)) > of[_LAST] + start
        of[_LAST] = _moved(of[_LAST], start, _LAST_STEP[which] * (above - _TAIL_LAST))
        if excess > 0.0:
            of[_EXCESSES] += 1.0
            mean = of[_TAIL] + _TAIL_STARTS[which]
            mean += max(TAIL_RATE, 1.0 / (_TAIL_WEIGHTS[which] + of[_EXCESSES])) * (min(excess, EXCESS) - mean)
            of[_TAIL] = max(mean, TAIL_MIN) - _TAIL_STARTS[which]
        of[_SLOPE] = min(of[_SLOPE] + GAIN * rate * _SHARES[which], _HIGH)
        if alarm:
            of[_SLOPE] = max(of[_SLOPE] - GAIN * (1.0 if of[_CALM] >= CALM else AGAIN), _LOW)
        of[_CALM] = 0.0 if alarm else of[_CALM] + 1.0
    row.unusual = known[0] + known[1]
    row.memo["quantiles"] = _quantiles(row)


def _moved(at: float, start: float, step: float) -> float:
    return min(max(at + start + step, -BOUND), BOUND) - start


def _still_one(row: Row, x: float) -> float:
    """`_still` for one row."""
    count = row.count
    run, longest, share, told = row.still
    plain = 1.0 / (count + 1.0)
    rate = plain if plain > _FLAT_RATE else _FLAT_RATE
    if count == 0 or x != row.last:
        row.still = [0.0, run if run > longest else longest, share - rate * share, 0.0]
        return 1.0
    run += 1.0
    share += rate * (1.0 - share)
    chance = 1.0
    if run >= FLAT_MIN and run >= FLAT_FACTOR * (longest + 1.0) and told == 0.0:
        seen = min(float(count), FLAT_MEMORY)
        likely = float(((share * seen + 1.0) / (seen + 2.0)) ** run)
        if likely < FLAT_CHANCE:
            chance, told = likely, 1.0
    row.still = [run, longest, share, told]
    return chance
