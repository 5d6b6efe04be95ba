"""Weights of their own for single series: fine-tuned copies of the shared model, each with its open windows.

A copy costs 42 KB and 10 µs a sample; both models of such a series forecast each sample, and `recurrent` serves the
mix that has been right lately."""

from __future__ import annotations

import numpy as np

from .kernel import Kernel, OpenWindows
from .table import Array
from .weights import Weights


class Copies:
    """The copies by row of the table. The engine alone adopts and drops them, between two steps."""

    def __init__(self) -> None:
        self.weights: dict[int, Weights] = {}
        #: the open windows of each
        self.open: dict[int, OpenWindows] = {}

    def __len__(self) -> int:
        return len(self.weights)

    def __contains__(self, row: int) -> bool:
        return row in self.weights

    def adopt(self, row: int, weights: Weights) -> None:
        """Forecast `row` with these weights from its next sample on."""
        self.weights[row] = weights
        self.open[row] = OpenWindows(Kernel(weights), 1)

    def drop(self, row: int) -> None:
        """Forecast `row` with the shared model alone again; nothing to do where it has no copy."""
        self.weights.pop(row, None)
        self.open.pop(row, None)

    def forward(self, rows: Array, count: Array, windows: Array) -> Array | None:
        """f of each row's own copy, shape (n,), float64, NaN for rows without one; None where no row has any.

        `count`, shape (n,), is the number of the sample, `windows`, shape (n, window, C), end with it."""
        if not self.open:
            return None
        said = [np.nan] * len(rows)
        found = False
        for place, row in enumerate(rows.tolist()):
            if opened := self.open.get(row):
                said[place] = opened.forecast(row, int(count[place]), windows[place])
                found = True
        return np.array(said) if found else None
