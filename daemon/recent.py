"""A short past of every series, as the scoreboard showed it: the page opens with a curve instead of with its first
point."""

from __future__ import annotations

from typing import Any

import numpy as np

from .scoreboard import Scoreboard

RECENT_POINTS = 120
RECENT_SERIES = 2_000  # about 20 MB of points with six experts


class Recent:
    """The last points of each series as the scoreboard showed them, at most one a second, so that the page has a past
    to show at once.

    `points` is float64 of shape (slots, RECENT_POINTS, 5 + K), a ring along its second axis: time, value, forecast,
    lower, upper (one step ahead, main level), weights of the K experts."""

    def __init__(self) -> None:
        self._series: list[str] = []
        self._experts: list[str] = []
        self._slots: dict[str, int] = {}
        self._by_row = np.empty(0, np.intp)
        self._points = np.empty((0, RECENT_POINTS, 5))
        self._count = np.zeros(0, np.int64)

    def update(self, board: Scoreboard) -> None:
        """Keep what is new in the scoreboard."""
        if board.experts != self._experts:
            self.__init__()  # type: ignore[misc]
            self._experts = list(board.experts)
            self._points = np.empty((0, RECENT_POINTS, 5 + len(board.experts)))
        if board.series != self._series:
            self._assign(board.series)
        column, rows = board.columns, np.arange(len(self._by_row))
        slots = self._by_row
        newest = self._points[slots, (self._count[slots] - 1) % RECENT_POINTS, 0]
        moved = (self._count[slots] == 0) | (column["time"][rows] > newest)
        rows, slots = rows[moved], slots[moved]
        forecast, lower, upper = column["forecast"][rows, 0], column["lower"][rows, 0, 0], column["upper"][rows, 0, 0]
        self._points[slots, self._count[slots] % RECENT_POINTS] = np.column_stack(
            [column["time"][rows], column["value"][rows], forecast, lower, upper, column["weight"][rows, 0]]
        )
        self._count[slots] += 1

    def _assign(self, series: list[str]) -> None:
        kept = series[:RECENT_SERIES]
        wanted = set(kept)
        for name in [name for name in self._slots if name not in wanted]:
            self._count[self._slots.pop(name)] = 0
        free = sorted(set(range(len(self._count))) - set(self._slots.values()), reverse=True)
        fresh = [name for name in kept if name not in self._slots]
        if (more := len(fresh) - len(free)) > 0:
            grown = max(more, min(len(self._count), RECENT_SERIES - len(self._count)))
            free = [*range(len(self._count) + grown - 1, len(self._count) - 1, -1), *free]
            self._points = np.concatenate([self._points, np.empty((grown, *self._points.shape[1:]))])
            self._count = np.concatenate([self._count, np.zeros(grown, np.int64)])
        for name in fresh:
            self._slots[name] = free.pop()
        self._series = list(series)
        self._by_row = np.array([self._slots[name] for name in kept], np.intp)

    def of(self, name: str) -> dict[str, Any]:
        """The points of a series, oldest first, as columns; empty when nothing is known of it."""
        slot = self._slots.get(name)
        count = int(self._count[slot]) if slot is not None else 0
        order = np.arange(max(0, count - RECENT_POINTS), count) % RECENT_POINTS
        points = self._points[slot, order] if slot is not None else self._points.reshape(-1, self._points.shape[-1])[:0]
        time, value, mean, lower, upper = points[:, :5].T.tolist()
        weights = dict(zip(self._experts, points[:, 5:].T.tolist(), strict=True))
        return {"time": time, "value": value, "mean": mean, "lower": lower, "upper": upper, "weights": weights}
