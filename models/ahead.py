"""What the way ahead is learned from, and judged by: paths out of whole recordings, with what linear prediction said of
each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import channels
from .path import Way, cues, linear
from .table import Table
from .weights import Floats, Weights

Array = NDArray[np.float64]

#: Every so many samples a path starts: neighbours tell little that is new.
STRIDE = 6
#: In s. A jump after a still start can be thousands.
GOAL_MAX = 100.0
#: In s. Errors are measured in what the series moves in so many steps, but in no less than this.
UNIT_MIN = 0.5
#: Steps ahead whose scores are told.
TOLD = (2, 6, 12, 24)


class Examples(NamedTuple):
    """M paths of 1 + K steps: `rows`, `ends`, `z`, `target` and `unit` as `rnn.Paths` has them, `q` (M, K), float64."""

    rows: Floats
    ends: NDArray[np.int64]
    z: Floats
    target: Floats
    unit: Floats
    q: Array


def examples(values: Array, steps: int, window: int, stride: int = STRIDE) -> Examples:
    """Paths of so many steps out of `values`, shape (T, n), float64, finite, T > window + steps."""
    length, n = values.shape
    table = Table(channels.COLUMNS, max(n, 1))
    state = table.take(table.append(n))
    seen, ends, z, q, target = np.empty((length, n, 4), np.float32), [], [], [], []
    for t in range(length):
        moment = channels.update(state, values[t])
        seen[t] = moment.channels
        if t < window - 1 or t + steps >= length or (t - window + 1) % stride:
            continue
        cue, raw = cues(state, moment, linear(state, steps))
        ends.append(np.arange(n) * length + t)
        z.append(cue.transpose(2, 0, 1))
        q.append(raw.T)
        target.append(np.clip((values[t + 1 : t + 1 + steps] - values[t]) / moment.s, -GOAL_MAX, GOAL_MAX).T)
    goal = np.stack(target).astype(np.float32)  # (paths, n, steps)
    unit = np.broadcast_to(np.maximum(np.sqrt(np.square(goal).mean(0)), UNIT_MIN), goal.shape)
    return Examples(
        np.ascontiguousarray(seen.swapaxes(0, 1)).reshape(-1, 4),
        np.concatenate(ends).astype(np.int64),
        np.concatenate(z),
        goal.reshape(-1, steps),
        np.ascontiguousarray(unit).reshape(-1, steps),
        np.concatenate(q),
    )


def scores(weights: Weights, held_out: Sequence[Array]) -> dict[str, float]:
    """Median skill over recordings of one length some steps ahead, of the model and of linear prediction fed back."""
    decoder = weights.decoder
    assert decoder is not None
    found = examples(np.stack(held_out, 1), decoder.steps, weights.window)
    windows = found.rows[found.ends[:, None] + np.arange(1 - weights.window, 1)]
    f = Way(weights).forward(windows, found.z.transpose(1, 2, 0), found.q.T)
    shape = (-1, len(held_out), decoder.steps)
    late = slice(int(0.3 * len(found.ends) / len(held_out)), None)
    target = found.target.reshape(shape)[late].astype(np.float64)
    naive = np.sqrt(np.square(target).mean(0))
    told: dict[str, float] = {}
    for name, made, first in (("", f, 0), ("linear_", found.q, 1)):
        error = made.reshape(-1, len(held_out), decoder.steps - first)[late] - target[:, :, first:]
        skill = 1.0 - np.sqrt(np.square(error).mean(0)) / np.where(naive, naive, 1.0)[:, first:]
        told |= {
            f"{name}median_skill_{k}": float(np.median(skill[:, k - 1 - first])) for k in TOLD if k <= decoder.steps
        }
    return told
