"""Between the threads that have samples and the one that owns the socket: the window, the spool, and the waiting.

Everything here may be called from any thread; `messages`, `heard`, `rewind`, `gone` and `nap` are the connection's
side of it.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time as clock
from collections.abc import Callable
from typing import Literal

from .block import Block
from .spool import FORMAT, Event, Head, Spool, SpoolError
from .window import Window

WhenFull = Literal["block", "raise", "drop_oldest"]

#: A blocked sender goes on when so large a share of the window is free: it then puts many at once, not one an answer.
ROOM_SHARE = 8
#: Messages handed to the connection at a time; with a spool, they share one sync of the disk.
MESSAGES_MAX = 64

logger = logging.getLogger(__name__)


def own_name() -> str:
    """A name that no other producer has: the machine's, and a few random letters."""
    return f"{socket.gethostname()[:64]}-{secrets.token_hex(4)}"


class WindowFull(Exception):
    """The window has no room for the samples, and none of them was taken. Raised where `when_full` is "raise"."""


class Outbox:
    """Samples not yet dealt with.

    Says `OSError` to its callers once its spool has failed or its connection has died.
    """

    def __init__(self, size: int, when_full: WhenFull, name: str | None, epoch: int, spool: Spool | None) -> None:
        if when_full not in ("block", "raise", "drop_oldest"):
            raise ValueError(f'when_full is "block", "raise" or "drop_oldest", not {when_full!r}')
        self.window = Window(size)
        self.head = Head(FORMAT, name or own_name(), epoch, 0)
        self.wake: Callable[[], None] = lambda: None
        self.watch: Callable[[], None] = lambda: None
        self._when_full = when_full
        self._spool = spool
        self._changed = threading.Condition()
        self._conditions: list[Callable[[], bool]] = []  # what the waiting threads wait for
        self._idle = False
        self.closed = False
        self._failure: Exception | None = None
        if spool:
            found = spool.restore(self.window, epoch)
            if found and name and found.producer != name:
                raise SpoolError(f"{spool.path} is the spool of {found.producer!r}, not of {name!r}; name another file")
            self.head = found or self.head
            spool.rewrite(self._here(), self.window)

    # ---- the side of the samples

    def add(self, series: str, value: float, time: float) -> None:
        """Takes in one sample."""
        with self._changed:
            if self.window.room < 1 or self.closed or self._failure:
                self._make_room(1)
            if self.window.room < 1:
                self.window.total_dropped += 1
                return
            if self._spool:
                self._spool.append(Event(series=series, value=[value], time=[time]))
            self.window.add(series, value, time)
            self._rouse()

    def put(self, block: Block) -> None:
        """Takes in samples of any number; where `when_full` is "raise", all of them or none."""
        with self._changed:
            if self._when_full == "raise" and len(block) > self.window.room:
                self._make_room(len(block))
            for piece in block.split(self.window.size):
                self._put(piece)

    def _put(self, block: Block) -> None:
        if self.window.room < len(block) or self.closed or self._failure:
            self._make_room(len(block))
        if (lacking := len(block) - self.window.room) > 0:
            self.window.total_dropped += lacking
            if lacking == len(block):
                return
            block = block.part(lacking, len(block))
        if self._spool:
            self._spool.append_block(block)
        self.window.put(block)
        self._rouse()

    def refuse(self, reason: str, n: int) -> None:
        """Counts samples that the client refuses itself."""
        with self._changed:
            self.window.count_refused(reason, n)

    def await_room(self, n: int, timeout: float | None) -> bool:
        """Waits until n samples fit; False when they do not in `timeout` seconds."""
        return self._await(lambda: self.window.room >= n, timeout)

    def await_empty(self, timeout: float | None) -> bool:
        """Waits until nothing waits; False when something still does after `timeout` seconds."""
        return self._await(lambda: not self.window.waiting, timeout)

    def close(self) -> None:
        """No more samples; who waits for room is sent away."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def shut(self) -> None:
        """Gives the spool up. After the connection has ended."""
        with self._changed:
            if self._spool:
                if not self._failure:
                    self._spool.rewrite(self._here(), self.window)
                self._spool.close()

    def _make_room(self, n: int) -> None:
        self.check()
        size = self.window.size
        if self._when_full == "raise":
            raise WindowFull(f"{self.window.waiting} of {size} samples wait for their acknowledgement; no room for {n}")
        if self._when_full == "drop_oldest":
            dropped = self.window.drop(n - self.window.room)
            if self._spool and dropped:
                self._spool.append(Event(drop=dropped))
            return
        self._wait_for(lambda: self.window.room >= max(n, size // ROOM_SHARE), None)
        self.check()

    def check(self) -> None:
        """Raises where nothing more can be taken in."""
        if self._failure:
            raise OSError(f"the producer has stopped: {self._failure}") from self._failure
        if self.closed:
            raise ValueError("the producer is closed")

    def _await(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        with self._changed:
            reached = self._wait_for(condition, timeout)
            if self._failure and not reached:
                raise OSError(f"the producer has stopped: {self._failure}") from self._failure
            return reached

    def _wait_for(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        self._conditions.append(condition)
        try:
            self._changed.wait_for(lambda: condition() or self._failure or self.closed, timeout)
        finally:
            self._conditions.remove(condition)
        return condition()

    def _rouse(self) -> None:
        if self._idle:
            self._idle = False
            self.wake()

    # ---- the side of the connection

    def messages(self) -> list[tuple[int, list[bytes]]]:
        """The next messages to send, as their number of samples and their frames; with a spool, safe on disk before."""
        with self._changed:
            ever = self.window.ever
            taken: list[tuple[int, Block]] = []
            while len(taken) < MESSAGES_MAX and (item := self.window.take()):
                taken.append(item)
            head, marked = self.head, self.window.ever > ever
            if self._spool and marked:
                self._spool.append(Event(sent=self.window.ever))
        if self._spool and marked:
            self._spool.sync()
        return [(len(block), block.frames(head.producer, head.epoch, first)) for first, block in taken]

    def probe(self) -> list[tuple[int, list[bytes]]]:
        """The oldest message under way, to be sent once more."""
        with self._changed:
            taken, head = self.window.probe(), self.head
        return [(len(taken[1]), taken[1].frames(head.producer, head.epoch, taken[0]))] if taken else []

    def heard(self, acked: int, refusals: list[tuple[str, int]]) -> int:
        """What came back:
        the highest acknowledgement (0: none), and refusals. Returns how many samples that settles.
        """
        with self._changed:
            for reason, number in refusals:
                self.window.refuse(reason, number)
            settled = self.window.ack(acked)
            if settled:
                if self._spool:
                    self._spool.append(Event(ack=self.window.acked))
                    self._spool.tidy(self._here(), self.window)
                self._notify()
            return settled

    def gone(self, n: int) -> None:
        """The n oldest samples have left on a socket that has no way back."""
        with self._changed:
            self.window.ack(self.window.acked + n)
            self.window.total_acked -= n
            if self._spool:
                self._spool.append(Event(ack=self.window.acked))
                self._spool.tidy(self._here(), self.window)
            self._notify()

    def lost(self, acked: int) -> bool:
        """Whether an acknowledgement falls short of what this daemon had acknowledged before: it has lost its place."""
        return acked < self.window.acked

    def rewind(self) -> None:
        """What is under way is to be sent again."""
        with self._changed:
            self.window.rewind()

    def renumber(self) -> None:
        """Begins a new epoch, for a daemon that knows nothing of this one."""
        with self._changed:
            self.window.renumber()
            self.head = Head(FORMAT, self.head.producer, max(self.head.epoch + 1, clock.time_ns()), 0)
            if self._spool:
                self._spool.append(Event(epoch=self.head.epoch))
        logger.warning("the daemon has lost its place; %s begins epoch %d", self.head.producer, self.head.epoch)

    def nap(self) -> bool:
        """Whether nothing is left to send; then the next sample wakes the connection."""
        with self._changed:
            self._idle = not self.window.unsent
            return self._idle or not self.window.ready

    def fail(self, error: Exception) -> None:
        """The connection cannot go on; all callers are told."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()
        self.watch()

    def _notify(self) -> None:
        # To wake a thread that then finds nothing changed costs more than to look on its behalf.
        if any(condition() for condition in self._conditions):
            self._changed.notify_all()
        self.watch()

    def _here(self) -> Head:
        return Head(FORMAT, self.head.producer, self.head.epoch, self.window.acked)
