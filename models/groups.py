"""The shared models: one for all series, and others for groups of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .kernel import Kernel, OpenWindows
from .lessons import Lesson
from .table import Array
from .weights import Weights

#: Up to so many rows a step the open windows are faster than a full pass.
FEW = 4


class Shared(NamedTuple):
    """A model that serves many rows."""

    weights: Weights
    kernel: Kernel
    open: OpenWindows


class Groups:
    """Which model forecasts which row: model 0, unless the row was assigned to another group. All are of one shape
    but for their units. The engine alone changes them, between two steps."""

    def __init__(self, weights: Weights) -> None:
        self.models: list[Shared] = []
        self.use(weights)
        #: by row: its group, and how many rows of that group came before it
        self._of, self._rank = np.zeros(0, np.intp), np.zeros(0, np.intp)
        self._sizes: dict[int, int] = {}

    def use(self, weights: Weights, group: int = 0) -> None:
        """Have these weights forecast the rows of `group` from now on; a new group is the next number."""
        kernel = Kernel(weights)
        self.models[group : group + 1] = [Shared(weights, kernel, OpenWindows(kernel))]

    def assign(self, row: int, group: int) -> None:
        """Put a row, the next one after those assigned so far, into `group`."""
        if row >= len(self._of):
            more = np.zeros(max(16, len(self._of), row + 1 - len(self._of)), np.intp)
            self._of, self._rank = np.concatenate([self._of, more]), np.concatenate([self._rank, more])
        self._of[row], self._rank[row] = group, self._sizes.get(group, 0)
        self._sizes[group] = self._sizes.get(group, 0) + 1

    def of(self, rows: Array) -> Array:
        """The group of each row, shape (n,)."""
        return self._of[rows]

    def only(self, lesson: Lesson, group: int) -> Lesson | None:
        """What of a lesson is about the rows of `group`, numbered within it; None where nothing is."""
        here = self._of[lesson.row] == group
        if not here.any():
            return None
        x, s, channels, fresh = (column[here] for column in lesson[1:5])
        return Lesson(self._rank[lesson.row[here]], x, s, channels, fresh, lesson.real)

    def windows_of(self, row: int) -> OpenWindows:
        """The open windows of the model that forecasts `row`."""
        if len(self.models) == 1:
            return self.models[0].open
        return self.models[self._of.item(row)].open

    def forward(self, rows: Array, count: Array, windows: Array) -> Array:
        """f of each row, shape (n,), float64, by open windows where they are few. `count`, shape (n,), is the number of
        the sample, `windows`, shape (n, window, C), end with it."""
        if len(windows) <= FEW:
            places = zip(rows.tolist(), count.tolist(), windows, strict=True)
            return np.array([self.windows_of(row).forecast(row, number, window) for row, number, window in places])
        return self.through(rows, windows)

    def through(self, rows: Array, windows: Array) -> Array:
        """f of each row, shape (n,), float64, whatever was open."""
        if len(self.models) == 1:
            return self.models[0].kernel.forward(windows).astype(np.float64)
        group, f = self.of(rows), np.empty(len(rows))
        for number in np.unique(group).tolist():
            here = group == number
            f[here] = self.models[number].kernel.forward(windows[here])
        return f
