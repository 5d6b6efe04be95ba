"""Whether a series' forecasts have turned worse: Page's cumulative sum of the errors, many rows at once.

E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954). The sum rises by how far an error lies above its
usual size and never falls below 0, so it sees a lasting change soon and a single spike not at all; one addition and
two comparisons a sample, where a test on two windows would have to keep them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Errors are measured in their usual size, their mean with this half-life in samples, and no error counts for more
#: than so many of it: a spike alone does not raise the alarm, and hardly moves what is usual.
HALF_LIFE = 512.0
CAP = 4.0
#: What an error may exceed the usual by, and the sum at which there is drift. Measured: of a million samples with
#: normal errors none raises a false alarm, with Student's of three degrees of freedom 8 do; errors twice their size
#: raise it after 30 to 40 samples (median), ten times their size after 6.
SLACK, ALARM = 0.5, 12.0
#: Samples before there is something usual.
SETTLED = 64

Index = NDArray[np.intp]


class Drift:
    """The sums of all rows; those seen first get room as they come."""

    def __init__(self) -> None:
        self._count = np.zeros(0, np.int64)
        self._usual = np.zeros(0)
        self._sum = np.zeros(0)

    def take(self, row: Index, error: NDArray[np.float64]) -> Index:
        """The rows whose forecasts have turned worse with this error. `row` (n,), none twice; `error` (n,), in any
        unit that stays the same for a row; NaN where there was no forecast. A row found begins anew."""
        known = np.isfinite(error)
        row, error = row[known], np.abs(error[known])
        self._grow(int(row.max(initial=-1)) + 1)
        count, usual = self._count[row], self._usual[row]
        settled = count >= SETTLED
        size = np.where(settled & (usual > 0), error / np.where(usual > 0, usual, 1.0), 1.0)
        total = np.maximum(self._sum[row] + np.minimum(size, CAP) - 1.0 - SLACK, 0.0)
        found = total > ALARM
        rate = np.maximum(1.0 - 0.5 ** (1.0 / HALF_LIFE), 1.0 / (count + 1))
        bounded = np.where(settled, np.minimum(error, CAP * usual), error)
        self._usual[row] = usual + rate * (bounded - usual)
        # what follows a change is measured by what is usual after it
        self._count[row] = np.where(found, 0, count + 1)
        self._sum[row] = np.where(found, 0.0, total)
        return row[found]

    def _grow(self, rows: int) -> None:
        if rows > len(self._count):
            more = max(rows - len(self._count), len(self._count), 64)
            self._count = np.concatenate([self._count, np.zeros(more, np.int64)])
            self._usual = np.concatenate([self._usual, np.zeros(more)])
            self._sum = np.concatenate([self._sum, np.zeros(more)])
