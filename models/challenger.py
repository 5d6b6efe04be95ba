"""A challenger of the shared model: the same weights, tuned a little on what many series have taught lately.

It serves nobody by that: whether it is better shows on live data, in the champion's shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .kernel import Kernel
from .lessons import Lessons
from .table import Array
from .weights import Weights

if TYPE_CHECKING:
    from .tuning import Tuner

#: Passes of a fine-tune, each over windows drawn anew; of so many series at most.
PASSES = 16
SERIES = 256
#: The newest windows of each series it is drawn from, and of those the ones it is judged by instead.
NEWEST = 1024
HELD = 32


class Challenge(NamedTuple):
    """A challenger, the mean absolute error on held-out windows of the champion and of it, in units of s, and how many
    series and windows it learnt from."""

    weights: Weights
    before: float
    after: float
    series: int
    windows: int


def challenge(tuner: Tuner, champion: Weights, lessons: Lessons, seed: int) -> Challenge | None:
    """A challenger of `champion`; None where too little has been taught, or where what came out is not finite or no
    better on the windows it has not seen. The same arguments give the same bytes."""
    from .tuning import WINDOWS

    random = np.random.default_rng(seed)
    rows = lessons.rows
    rows = rows[random.permutation(len(rows))[:SERIES]]
    known = [windows for row in rows.tolist() if len((windows := lessons.windows(row, NEWEST)).targets) > 2 * HELD]
    if not known:
        return None
    inputs, targets = (np.concatenate([windows[k][:-HELD] for windows in known]) for k in range(2))
    held_inputs, held_targets = (np.concatenate([windows[k][-HELD:] for windows in known]) for k in range(2))
    if len(targets) < WINDOWS:
        return None
    tuned = champion
    for _ in range(PASSES):
        drawn = random.choice(len(targets), WINDOWS, replace=False)
        (tuned,) = tuner.tune([tuned], inputs[drawn][None], targets[drawn][None])
    before, after = (_loss(weights, held_inputs, held_targets) for weights in (champion, tuned))
    if not (np.isfinite(after) and after < before):
        return None
    return Challenge(tuned, before, after, len(known), len(targets))


def _loss(weights: Weights, inputs: Array, targets: Array) -> float:
    return float(np.abs(Kernel(weights).forward(inputs) - targets).mean())
