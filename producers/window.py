"""What a producer has sent and not yet seen acknowledged: bounded, numbered, and ready to be sent again.

Pure: no socket, clock, file or thread. The client tells it what happened (samples taken in, an acknowledgement, a new
connection) and asks what to send next. Samples wait in three stages, oldest first:

    flying   sent on this connection
    again    sent on an earlier connection, or too long ago: to be sent again
    fresh    never sent

Numbers follow from the order: the oldest one waiting is `acked + 1`. So a fresh sample can be dropped without a hole
in the numbers, at which a daemon that accepts only the next number would wait for ever; one that was sent cannot, for
the daemon may have it.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from itertools import chain

from .block import SAMPLES_MAX, Block

#: Numbers whose refusal is remembered, so that one told twice is counted once.
TOLD_MAX = 10_000


class Window:
    """At most `size` samples, of which at most half are under way at any time:
    there is always something fresh to drop.
    """

    def __init__(self, size: int) -> None:
        if size < 2:
            raise ValueError("a window holds at least 2 samples")
        self.size = size
        self.credit = size // 2
        self.acked = 0  # all up to this number are dealt with
        self.sent = 0  # … are sent on this connection
        self.ever = 0  # … are sent on some connection
        self.waiting = 0
        self.total_sent = self.total_acked = self.total_resent = self.total_dropped = 0
        self.total_told = 0  # refused by the daemon, and so among the acknowledged
        self.refused: dict[str, int] = {}
        self._flying: deque[Block] = deque()
        self._again: deque[Block] = deque()
        self._fresh: deque[Block] = deque()
        self._gathered: Block | None = None  # the last of the fresh, where single samples still go
        self._names: list[str] = []
        self._told: set[int] = set()

    @property
    def room(self) -> int:
        """Samples that still fit; negative where a larger window was restored."""
        return self.size - self.waiting

    @property
    def flying(self) -> int:
        """Samples sent on this connection and not acknowledged."""
        return self.sent - self.acked

    # ---- samples in

    def add(self, series: str, value: float, time: float) -> None:
        """Takes in one sample; those that wait together travel together."""
        if self._gathered is None or len(self._names) >= SAMPLES_MAX:
            self._names = []
            self._gathered = Block(self._names, array("d"), array("d"))
            self._fresh.append(self._gathered)
        self._names.append(series)
        self._gathered.value.append(value)
        self._gathered.time.append(time)
        self.waiting += 1

    def put(self, block: Block) -> None:
        """Takes in a block that fits into a message."""
        self._gathered = None
        self._fresh.append(block)
        self.waiting += len(block)

    def drop(self, n: int) -> int:
        """Drops the n oldest samples that were never sent; returns how many there were."""
        self._gathered = None
        dropped = n - _shed(self._fresh, n)
        self.waiting -= dropped
        self.total_dropped += dropped
        return dropped

    # ---- samples out

    @property
    def unsent(self) -> bool:
        """Whether there is anything to send, now or when there is credit."""
        return bool(self._due)

    @property
    def ready(self) -> bool:
        """Whether there is something to send now."""
        room = self.credit - self.flying
        # What does not fit is cut, but not into crumbs, which cost as much as whole messages.
        return self.unsent and (len(self._due[0]) <= room or room >= max(1, self.credit // 4))

    @property
    def _due(self) -> deque[Block]:
        """The stage that is next: what was sent before goes before what was not."""
        return self._again or self._fresh

    def take(self) -> tuple[int, Block] | None:
        """The next block to send and the number of its first sample; None when there is none, or no credit for it."""
        if not self.ready:
            return None
        stage, room = self._due, self.credit - self.flying
        block = stage.popleft()
        if block is self._gathered:
            self._gathered = None
        if len(block) > room:
            stage.appendleft(block.part(room, len(block)))
            block = block.part(0, room)
        first = self.sent + 1
        self.sent += len(block)
        if self.sent <= self.ever:
            self.total_resent += len(block)
        else:
            self.ever = self.sent
            self.total_sent += len(block)
        self._flying.append(block)
        return first, block

    def probe(self) -> tuple[int, Block] | None:
        """The oldest block under way, once more, and its number; None when nothing is."""
        if not self._flying:
            return None
        block = self._flying[0]
        self.total_resent += len(block)
        return self.acked + 1, block

    def rewind(self) -> None:
        """What is under way is lost, with its connection or on it: all of it is to be sent again."""
        self._again.extendleft(reversed(self._flying))
        self._flying.clear()
        self.sent = self.acked

    def renumber(self) -> None:
        """The daemon has lost its place, and a new epoch begins:
        all that waits is numbered from 1, as if never sent.
        """
        self.rewind()
        self._fresh.extendleft(reversed(self._again))
        self._again.clear()
        self.acked = self.sent = self.ever = 0
        self._told.clear()

    # ---- a life before this one (from a spool)

    def mark(self, number: int) -> None:
        """All up to `number` were sent in an earlier life."""
        n = min(number, self.acked + self.waiting) - self.ever
        if n <= 0:
            return
        self._gathered = None
        self.ever += n
        while n:
            block = self._fresh.popleft()
            if len(block) > n:
                self._fresh.appendleft(block.part(n, len(block)))
                block = block.part(0, n)
            self._again.append(block)
            n -= len(block)

    def blocks(self) -> Iterator[Block]:
        """All that waits, oldest first."""
        return chain(self._flying, self._again, self._fresh)

    # ---- answers

    def ack(self, number: int) -> int:
        """All up to `number` are dealt with; returns how many that adds. A number never sent is not believed."""
        n = min(number, self.ever) - self.acked
        if n <= 0:
            return 0
        _shed(self._again, _shed(self._flying, n))
        self.acked += n
        self.sent = max(self.sent, self.acked)
        self.waiting -= n
        self.total_acked += n
        return n

    def refuse(self, reason: str, number: int) -> None:
        """The daemon refused a sample. It still waits for its acknowledgement, which a refusal does not replace."""
        if not 0 < number <= self.ever or number in self._told:
            return
        if len(self._told) >= TOLD_MAX:
            self._told = {told for told in self._told if told > self.acked}
        self._told.add(number)
        self.total_told += 1
        self.count_refused(reason)

    def count_refused(self, reason: str, n: int = 1) -> None:
        """Counts samples as refused, also those that never got a number."""
        self.refused[reason] = self.refused.get(reason, 0) + n


def _shed(stage: deque[Block], n: int) -> int:
    """Takes the n oldest samples off a stage; returns how many of them were not there."""
    while n and stage:
        block = stage.popleft()
        if len(block) > n:
            stage.appendleft(block.part(n, len(block)))
            return 0
        n -= len(block)
    return n
