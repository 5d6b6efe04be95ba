"""What the trainer does next: the rows that are due for a fine-tune, and why.

A row is due after so many samples (the learner counts them), after so many seconds, when its forecasts have turned
worse, or because somebody asked; and not before its cool-down is over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from .settings import Learning


class Due(Protocol):
    """What of the learner the agenda asks."""

    def due(self, asked: Iterable[int] = ()) -> list[int]: ...


class Agenda:
    """Times are seconds of a monotonic clock."""

    def __init__(self, options: Learning) -> None:
        self._options = options
        self._asked: dict[int, str] = {}
        self._tuned_at: dict[int, float] = {}

    def ask(self, rows: Iterable[int] | None, cause: str) -> None:
        """Have these rows (None: all that were ever tuned) tuned as soon as may be."""
        for row in list(self._tuned_at) if rows is None else rows:
            self._asked.setdefault(row, cause)

    def due(self, learner: Due, now: float) -> list[int]:
        """The rows to tune now, those that were asked for first."""
        options = self._options
        if options.every_s:
            self.ask([row for row, at in self._tuned_at.items() if now - at >= options.every_s], "time")
        found = learner.due(self._asked)
        ripe = [row for row in found if now - self._tuned_at.get(row, -1e9) >= options.cooldown_s]
        return sorted(ripe, key=lambda row: row not in self._asked)

    def done(self, row: int, now: float) -> str:
        """Takes in that a row was tuned in a job that began at `now`; what set it off."""
        self._tuned_at[row] = now
        return self._asked.pop(row, "samples")

    @property
    def tuned_at(self) -> Mapping[int, float]:
        """When each row was tuned last."""
        return self._tuned_at
