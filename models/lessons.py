"""What a round of samples teaches: the pipeline makes a `Lesson` of each, for whoever learns or judges by it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .table import Array


class Lesson(NamedTuple):
    """One round: a sample each of n series.

    `row` (n,) says which series; `x` and `s` (n,), float64, and `channels` (n, C), float32, are as in
    `channels.Moment`. `fresh` (n,), int64, counts the samples since the window began anew, this one included. `real`
    is False where `x` is a forecast that stands in for a sample that never came: a window may hold it, but it is no
    target."""

    row: NDArray[np.intp]
    x: Array
    s: Array
    channels: Array
    fresh: NDArray[np.int64]
    real: bool
