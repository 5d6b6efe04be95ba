"""What the engine sent, as lessons again: samples in rounds, and the series whose forecasts have turned worse."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.drift import Drift
from ..models.lessons import Lesson


class Rounds:
    """Makes lessons of the samples that come, and finds the series whose forecasts have turned worse."""

    def __init__(self) -> None:
        self._drift = Drift()
        self._forecast = np.zeros(0)

    def of(self, samples: NDArray[Any]) -> list[tuple[Lesson, list[int]]]:
        """The samples in rounds, none of a row twice, and of each round the rows found worse by it."""
        rounds = [samples[places] for places in _rounds(samples["row"])]
        # a round of the engine's is all real or not real at all
        parts = [part for taken in rounds for part in (taken[taken["real"]], taken[~taken["real"]]) if len(part)]
        return [self._one(part) for part in parts]

    def _one(self, samples: NDArray[Any]) -> tuple[Lesson, list[int]]:
        row = samples["row"].astype(np.intp)
        x, s, real = samples["x"].astype(np.float64), samples["s"].astype(np.float64), bool(samples["real"][0])
        grown = int(row.max()) + 1 - len(self._forecast)
        if grown > 0:
            self._forecast = np.concatenate([self._forecast, np.full(max(grown, len(self._forecast)), np.nan)])
        due = self._forecast[row]
        due[(samples["fresh"] <= 1) | (s <= 0)] = np.nan
        self._forecast[row] = samples["forecast"]
        worse = self._drift.take(row, (due - x) / np.where(s > 0, s, 1.0)).tolist() if real else []
        return Lesson(row, x, s, samples["channels"], samples["fresh"].astype(np.int64), real), worse


def _rounds(row: NDArray[Any]) -> list[NDArray[np.intp]]:
    """The places in `row` by how often their row came before, each round in the order of the rows."""
    order = np.argsort(row, kind="stable")
    first = np.flatnonzero(np.diff(row[order].astype(np.int64), prepend=-1))
    turn = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    return np.split(order[np.argsort(turn, kind="stable")], np.cumsum(np.bincount(turn))[:-1]) if len(row) else []
