"""Models that forecast in the shadow: on live samples, beside the one in service, and nobody is told what they say.

They see a bounded number of series, evenly spread over all rows, and keep those windows for themselves; so what is
published cannot depend on them. `take` is quick and can be called for every round; the work is done in `losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .channels import NAMES
from .kernel import Kernel
from .lessons import Lesson
from .table import Array
from .weights import VALUE, Weights

#: Series that are watched, at most.
ROWS = 64


class Settled(NamedTuple):
    """Samples that came after windows that were kept: the windows, shape (n, window, C), the values they ended with and
    the units then, and by how many units the values moved on; shape (n,)."""

    windows: Array
    x: Array
    s: Array
    moved: Array


class Shadow:
    """Windows of every `stride`-th row, at place row // stride. The stride doubles when there are too many."""

    def __init__(self, like: Weights) -> None:
        self.window = like.window
        self._raw = like.channels == VALUE
        self._picked = None if self._raw or like.channels == NAMES else [NAMES.index(c) for c in like.channels]
        self._stride = 1
        self._windows = np.zeros((ROWS, like.window, len(like.channels)), np.float32)
        self._x, self._s = np.zeros(ROWS), np.ones(ROWS)
        self._fresh, self._seen = np.zeros(ROWS, np.int64), np.zeros(ROWS, np.int64)
        #: whether the newest sample was a real one, so that the next is worth a comparison
        self._real = np.zeros(ROWS, np.bool_)
        self._settled: list[Settled] = []

    def take(self, lesson: Lesson) -> None:
        """Keep a round."""
        if len(lesson.row) == 1:
            return self._take_one(lesson)
        while int(lesson.row.max()) >= ROWS * self._stride:
            self._widen()
        chosen = lesson.row % self._stride == 0
        if not chosen.any():
            return None
        place, fresh = lesson.row[chosen] // self._stride, lesson.fresh[chosen]
        x, s, channels = lesson.x[chosen], lesson.s[chosen], lesson.channels[chosen]
        goes_on = (fresh == self._fresh[place] + 1) & (fresh > 1)
        if lesson.real:
            # s is exactly 1 only where nothing has moved yet, and any model's forecast is then the value itself
            usable = self._real[place] & (self._seen[place] >= self.window) & (self._s[place] != 1.0)
            self._settle(place, x, goes_on & usable)
        window = self._windows[place]
        window[:, :-1] = window[:, 1:]
        window[:, -1] = self._inputs(x, channels)
        self._windows[place] = window
        self._x[place], self._s[place], self._fresh[place], self._real[place] = x, s, fresh, lesson.real
        self._seen[place] = np.where(goes_on, self._seen[place] + 1, 1)
        return None

    def _take_one(self, lesson: Lesson) -> None:
        """`take` for one sample: the same, without arrays of one element."""
        row, fresh, x, s = lesson.row.item(), lesson.fresh.item(), lesson.x.item(), lesson.s.item()
        while row >= ROWS * self._stride:
            self._widen()
        place, apart = divmod(row, self._stride)
        if apart:
            return
        before, unit, seen = self._x.item(place), self._s.item(place), self._seen.item(place)
        goes_on = fresh > 1 and fresh == self._fresh.item(place) + 1
        window = self._windows[place]
        if lesson.real and goes_on and self._real[place] and seen >= self.window and unit != 1.0:
            kept = (np.array([value]) for value in (before, unit, (x - before) / unit))
            self._settled.append(Settled(window[None].copy(), *kept))
        window[:-1] = window[1:]
        window[-1] = self._inputs(lesson.x, lesson.channels)[0]
        self._x[place], self._s[place], self._fresh[place], self._real[place] = x, s, fresh, lesson.real
        self._seen[place] = seen + 1 if goes_on else 1

    @property
    def waiting(self) -> int:
        """Rounds that `losses` would tell of: it costs hardly more for ten than for one."""
        return len(self._settled)

    def settled(self) -> list[Settled]:
        """What can be compared since the last call, a round each."""
        settled, self._settled = self._settled, []
        return settled

    def losses(self, kernels: Sequence[Kernel]) -> list[Array]:
        """Of each round since the last call in which something could be compared, the absolute errors in units of the
        series, shape (models, n)."""
        settled = self.settled()
        if not settled:
            return []
        windows, x, s, moved = (np.concatenate(column) for column in zip(*settled, strict=True))
        errors = np.stack([np.abs(_moves(kernel, windows, x, s) - moved) for kernel in kernels])
        ends = np.cumsum([len(one.moved) for one in settled])
        return np.split(errors, ends[:-1], axis=1)

    def _settle(self, place: Array, x: Array, due: Array) -> None:
        at = place[due]
        if len(at):
            before, s = self._x[at], self._s[at]
            self._settled.append(Settled(self._windows[at], before, s, (x[due] - before) / s))

    def _inputs(self, x: Array, channels: Array) -> Array:
        if self._raw:
            return x[:, None]
        return channels if self._picked is None else channels[:, self._picked]

    def _widen(self) -> None:
        """Watch every other one only of the rows there are, and as many further ones."""
        self._stride *= 2
        for array in (self._windows, self._x, self._s, self._fresh, self._seen, self._real):
            array[: ROWS // 2] = array[::2]
        self._seen[ROWS // 2 :] = self._fresh[ROWS // 2 :] = 0


def _moves(kernel: Kernel, windows: Array, x: Array, s: Array) -> Array:
    """By how many units the model says that the value will move, shape (n,)."""
    f = kernel.forward(windows).astype(np.float64)
    return f if kernel.weights.output == "residual" else (f - x) / s
