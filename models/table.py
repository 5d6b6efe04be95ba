"""The state of all series: one row a series, one NumPy array a column.

The pipeline alone mutates a table, between two steps; whoever else wants a number copies it. A second writer would
tear rows apart, since a step holds views of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from .frozen import Frozen, room

Array = NDArray[Any]
Rows = slice | NDArray[np.intp]


#: Slices and rows whose views are kept, about 10 KB each.
VIEWS_MAX = 1024


#: A table of more rows than this has room for so many: the memory is taken row by row all the same, but to grow is to
#: copy all there is, which takes a tenth of a second for ten thousand rows.
SMALL, RESERVED = 16, 32_768


class Column(NamedTuple):
    """What a row holds under one name: an array of `shape` (scalar if empty), filled with `initial` in a new row.

    `plain`: whether a row that is lent has it as plain numbers; not where it is worked on as a whole."""

    shape: tuple[int, ...] = ()
    initial: float = 0.0
    dtype: Any = np.float64
    plain: bool = True


class Row:
    """One row of a table in plain Python numbers, for work on a single row: reaching into arrays would be most of it.

    Each column is an attribute: a number where a row holds one, a flat list where it holds several, and an array (a
    view of the table) where the column is not `plain`. Assign to them; the table has it after `store`.
    """

    # A table makes a class of its rows, with a slot for each column: a dictionary lies in more places of the memory,
    # and after a pause each of them costs.
    __slots__ = ("_lists", "_numbers", "late", "memo", "views", "writers")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self, views: Mapping[str, Array], columns: Mapping[str, Column]) -> None:
        self.views = views
        #: work that the forecast does not wait for, but the next sample and whoever reads the table do
        self.late: list[Callable[[], None]] = []
        #: what was worked out ahead from the numbers; forgotten when they come from the table again
        self.memo: dict[str, Any] = {}
        #: how many had asked for all the arrays when the numbers came from there; -1 where the row was written to since
        self.writers = 0
        several = [name for name, column in columns.items() if column.shape]
        self._numbers = [name for name in columns if name not in several]
        self._lists = [(name, views[name].reshape(-1)) for name in several if columns[name].plain]
        for name in several:
            setattr(self, name, views[name][0])
        self.load()

    def load(self) -> None:
        """Take the numbers out of the table."""
        self.memo.clear()
        for name in self._numbers:
            setattr(self, name, self.views[name].item())
        for name, view in self._lists:
            setattr(self, name, view.tolist())

    def store(self) -> None:
        """Do what is late, and put the numbers into the table."""
        self.finish()
        for name in self._numbers:
            self.views[name][0] = getattr(self, name)
        for name, view in self._lists:
            view[:] = getattr(self, name)

    def finish(self) -> None:
        """Do what is late."""
        for work in self.late:
            work()
        self.late.clear()


class Table:
    """Rows that only grow in number; capacity doubles, and where it is large takes a leap.

    A single row may be lent as plain numbers, which `settle` puts into the arrays; so does whoever reaches for those,
    by whatever way. Whoever may have written, after `arrays` into any row and after `take` into those that it took, a
    row is taken out of them anew when it is lent."""

    def __init__(self, columns: Mapping[str, Column], capacity: int = 16) -> None:
        self.columns = dict(columns)
        self.capacity = capacity
        self.length = 0
        self._arrays: dict[str, Array] = {name: _filled(column, capacity) for name, column in self.columns.items()}
        self._views: dict[tuple[int, int], dict[str, Array]] = {}
        self._row: type[Row] = type("Row", (Row,), {"__slots__": tuple(self.columns)})
        self._rows: dict[int, Row] = {}
        self._lent: dict[int, Row] = {}
        self._writers = 0
        # Held by whoever wants it: its memory is not for a step to give back, which takes milliseconds.
        self._frozen: ref[Frozen] | None = None

    @property
    def arrays(self) -> dict[str, Array]:
        """The columns, each with room for `capacity` rows."""
        self.settle()
        self._writers += 1
        self._keep(slice(0, self.length))
        return self._arrays

    def __getitem__(self, name: str) -> Array:
        """The column `name` of the rows in use, shape (length, ...): a view to read."""
        self.settle()
        column = self._arrays[name][: self.length]
        column.flags.writeable = False
        return column

    def settle(self) -> None:
        """Put the numbers of the rows that were lent into the arrays."""
        if self._lent:
            for row in self._lent.values():
                row.store()
            self._lent.clear()

    def append(self, count: int = 1) -> slice:
        """Add `count` new rows and say which they are."""
        start, self.length = self.length, self.length + count
        while self.capacity < self.length:
            self._views.clear()
            self._rows.clear()
            self.capacity = max(2 * self.capacity, RESERVED if self.capacity >= SMALL else 0)
            self.settle()
            for name, array in self._arrays.items():
                self._arrays[name] = grown = room((self.capacity, *array.shape[1:]), array.dtype)
                grown[:start] = array[:start]
        self.reset(slice(start, self.length))
        return slice(start, self.length)

    def reset(self, rows: Rows) -> None:
        """Make `rows` as new."""
        self._recall(rows)
        for name, column in self.columns.items():
            self._arrays[name][rows] = column.initial

    def take(self, rows: Rows) -> dict[str, Array]:
        """The columns of `rows`: views for a slice, copies for an index array (give those back with `put`)."""
        self.settle()
        if not isinstance(rows, slice):
            return {name: array[rows] for name, array in self._arrays.items()}
        self._recall(rows)
        return self._view(rows)

    def _view(self, rows: slice) -> dict[str, Array]:
        # making the views of one row costs as much as a good part of a step
        views = self._views.get((rows.start, rows.stop))
        if views is None:
            if len(self._views) >= VIEWS_MAX:
                self._views.clear()
            views = {name: array[rows] for name, array in self._arrays.items()}
            self._views[rows.start, rows.stop] = views
        return views

    def lend(self, number: int) -> Row:
        """Row `number` as plain numbers, to be changed until somebody else needs them: ask for it anew in each
        step."""
        row = self._rows.get(number)
        if row is None:
            if len(self._rows) >= VIEWS_MAX:
                self.settle()
                self._rows.clear()
            row = self._rows[number] = self._row(self._view(slice(number, number + 1)), self.columns)
        elif row.writers != self._writers:
            row.load()
        if self._frozen is not None:
            self._keep(slice(number, number + 1))
        row.writers = self._writers
        self._lent[number] = row
        return row

    def put(self, rows: Rows, taken: Mapping[str, Array]) -> None:
        """Store what `take(rows)` gave and the step has changed. Nothing to do for a slice: those were views."""
        if not isinstance(rows, slice):
            self._recall(rows)
            for name, array in taken.items():
                self._arrays[name][rows] = array

    def freeze(self) -> Frozen:
        """The table as it is now, for whoever copies it to its end. One at a time: another one has the last copied at
        once."""
        self.settle()
        self._keep(slice(0, self.length))
        frozen = Frozen(self._arrays, self.length)
        self._frozen = ref(frozen)
        return frozen

    def _keep(self, rows: Rows) -> None:
        """Have these rows, which are about to be written to, copied where the table was frozen."""
        frozen = self._frozen() if self._frozen is not None else None
        if frozen is not None:
            frozen.keep(rows)
        if frozen is None or frozen.whole:
            self._frozen = None

    def _recall(self, rows: Rows) -> None:
        """Have these rows, which are about to be written to, taken out of the arrays anew when they are lent."""
        self.settle()
        self._keep(rows)
        numbers = range(rows.start, rows.stop) if isinstance(rows, slice) else rows.tolist()
        if len(numbers) > len(self._rows):
            self._writers += 1
            return
        for number in numbers:
            if row := self._rows.get(number):
                row.writers = -1


def _filled(column: Column, rows: int) -> Array:
    return np.full((rows, *column.shape), column.initial, column.dtype)
