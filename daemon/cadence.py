"""The step of a series: the seconds between its samples, estimated so that neither gaps nor jitter sway it.

The step is tracked as a running median of the logarithm of the differences of time, the spread as a mean of their distance from it. Where the
spread is small the series is regular, and a longer difference is a gap of a whole number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..models.table import Array, Column

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
    "log_step": Column(initial=np.nan),
    "spread": Column(initial=1.0),
    "steps": Column(dtype=np.int64),
}


def missed(state: Mapping[str, Array], time: Array) -> Array:
    """Whole steps missed before samples at `time`, shape (n,), int64; 0 where the series is not regular or has told no times."""
    with np.errstate(invalid="ignore", over="ignore"):
        steps = np.rint((time - state["time"]) / np.exp(state["log_step"]))
    known = state["timed"] & (state["steps"] >= 8) & (state["spread"] < REGULAR) & (steps > 1.0)
    return np.where(known, np.minimum(steps - 1.0, 2.0**31), 0.0).astype(np.int64)


def update(state: Mapping[str, Array], time: Array, timed: Array) -> None:
    """Take in the times of samples, shape (n,), later than those before; `timed` says whether the producer gave them."""
    difference = time - state["time"]
    usable = difference > 0.0
    log = np.log(difference, out=np.zeros_like(difference), where=usable)
    step, count = state["log_step"], state["steps"]
    first = usable & np.isnan(step)
    step[first] = log[first]
    offset = np.where(usable, log - step, 0.0)
    # a step found early may be wrong by any factor: move towards it fast at first, then only a little a sample
    reach = np.maximum(MOVE, MOVE_FIRST / np.maximum(count, 1))
    step += np.minimum(np.maximum(offset, -reach), reach)
    state["spread"] += np.where(usable, np.maximum(SPREAD_RATE, 1.0 / (count + 1.0)), 0.0) * (
        np.minimum(np.abs(offset), SPREAD_MAX) - state["spread"]
    )
    count += usable
    state["time"][...] = time
    state["timed"][...] = timed


def step(state: Mapping[str, Array]) -> Array:
    """Seconds between samples, shape (n,); NaN before the second sample."""
    return np.exp(state["log_step"])
