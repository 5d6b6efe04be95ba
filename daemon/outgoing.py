"""What the trainer is to be taught, on its way out of the engine: lessons become letters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.lessons import Lesson
from . import letter
from .batch import Effects
from .letter import Taught

#: Samples of one letter; a quiet daemon sends fewer, once a second.
LETTER_SAMPLES = 4_096
#: Bytes kept for a trainer that does not read, or is not there yet.
KEPT_BYTES_MAX = 8 << 20


class Outgoing:
    """Samples as letters. Full ones are kept until it takes them, up to a bound; the oldest
    are dropped first, and `dropped` counts their samples."""

    def __init__(self) -> None:
        self.dropped = 0
        self._full: deque[bytes] = deque()
        self._bytes = 0
        self._channels = 0
        self._open: NDArray[Any] = np.empty(0, letter.record(1))
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether there is a whole letter to send."""
        return bool(self._full)

    def add(self, effects: Effects) -> None:
        """Take in the lessons of a step, with the forecasts it published."""
        if len(effects.lessons) == 1 and len(effects.lessons[0].row) == 1 and effects.lessons[0].real:
            return self._write_one(effects.lessons[0], effects.forecasts[0].mean.item(0))
        published = [forecasts.mean[:, 0] for forecasts in effects.forecasts]
        mean = published[0] if len(published) == 1 else np.concatenate([*published, np.empty(0)])
        at = 0
        for lesson in effects.lessons:
            count = len(lesson.row)
            if lesson.real:
                self._write(lesson, mean[at : at + count])
                at += count
            else:
                self._write(lesson, np.full(count, np.nan))

        return None

    def send(self, send: Callable[..., bool]) -> None:
        """Send what there is, as far as it is taken."""
        self._close()
        while self._full and send(Taught(self._channels), self._full[0]):
            self._bytes -= len(self._full.popleft())

    def _write_one(self, lesson: Lesson, forecast: float) -> None:
        """`_write` for a sample that came alone."""
        channels = lesson.channels[0]
        if len(channels) != self._channels or self._count == LETTER_SAMPLES:
            return self._write(lesson, np.array([forecast]))
        row, fresh, x, s = lesson.row.item(), lesson.fresh.item(), lesson.x.item(), lesson.s.item()
        self._open[self._count] = (row, fresh, x, s, forecast, True, channels)
        self._count += 1
        return None

    def _write(self, lesson: Lesson, forecast: NDArray[np.float64]) -> None:
        if lesson.channels.shape[1] != self._channels:
            self._close()
            self._channels = lesson.channels.shape[1]
            self._open = np.empty(LETTER_SAMPLES, letter.record(self._channels))
        count = len(lesson.row)
        for start in range(0, count, LETTER_SAMPLES):
            stop = min(start + LETTER_SAMPLES, count)
            if self._count + stop - start > LETTER_SAMPLES:
                self._close()
            records = self._open[self._count : self._count + stop - start]
            for name in ("row", "x", "s", "channels", "fresh"):
                records[name] = getattr(lesson, name)[start:stop]
            records["forecast"], records["real"] = forecast[start:stop], lesson.real
            self._count += stop - start

    def _close(self) -> None:
        if not self._count:
            return
        raw = self._open[: self._count].tobytes()
        self._count = 0
        self._full.append(raw)
        self._bytes += len(raw)
        while self._bytes > KEPT_BYTES_MAX:
            lost = self._full.popleft()
            self._bytes -= len(lost)
            self.dropped += len(lost) // self._open.dtype.itemsize
