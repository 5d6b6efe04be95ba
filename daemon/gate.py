"""What keeps a few hundred idle, slow or greedy HTTP connections from harming the rest.

uvicorn bounds the time between two requests, not that of the first one, of one sent drop by drop, or of an answer
never read; and its limit on concurrency counts idle connections, so that those could shut everybody out. The gate
looks after that, from the loop, once a second."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 256
#: For a request's head to be complete, counted from the connection or the answer before.
HEAD_S = 10.0
#: For an answer, streams excepted.
ANSWER_S = 60.0
#: For a reader that takes nothing at all.
STALL_S = 20.0


class Guarded(H11Protocol):
    """A connection that the gate knows."""

    def __init__(self, gate: Gate, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.gate = gate
        self.since = self.loop.time()
        self.unsent = 0
        self.moved = self.since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.gate.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gate.open.pop(self, None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.since = self.loop.time()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def overdue(self, now: float, endless: str) -> str:
        """Why the connection should go, empty when it may stay. The path `endless` may be answered for ever."""
        unsent = self.transport.get_write_buffer_size()
        if unsent != self.unsent or not unsent:
            self.unsent, self.moved = unsent, now
        if now - self.moved > STALL_S:
            return "stalled"
        if not self.busy and not unsent:
            return "idle" if now - self.since > HEAD_S else ""
        if self.cycle is not None and self.cycle.scope["path"] == endless:
            return ""
        return "stalled" if now - self.since > HEAD_S + ANSWER_S else ""


class Gate:
    """The open connections, at most `connections_max`, and how many were closed, by reason. The loop of the web
    process alone calls this."""

    def __init__(self, endless: str) -> None:
        self.endless = endless
        self.connections_max = CONNECTIONS_MAX
        self.open: dict[Guarded, None] = {}
        self.closed = Counter(idle=0, stalled=0, crowded=0)

    def protocol(self, **arguments: Any) -> Guarded:
        """Made by uvicorn for each connection."""
        return Guarded(self, **arguments)

    def admit(self, connection: Guarded) -> None:
        """Let a connection in; when it is crowded, the one that has been idle for longest goes."""
        self.open[connection] = None
        if len(self.open) > self.connections_max:
            idle = [each for each in self.open if not each.busy]
            self._close(min(idle, key=lambda each: each.since), "crowded")

    def sweep(self, now: float) -> None:
        """Close what is overdue; `now` in seconds of the loop's clock."""
        for connection in list(self.open):
            if why := connection.overdue(now, self.endless):
                self._close(connection, why)

    def _close(self, connection: Guarded, why: str) -> None:
        self.closed[why] += 1
        self.open.pop(connection, None)
        connection.transport.abort()
