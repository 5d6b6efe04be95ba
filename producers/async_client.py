"""The same producer for programs that run on asyncio: what would block is awaited instead.

async with AsyncProducer("tcp://127.0.0.1:5555") as producer:
    await producer.send("boiler", 71.3)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from .client import Producer, Stats
from .outbox import WhenFull

logger = logging.getLogger(__name__)


class AsyncProducer:
    """A `Producer` (which see for the options and methods) made within a running event loop, and used from that loop
    alone.
    """

    def __init__(self, to: str = "tcp://127.0.0.1:5555", *, when_full: WhenFull = "block", **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = Producer(to, when_full=when_full, **options)
        self._outbox = self._producer.outbox
        self._blocks = when_full == "block"
        self._turn = asyncio.Lock()
        self._moved = asyncio.Event()
        self._awaited = 0
        self._outbox.watch = self._watch

    @property
    def name(self) -> str:
        """Whose the numbers are."""
        return self._producer.name

    async def send(self, series: str, value: float, time: float | None = None) -> None:
        """As `Producer.send`; waits for room in the window without holding up the loop."""
        if self._blocks and (self._turn.locked() or self._outbox.window.room < 1):
            async with self._turn:
                await self._until(lambda: self._outbox.window.room > 0)
                return self._producer.send(series, value, time)
        return self._producer.send(series, value, time)

    async def send_columns(
        self,
        series: str | Sequence[str],
        values: Iterable[float],
        time: float | Iterable[float] | None = None,
        step: float | None = None,
    ) -> None:
        """As `Producer.send_columns`; where that would wait for room, it does so in a thread."""
        held = values if isinstance(values, Sequence) or hasattr(values, "__len__") else list(values)
        if not self._blocks:
            return self._producer.send_columns(series, held, time, step)
        async with self._turn:
            if self._outbox.window.room >= len(held):  # type: ignore[arg-type]
                return self._producer.send_columns(series, held, time, step)
            return await asyncio.to_thread(self._producer.send_columns, series, held, time, step)

    async def flush(self, timeout: float | None = None) -> bool:
        """As `Producer.flush`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._until(lambda: not self._outbox.window.waiting)
        return not self._outbox.window.waiting

    def stats(self) -> Stats:
        """As `Producer.stats`."""
        return self._producer.stats()

    async def close(self, timeout: float = 5.0) -> bool:
        """As `Producer.close`."""
        with suppress(OSError):
            await self.flush(timeout)
        return await asyncio.to_thread(self._producer.close, 0.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not await self.close() and kind is None:
            logger.warning("%s: %d samples were not acknowledged", self.name, self.stats().waiting)

    async def _until(self, condition: Callable[[], bool]) -> None:
        self._awaited += 1
        try:
            while True:
                self._moved.clear()
                if condition():
                    return
                self._outbox.check()
                await self._moved.wait()
        finally:
            self._awaited -= 1

    def _watch(self) -> None:
        """Called by the thread of the connection when something moved."""
        if self._awaited:
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._moved.set)
