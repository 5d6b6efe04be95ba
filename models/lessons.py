"""What series have taught lately: for each, a ring of its newest samples, out of which windows and targets are cut.

The engine's pipeline makes a `Lesson` of each round; the trainer (and `backtest`) keeps them here."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .table import Array, Column, Table
from .weights import CHANNELS

#: Samples kept of a series, 37 bytes each.
LENGTH = 2200
#: A target further away than this, in units of s, counts as that far: one spike must not decide a fit.
FAR = 50.0


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

    def of(self, chosen: NDArray[np.bool_]) -> Lesson:
        """The lesson of some of its series."""
        row, x, s, channels, fresh, real = self
        return Lesson(row[chosen], x[chosen], s[chosen], channels[chosen], fresh[chosen], real)


class Windows(NamedTuple):
    """Windows of one series, shape (n, window, C), float32, and the targets, (n,), float32, in units of s; oldest
    first."""

    inputs: Array
    targets: Array


class Lessons:
    """The rings of up to `capacity` series. First come, first served: a newcomer gets the ring of a series that has
    fallen silent, or none."""

    def __init__(self, window: int, capacity: int) -> None:
        self.window = window
        self.capacity = capacity
        self._rings = Table(
            {
                "row": Column(initial=-1, dtype=np.intp),
                "count": Column(dtype=np.int64),
                "seen": Column(dtype=np.int64),
                "x": Column((LENGTH,)),
                "s": Column((LENGTH,)),
                "channels": Column((LENGTH, len(CHANNELS)), dtype=np.float32),
                "fresh": Column((LENGTH,), dtype=np.int32),
                "real": Column((LENGTH,), dtype=np.bool_),
            }
        )
        #: the ring of each row, -1 for none
        self._ring = np.full(16, -1, np.intp)
        #: rounds kept so far
        self.taken = 0

    def take(self, lesson: Lesson) -> None:
        """Keep a round."""
        if not len(lesson.row):
            return
        self.taken += 1
        rings, column = self._rings_of(lesson.row), self._rings.arrays
        held = rings >= 0
        if not held.all():
            rings, lesson = rings[held], lesson.of(held)
        at = rings, column["count"][rings] % LENGTH
        for name in ("x", "s", "channels", "fresh", "real"):
            column[name][at] = getattr(lesson, name)
        column["count"][rings] += 1
        column["seen"][rings] = self.taken

    def count(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """How many samples have ever come of each of `rows`, 0 for a series without a ring."""
        ring = self._ring[rows]
        return np.where(ring >= 0, self._rings.arrays["count"][ring], 0)

    @property
    def rows(self) -> NDArray[np.intp]:
        """The series that have a ring, by its age."""
        known: NDArray[np.intp] = self._rings["row"]
        return known

    def windows(self, row: int, newest: int) -> Windows:
        """The `newest` windows of a series whose targets have come, fewer where there are no more."""
        ring, column = self._ring[row], self._rings.arrays
        count = int(column["count"][ring])
        order = np.arange(max(0, count - min(LENGTH, newest + self.window)), count) % LENGTH
        x, s, fresh = (column[name][ring, order] for name in ("x", "s", "fresh"))
        last = self.window - 1
        if len(order) <= self.window:
            return Windows(np.empty((0, self.window, len(CHANNELS)), np.float32), np.empty(0, np.float32))
        whole = (fresh[last:-1] >= self.window) & (fresh[last + 1 :] == fresh[last:-1] + 1)
        # samples may never have come here
        whole &= fresh[last:-1] - fresh[: -last - 1] == last
        whole &= column["real"][ring, order][last + 1 :]
        cut = np.lib.stride_tricks.sliding_window_view(column["channels"][ring, order[:-1]], self.window, axis=0)
        targets = np.clip((x[last + 1 :] - x[last:-1]) / s[last:-1], -FAR, FAR)
        return Windows(np.ascontiguousarray(cut[whole].swapaxes(1, 2)), targets[whole].astype(np.float32))

    def _rings_of(self, row: NDArray[np.intp]) -> NDArray[np.intp]:
        top = int(row.max()) + 1
        if top > len(self._ring):
            self._ring = np.concatenate([self._ring, np.full(max(top, len(self._ring)), -1, np.intp)])
        rings = self._ring[row]
        for place in np.flatnonzero(rings < 0).tolist():
            ring = self._vacant()
            if ring < 0:
                break
            rings[place] = self._ring[row[place]] = ring
            self._rings.arrays["row"][ring] = row[place]
        return rings

    def _vacant(self) -> int:
        if self._rings.length < self.capacity:
            return int(self._rings.append().start)
        ring = int(self._rings["seen"].argmin())
        # as many rounds as all the others together may take to fill their rings, one sample a round
        if self.taken - self._rings.arrays["seen"][ring] < LENGTH * self.capacity:
            return -1
        self._ring[self._rings.arrays["row"][ring]] = -1
        self._rings.reset(slice(ring, ring + 1))
        self._rings.arrays["seen"][ring] = self.taken
        return ring
