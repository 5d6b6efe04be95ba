"""How long samples took, counted in buckets: plain numbers that the scoreboard carries and the web process exports."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from .batch import Floats

#: Upper bounds in seconds, three a decade from 10 µs to 10 s.
BOUNDS = (*(factor * 10.0**exponent for exponent in range(-5, 1) for factor in (1, 2, 5)), 10.0)


class Histogram:
    """`counts` has a number for each bound, of what was at or below it and above the one before, and one for the
    rest."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Counts one duration, `times` times."""
        self.counts[bisect_left(BOUNDS, seconds)] += times
        self.sum += seconds * times

    def observe_all(self, seconds: Floats, times: Floats) -> None:
        """Counts many: both of shape (n,)."""
        places = np.searchsorted(BOUNDS, seconds, side="left")
        added = np.bincount(places, weights=times, minlength=len(self.counts))
        self.counts = [count + int(more) for count, more in zip(self.counts, added, strict=True)]
        self.sum += float(seconds @ times)
