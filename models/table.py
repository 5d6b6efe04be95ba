"""The state of all series: one row a series, one NumPy array a column.

The pipeline alone mutates a table, between two steps; whoever else wants a number copies it. A second writer would
tear rows apart, since a step holds views of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = slice | NDArray[np.intp]


#: Slices whose views are kept, about 10 KB each.
VIEWS_MAX = 1024


class Column(NamedTuple):
    """What a row holds under one name: an array of `shape` (scalar if empty), filled with `initial` in a new row."""

    shape: tuple[int, ...] = ()
    initial: float = 0.0
    dtype: Any = np.float64


class Table:
    """Rows that only grow in number; capacity doubles, so a million rows cost twenty copies."""

    def __init__(self, columns: Mapping[str, Column], capacity: int = 16) -> None:
        self.columns = dict(columns)
        self.capacity = capacity
        self.length = 0
        self.arrays: dict[str, Array] = {name: _filled(column, capacity) for name, column in self.columns.items()}
        self._views: dict[tuple[int, int], dict[str, Array]] = {}

    def __getitem__(self, name: str) -> Array:
        """The column `name` of the rows in use, shape (length, ...): a view."""
        return self.arrays[name][: self.length]

    def append(self, count: int = 1) -> slice:
        """Add `count` new rows and say which they are."""
        start, self.length = self.length, self.length + count
        while self.capacity < self.length:
            self._views.clear()
            for name, column in self.columns.items():
                self.arrays[name] = np.concatenate([self.arrays[name], _filled(column, self.capacity)])
            self.capacity *= 2
        self.reset(slice(start, self.length))
        return slice(start, self.length)

    def reset(self, rows: Rows) -> None:
        """Make `rows` as new."""
        for name, column in self.columns.items():
            self.arrays[name][rows] = column.initial

    def take(self, rows: Rows) -> dict[str, Array]:
        """The columns of `rows`: views for a slice, copies for an index array (give those back with `put`)."""
        if not isinstance(rows, slice):
            return {name: array[rows] for name, array in self.arrays.items()}
        # making the views of one row costs as much as a good part of a step
        views = self._views.get((rows.start, rows.stop))
        if views is None:
            if len(self._views) >= VIEWS_MAX:
                self._views.clear()
            views = {name: array[rows] for name, array in self.arrays.items()}
            self._views[rows.start, rows.stop] = views
        return views

    def put(self, rows: Rows, taken: Mapping[str, Array]) -> None:
        """Store what `take(rows)` gave and the step has changed. Nothing to do for a slice: those were views."""
        if not isinstance(rows, slice):
            for name, array in taken.items():
                self.arrays[name][rows] = array


def _filled(column: Column, rows: int) -> Array:
    return np.full((rows, *column.shape), column.initial, column.dtype)
