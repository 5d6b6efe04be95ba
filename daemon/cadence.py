"""The step of a series: the seconds between its samples, estimated so that neither gaps nor jitter sway it.

The step is tracked as a running median of the logarithm of the differences of time, the spread as a mean of their
distance from it. Where the spread is small the series is regular, and a longer difference is a gap of a whole number
of steps."""

from __future__ import annotations

from collections.abc import Mapping
from math import copysign, exp, log, nan

import numpy as np

from ..models.table import Array, Column, Row

#: Factor by which one difference may move the step, at first and in the end.
MOVE_FIRST, MOVE = 0.5, 0.02
SPREAD_RATE = 0.05
#: A series is regular when its differences lie within this share of the step on average.
REGULAR = 0.2
#: A difference enters the spread as at most this much.
SPREAD_MAX = 1.0

COLUMNS = {
    "time": Column(initial=np.nan),
    "timed": Column(dtype=np.bool_),
    "log_step": Column(),
    "spread": Column(initial=1.0),
    "steps": Column(dtype=np.int64),
}


def missed(state: Mapping[str, Array], time: Array, timed: Array) -> Array:
    """Whole steps missed before samples at `time`, shape (n,), int64; 0 where `timed` says that the producer gave no
    time, now or before, and where the series is not regular."""
    regular = state["spread"] < REGULAR
    regular &= timed
    regular &= state["timed"]
    if not regular.any():
        return np.zeros(len(time), np.int64)
    regular &= state["steps"] >= 8
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.rint((time - state["time"]) / np.exp(state["log_step"])) - 1.0
    return np.where(regular & (steps > 0.0), np.minimum(steps, 2.0**31), 0.0).astype(np.int64)


def update(state: Mapping[str, Array], time: Array, timed: Array) -> None:
    """Take in the times of samples, shape (n,), later than those before; `timed` says whether the producer gave
    them."""
    step, count, spread = state["log_step"], state["steps"], state["spread"]
    # an unknown time before and a clock set back both count as no difference
    usable = time > state["time"]
    log = np.log(np.subtract(time, state["time"], out=np.ones(len(time)), where=usable))
    if int(count.min()) == 0:
        first = usable & (count == 0)
        step[first] = log[first]
    log -= step
    log *= usable
    # a step found early may be wrong by any factor: move towards it fast at first, then only a little a sample
    reach = np.maximum(MOVE_FIRST / (count + 1.0), MOVE)
    step += np.minimum(np.maximum(log, -reach), reach)
    np.abs(log, out=log)
    np.minimum(log, SPREAD_MAX, out=log)
    log -= spread
    log *= np.maximum(SPREAD_RATE, 1.0 / (count + 1.0)) * usable
    spread += log
    count += usable
    state["time"][...] = time
    state["timed"][...] = timed


def missed_one(row: Row, time: float, timed: bool) -> int:
    """`missed` for one row."""
    if not (timed and row.spread < REGULAR and row.steps >= 8 and row.timed):
        return 0
    steps: float = (time - row.time) / exp(row.log_step)
    return max(round(min(steps, 2.0**31)) - 1, 0)


def update_one(row: Row, time: float, timed: bool) -> float:
    """`update` and `step` for one row."""
    count = row.steps
    if time > row.time:
        log_difference = log(time - row.time)
        if count == 0:
            row.log_step = log_difference
        offset = log_difference - row.log_step
        plain, size = 1.0 / (count + 1), abs(offset)
        reach = max(MOVE_FIRST * plain, MOVE)
        row.log_step += offset if size < reach else copysign(reach, offset)
        rate = plain if plain > SPREAD_RATE else SPREAD_RATE
        row.spread += rate * ((size if size < SPREAD_MAX else SPREAD_MAX) - row.spread)
        row.steps = count + 1
    row.time, row.timed = time, timed
    return exp(row.log_step) if row.steps else nan


def step(state: Mapping[str, Array]) -> Array:
    """Seconds between samples, shape (n,); NaN before the second sample."""
    seconds = np.exp(state["log_step"])
    if not state["steps"].all():
        seconds[state["steps"] == 0] = np.nan
    return seconds
