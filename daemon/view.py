"""What the API and the page say of the latest scoreboard: plain objects, ready to become JSON (NaN becomes null
there)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .recent import Recent
from .scoreboard import Scoreboard

RATE_S = 10.0  # long enough for a steady figure, short enough to see a producer stop
DURATION_S = 60.0
EVENTS_SHOWN = 10


class Mark(NamedTuple):
    """Counters at one moment, to take differences from."""

    time: float
    samples: float
    forecasts: float
    durations: tuple[int, ...]


def visible(board: Scoreboard, cap: int, silent_s: float) -> tuple[NDArray[np.intp], int]:
    """Rows of the board to show, at most `cap`, and how many were left out for having been silent longer than
    `silent_s`."""
    heard = np.flatnonzero(board.columns["seen"] >= board.time - silent_s)
    return heard[:cap], len(board.series) - len(heard)


class View:
    """The latest scoreboard with the few before it that rates are made from. The loop of the web process alone calls
    this.

    Series beyond `cap`, and those silent for longer than `silent_s`, are counted and not shown, as on the metrics page.
    """

    def __init__(self, cap: int, silent_s: float) -> None:
        self.cap, self.silent_s = cap, silent_s
        self.board: Scoreboard | None = None
        self.recent = Recent()
        self.rows: dict[str, int] = {}
        self._marks: deque[Mark] = deque(maxlen=int(DURATION_S) + 1)

    def update(self, board: Scoreboard) -> None:
        """Take the next scoreboard."""
        if self.board is None or board.series != self.board.series:
            self.rows = {name: row for row, name in enumerate(board.series)}
        self.board = board
        self.recent.update(board)
        totals = board.counters
        mark = Mark(board.time, totals.get("samples", 0), totals.get("forecasts", 0), tuple(board.duration_counts))
        last = self._marks[-1] if self._marks else mark
        if mark.samples < last.samples or len(mark.durations) != len(last.durations):
            self._marks.clear()  # another life of the engine
        self._marks.append(mark)

    def overview(self, processes: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """The daemon in a few figures: rates, refusals by reason, times from receiving to publishing over the last
        minute."""
        board = self.board
        if board is None:
            return {"version": __version__, "time": None, "series": 0, "processes": processes}
        first, last = self._since(RATE_S), self._marks[-1]
        elapsed = last.time - first.time
        shown = self.shown()
        ready = board.columns["ready"][shown] > 0
        return {
            "version": __version__,
            "time": board.time,
            "series": int(board.counters.get("series", 0)),
            "shown": len(shown),
            "warming": int(np.count_nonzero(~ready)),
            "samples": board.counters.get("samples", 0),
            "samples_per_s": (last.samples - first.samples) / elapsed if elapsed > 0 else None,
            "forecasts_per_s": (last.forecasts - first.forecasts) / elapsed if elapsed > 0 else None,
            "gaps": board.counters.get("gaps", 0),
            "refused": {reason: count for reason, count in board.refused.items() if count},
            "duration_p50_s": self._duration(0.5),
            "duration_p99_s": self._duration(0.99),
            "processes": processes,
            "models": board.models,
            "events": board.events[-EVENTS_SHOWN:],
        }

    def shown(self) -> NDArray[np.intp]:
        """Rows of the scoreboard that are shown, in the order of the board."""
        if self.board is None:
            return np.empty(0, np.intp)
        return visible(self.board, self.cap, self.silent_s)[0]

    def series(self, match: str = "", limit: int = 1_000) -> dict[str, Any]:
        """The series whose names hold `match`, whatever their case, at most `limit`, each with its main figures at
        one step ahead."""
        board = self.board
        if board is None:
            return {"time": None, "total": 0, "matching": 0, "series": []}
        wanted = match.casefold()
        rows = [int(row) for row in self.shown() if wanted in board.series[row].casefold()]
        return {
            "time": board.time,
            "total": int(board.counters.get("series", 0)),
            "matching": len(rows),
            "series": [self._line(board, row) for row in rows[:limit]],
        }

    def _line(self, board: Scoreboard, row: int) -> dict[str, Any]:
        column = board.columns
        return {
            "series": board.series[row],
            "status": "ready" if column["ready"][row] > 0 else "warming",
            "time": float(column["time"][row]),
            "value": float(column["value"][row]),
            "forecast": float(column["forecast"][row, 0]),
            "lower": float(column["lower"][row, 0, 0]),
            "upper": float(column["upper"][row, 0, 0]),
            "skill": float(column["skill"][row, 0, 0]),
            "coverage": float(column["coverage"][row, 0, 0]),
            "flag": bool(column["flag"][row] > 0),
            "samples": float(column["samples"][row]),
        }

    def one(self, name: str) -> dict[str, Any] | None:
        """All that is known of one series; None when it is not on the scoreboard. Lists run over the steps ahead, 1
        first."""
        board, row = self.board, self.rows.get(name)
        if board is None or row is None:
            return None
        column = {key: value[row] for key, value in board.columns.items()}
        levels = [f"{level:g}" for level in board.levels]

        def by(labels: Sequence[str], key: str) -> dict[str, list[float]]:
            return {label: column[key][:, at].tolist() for at, label in enumerate(labels)}

        return {
            **self._line(board, row),
            "seen": float(column["seen"]),
            "step": float(column["step"]),
            "season": float(column["season"]),
            "gaps": float(column["gaps"]),
            "model": float(column["model"]),
            "horizon": board.horizon,
            "level": board.levels[0],
            "forecast": column["forecast"].tolist(),
            "lower": by(levels, "lower"),
            "upper": by(levels, "upper"),
            "mae": by(board.sources, "mae"),
            "rmse": by(board.sources, "rmse"),
            "bias": by(board.sources, "bias"),
            "skill": by(board.sources, "skill"),
            "weights": by(board.experts, "weight"),
            "coverage": by(levels, "coverage"),
            "width": by(levels, "width"),
            "interval_score": by(levels, "winkler"),
            "anomaly": {"score": float(column["score"]), "total": float(column["anomalies"])},
        }

    def _since(self, window_s: float) -> Mark:
        """The oldest mark within the window."""
        last = self._marks[-1].time
        return next(mark for mark in self._marks if mark.time >= last - window_s)

    def _duration(self, share: float) -> float | None:
        """A quantile of the times from receiving to publishing, in seconds, straight lines drawn inside the buckets."""
        assert self.board is not None
        first, last = self._since(DURATION_S), self._marks[-1]
        base = first.durations if first is not last else (0,) * len(last.durations)
        counts = np.subtract(last.durations, base)
        total = int(counts.sum())
        bounds = self.board.duration_bounds
        if not total or not bounds:
            return None
        below = np.cumsum(counts)
        bucket = int(np.searchsorted(below, share * total))
        if bucket >= len(bounds):
            return bounds[-1]
        low = bounds[bucket - 1] if bucket else 0.0
        inside = (share * total - (below[bucket] - counts[bucket])) / max(counts[bucket], 1)
        return float(low + (bounds[bucket] - low) * inside)
