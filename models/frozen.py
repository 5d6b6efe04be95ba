"""A table as it was at one moment, copied in pieces while the table goes on.

A row is copied before it is written to, the others when there is time: nobody waits for a copy of all of them, which
of twenty thousand rows takes a fifth of a second."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Rows = slice | NDArray[np.intp]

#: Rows that `advance` copies at a time, about half a millisecond's worth.
PIECE = 64


class Frozen:
    """The first `length` rows of `source`: whoever writes to some of them calls `keep` before."""

    def __init__(self, source: Mapping[str, Array], length: int) -> None:
        self._source = source
        #: the columns; those rows are as they were that have been copied, which are all once it is `whole`
        self.columns = {name: room((length, *array.shape[1:]), array.dtype) for name, array in source.items()}
        self._missing = np.ones(length, np.bool_)
        self._next, self._left = 0, length

    @property
    def whole(self) -> bool:
        """Whether all rows have been copied."""
        return not self._left

    def keep(self, rows: Rows) -> None:
        """Copy these rows, but for those that have been. Rows the table did not have at that moment are none of it."""
        if not isinstance(rows, slice):
            rows = rows[rows < len(self._missing)]
        missing = self._missing[rows]
        count = int(np.count_nonzero(missing))
        if not count:
            return
        if isinstance(rows, slice) and count < len(missing):
            rows = rows.start + np.flatnonzero(missing)
        elif not isinstance(rows, slice):
            rows = rows[missing]
        for name, column in self.columns.items():
            column[rows] = self._source[name][: len(self._missing)][rows]
        self._missing[rows] = False
        self._left -= count

    def advance(self) -> None:
        """Copy the next piece."""
        self.keep(slice(self._next, self._next + PIECE))
        self._next += PIECE


def room(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array of which only those pages take memory that have been written to."""
    size = int(np.prod(shape)) * dtype.itemsize
    if size < mmap.PAGESIZE:
        return np.empty(shape, dtype)
    # NumPy asks for huge pages, of which a row more would take two megabytes a column, and half a millisecond.
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)
