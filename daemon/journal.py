"""Group commit: what the pipeline took in reaches the disk before its producers are told so, and the pipeline waits
for neither.

The engine's loop calls `append` after each step and goes on. A thread takes what is waiting, whatever it is, to the
disk in one commit; then the replies that depended on it may leave, and `fileno` becomes readable. So a slow disk
makes commits larger and acknowledgements later, and nothing else. Where there is no such reply, a commit waits a
little for more.

Where the disk is full, or far too slow, what waits is bounded: beyond it the journal lets go of it all and waits for
a snapshot, which holds all that the steps let go of did. Until that one is on the disk nothing is acknowledged;
forecasts go on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..models.weights import Weights
from . import copied, snapshot
from .batch import Batch, Effects, Reply
from .database import Commit
from .disk import Failed, Full
from .lineage import Change
from .record import Encoder, Entry
from .snapshot import State

#: Bytes that wait for the disk before the journal lets go of them.
WAITING_MAX = 64 << 20
#: Bytes in memory that go into one commit.
COMMIT_MAX = 32 << 20
#: Replies that wait for a snapshot; the oldest go first. Who misses one sends again, and is answered then.
HELD_MAX = 10_000
#: Seconds of the pipeline's work after which a snapshot is due: a replay takes about as long at most.
REPLAY_S = 1.0
#: Bytes of journal after which one is due.
REPLAY_BYTES = 256 << 20
#: Snapshots may take this share of the time.
SNAPSHOT_SHARE = 0.05
#: Seconds for which a step that nobody waits for waits for others to go to the disk with: a commit takes more of the
#: processor than a sample that comes alone, and takes it from the loop.
GATHER_S = 0.02
#: Seconds between two attempts on a full disk.
RETRY_S = 0.5


class Disk(Protocol):
    """What of `store.Store` the journal needs; the simulation has another one."""

    def commit(
        self,
        commit: Commit,
        names: Sequence[str],
        first: int,
        events: Sequence[Mapping[str, Any]],
        changes: Sequence[Change],
        *,
        copies: Mapping[int, bytes | None],
    ) -> None: ...
    def save(self, step: int, pieces: Iterable[bytes | memoryview]) -> None: ...
    def tidy(self, through: int, before: float, bytes_max: int) -> int: ...
    def mark(self, suspect: bool) -> None: ...


class Waiting(NamedTuple):
    """A step on its way to the disk, and what may be said once it is there."""

    entry: Entry
    replies: list[Reply]
    events: list[dict[str, Any]]
    copies: dict[int, Weights | None]
    changes: list[Change]
    #: how many series there were after it: the pipeline is further than the journal, and its names with it
    named: int


@dataclass
class Figures:
    """What the scoreboard tells of the journal: totals since the start, then what is so now."""

    commits: int = 0
    samples: int = 0
    commit_seconds: float = 0.0
    snapshots: int = 0
    snapshot_seconds: float = 0.0
    #: samples that only snapshots hold, not the journal
    skipped: int = 0
    #: commits and snapshots that were found damaged at the start
    damaged: int = 0
    #: bytes of the file in use, and steps that wait for it
    bytes: int = 0
    waiting: int = 0
    #: 1 while the disk has no room, 1 while acknowledgements wait for a snapshot
    full: int = 0
    held: int = 0


class Journal:
    """The steps of one run of the daemon, from `append` to the disk.

    The loop calls `append`, `lose`, `durable`, `due`, `keep`; threads call `commit` and `write`, one each. `names`
    and `rows` are the pipeline's tables of names, `named` how many of them the disk has, `step` the number of steps
    the pipeline has taken, `kept` the steps of the two newest snapshots, older first, `spent_s` the seconds it took to
    replay what comes after, `owed` the copies of series that the disk lacks or is to forget. With `durable` false, what
    is appended is acknowledged at once and written all the same.
    """

    def __init__(
        self,
        disk: Disk,
        names: Sequence[str],
        rows: Mapping[str, int],
        *,
        step: int = 0,
        life: int = 1,
        named: int = 0,
        durable: bool = True,
        kept: tuple[int, int] = (0, 0),
        spent_s: float = 0.0,
        bytes_max: int = 1 << 30,
        age_s: float = 7 * 86400.0,
        clock: Callable[[], float] = time.monotonic,
        owed: Mapping[int, Weights | None] = MappingProxyType({}),
    ) -> None:
        self.disk = disk
        self.step = step
        self.figures = Figures()
        self.failure: Failed | None = None
        self._names, self._encoder = names, Encoder(rows)
        self._life, self._named = life, named
        self._promise = durable
        self._bytes_max, self._age_s = bytes_max, age_s
        self._clock = clock
        self._wakeup: tuple[int, int] | None = None
        # Of the thread that commits, and of all else that waits: not each step is news to that.
        lock = threading.RLock()
        self._came, self._change = threading.Condition(lock), threading.Condition(lock)
        # All below is touched under `_change` only.
        self._closing = False
        # Whether something that waits is to be answered for.
        self._awaited = False
        self._waiting: list[Waiting] = []
        self._group: list[Waiting] = []
        self._weight = 0
        self._retry_at = -1e9
        self._sayable: list[Reply] = []
        self._held: dict[tuple[bytes, int], Reply] = {}
        # Copies of steps that were let go of, and those steps: the next commit has them, for no snapshot does.
        self._owed: dict[int, tuple[int, Weights | None]] = {row: (step, model) for row, model in owed.items()}
        # What of them the snapshot has to hold.
        self._copied: dict[int, Weights | None] = {}
        # Changes of the model in steps that were let go of: the next commit has them, for no snapshot does.
        self._due: list[tuple[int, Change]] = []
        # The last step that was let go of, where no snapshot has made good for it.
        self._lost: int | None = None
        self._copy: State | None = None
        self._copied_at, self._copying_s = -1e9, 0.0
        self._kept = kept
        self._spent_s, self._spent_bytes = spent_s, 0

    # ---- for the loop

    def append(
        self, batch: Batch, now: float, effects: Effects, replies: list[Reply], spent_s: float = 0.0
    ) -> list[Reply]:
        """Take in a step that the pipeline has taken in `spent_s` seconds, and what is to be said when the disk
        has it; returns what of that may be said at once. Never waits.
        """
        if effects.refused is not None:
            # A replay has only to count them; a flood of them would fill the disk with names of no series.
            batch = Batch([], [], [], [], effects.refused)
            effects.taken = np.zeros(0, np.bool_)
        taken = None if sum(map(len, effects.forecasts)) == len(batch) else effects.taken
        with self._change:
            self.step += 1
            self._spent_s += spent_s
            later = replies if self._promise else []
            copies = effects.copies
            if self._owed and (self._lost is None or self._mending()):
                copies, self._owed = {row: weights for row, (_, weights) in self._owed.items()} | copies, {}
            entry = Entry(self.step, now, batch, effects.recorded, taken)
            waiting = Waiting(entry, later, effects.events, copies, effects.changes, len(self._names))
            if self._lost is not None and not self._mending():
                self._lose([waiting])
            else:
                if later or not self._waiting:
                    self._awaited = self._awaited or bool(later)
                    self._came.notify()
                self._waiting.append(waiting)
                self._weight += waiting.entry.weight
                if self._weight > WAITING_MAX:
                    self._lose(self._waiting)
        return [] if self._promise else replies

    def lose(self) -> None:
        """Take in that a step failed halfway. No replay can repeat what it did; only a snapshot can keep it."""
        with self._change:
            self.step += 1
            self._lose(self._waiting)

    def fileno(self) -> int:
        """The descriptor to poll: readable when `durable` has something to say."""
        if self._wakeup is None:
            self._wakeup = os.pipe()
            for end in self._wakeup:
                os.set_blocking(end, False)
        return self._wakeup[0]

    def durable(self) -> list[Reply]:
        """What may be said now. Failed when the disk failed: then nothing may be, ever again."""
        if self._wakeup:
            try:
                os.read(self._wakeup[0], 4096)
            except BlockingIOError:
                pass
        with self._change:
            if self.failure:
                raise self.failure
            replies, self._sayable = self._sayable, []
        return replies

    def due(self) -> bool:
        """Whether it is time for a snapshot: give `keep` one then."""
        with self._change:
            if self._copy is not None or self._closing or self.failure:
                return False
            since = self._clock() - self._copied_at
            if self._lost is not None:
                return since > max(RETRY_S, 4.0 * self._copying_s)
            worth = self._spent_s > REPLAY_S or self._spent_bytes > REPLAY_BYTES
            return worth and since > self._copying_s / SNAPSHOT_SHARE

    def keep(self, state: State) -> None:
        """Have `state`, the pipeline's after the last step appended, written as a snapshot once it is whole."""
        with self._change:
            self._copy = state
            # it may reach the disk before the steps that wait, should they be let go of before it is written
            waiting = [*self._group, *self._waiting]
            self._copied = {row: weights for one in waiting for row, weights in one.copies.items()}
            self._copied |= {row: weights for row, (_, weights) in self._owed.items()}
            self._copied_at = self._clock()
            self._spent_s, self._spent_bytes = 0.0, 0
            self._notify()

    def whole(self) -> None:
        """Take in that the state given to `keep` has been copied to its end."""
        with self._change:
            self._copied_at = self._clock()
            self._notify()

    def told(self) -> dict[str, float]:
        """The figures, as counters of the scoreboard."""
        with self._change:
            self.figures.waiting = len(self._waiting) + len(self._group)
            self.figures.held = int(self._lost is not None)
            return {f"journal_{name}": float(number) for name, number in asdict(self.figures).items()}

    # ---- for the threads

    def commit(self) -> bool:
        """Take to the disk what is waiting, in one commit; false where that cannot be done now."""
        with self._change:
            if not self._committable():
                return False
            if not self._group:
                self._group = _cut(self._waiting)
                self._awaited = bool(self._waiting)
            group, named, due = self._group, self._group[-1].named, len(self._due)
            late = [change for _, change in sorted(self._due, key=lambda pair: pair[0])]
            changes = late + [change for waiting in group for change in waiting.changes]
        entries = [waiting.entry for waiting in group]
        samples = sum(len(entry.batch) for entry in entries)
        blob = self._encoder.blob(entries)
        commit = Commit(entries[0].step, len(entries), samples, self._life, entries[-1].now, blob)
        events = [event for waiting in group for event in waiting.events]
        changed = {row: weights for waiting in group for row, weights in waiting.copies.items()}
        copies = {row: copied.encode(weights) if weights else None for row, weights in changed.items()}
        began = self._clock()
        try:
            self.disk.commit(commit, self._names[self._named : named], self._named, events, changes, copies=copies)
        except Full:
            self._full()
            return False
        except Failed as failure:
            self.fail(failure)
            return False
        with self._change:
            self._named = named
            self._group = []
            del self._due[:due]
            self._weight -= sum(entry.weight for entry in entries)
            self._spent_bytes += len(blob)
            self.figures.full = 0
            self.figures.commits += 1
            self.figures.samples += samples
            self.figures.commit_seconds += self._clock() - began
            self._say(reply for waiting in group for reply in waiting.replies)
            if self._copy is not None or self._closing:
                self._notify()
        self._tidy(commit.time)
        return True

    def write(self) -> bool:
        """Take the snapshot that was given to `keep` to the disk; false where that cannot be done now."""
        with self._change:
            if not self._writable():
                return False
            state = self._copy
            copies = self._copied
        assert state is not None
        if copies:
            copied.attach(state, copies)
        try:
            self.disk.save(state.step, snapshot.encode(state))
        except Full:
            with self._change:
                self.figures.full = 1
                self._copying_s = self._clock() - self._copied_at
                self._copy = None
                if self._lost is not None:
                    self._lose(self._waiting)
            return False
        except Failed as failure:
            self.fail(failure)
            return False
        with self._change:
            self.figures.full = 0
            self.figures.snapshots += 1
            self._copying_s = self._clock() - self._copied_at
            self.figures.snapshot_seconds += self._copying_s
            self._kept = (self._kept[1], state.step)
            if self._mending():
                self._lost = None
                held, self._held = list(self._held.values()), {}
                self._say(held)
            self._copy = None
            self._notify()
        return True

    def fail(self, failure: Failed) -> None:
        """The disk failed: no more is written, and nothing more is acknowledged."""
        self.disk.mark(suspect=True)
        with self._change:
            self.failure = failure
            self._wake()
            self._notify()

    def gather(self, timeout_s: float) -> bool:
        """Wait until `commit` is worth it, or for `timeout_s`; false once the journal is closed and has nothing left
        to do."""
        with self._change:
            self._came.wait_for(lambda: self._committable() or self._ended(), timeout_s)
            self._came.wait_for(lambda: self._awaited or self._closing or not self._committable(), GATHER_S)
            return not self._ended()

    def wait(self, timeout_s: float) -> bool:
        """Wait until `write` has something to do, or for `timeout_s`; false as `gather` is."""
        with self._change:
            self._change.wait_for(lambda: self._writable() or self._ended(), timeout_s)
            return not self._ended()

    def committable(self) -> bool:
        """Whether `commit` has something to do."""
        with self._change:
            return self._committable()

    def writable(self) -> bool:
        """Whether `write` has something to do."""
        with self._change:
            return self._writable()

    def close(self, timeout_s: float) -> None:
        """No more steps come: wait until the disk has all that is waiting, or the time is over."""
        with self._change:
            self._closing = True
            self._notify()
            self._change.wait_for(self._ended, timeout_s)

    # ---- under the lock

    def _notify(self) -> None:
        self._came.notify_all()
        self._change.notify_all()

    def _ended(self) -> bool:
        done = not (self._waiting or self._group or self._copy)
        return self.failure is not None or (self._closing and done)

    def _committable(self) -> bool:
        if self.failure or self._lost is not None or self._clock() < self._retry_at:
            return False
        return bool(self._group or self._waiting)

    def _writable(self) -> bool:
        """A snapshot may be ahead of the journal only where that has holes: so the older one and the journal lead
        to it.
        """
        if self.failure or self._copy is None or not self._copy.whole:
            return False
        first = (self._group or self._waiting)[:1]
        return self._lost is not None or not first or first[0].entry.step > self._copy.step

    def _mending(self) -> bool:
        """Whether the snapshot on its way is later than the last step let go of."""
        return self._lost is not None and self._copy is not None and self._copy.step >= self._lost

    def _lose(self, waiting: list[Waiting]) -> None:
        self._lost = self.step
        for entry, replies, _, copies, changes, _ in waiting:
            self._due += [(entry.step, change) for change in changes]
            self.figures.skipped += len(entry.batch)
            # the newest steps are let go of first
            self._owed |= {
                row: (entry.step, weights)
                for row, weights in copies.items()
                if entry.step > self._owed.get(row, (0, None))[0]
            }
            if changes:
                # An order is done when the next commit has it, which nobody may wait for: it stays unanswered.
                continue
            for reply in replies:
                # of two acknowledgements to one peer the later says it all
                self._held.pop((reply.peer, reply.seq), None)
                self._held[reply.peer, reply.seq] = reply
        while len(self._held) > HELD_MAX:
            del self._held[next(iter(self._held))]
        if waiting is self._waiting:
            self._waiting = []
        self._weight = sum(one.entry.weight for one in self._group)

    def _say(self, replies: Iterable[Reply]) -> None:
        before = len(self._sayable)
        self._sayable += replies
        if len(self._sayable) > before:
            self._wake()

    def _wake(self) -> None:
        if self._wakeup:
            try:
                os.write(self._wakeup[1], b"\0")
            except BlockingIOError:
                pass

    def _full(self) -> None:
        with self._change:
            self.figures.full = 1
            self._retry_at = self._clock() + RETRY_S
            if self._lost is not None:
                group, self._group = self._group, []
                self._lose(group + self._waiting)
                self._waiting = []

    def _tidy(self, now: float) -> None:
        try:
            self.figures.bytes = self.disk.tidy(self._kept[0], now - self._age_s, self._bytes_max)
        except Full:
            pass
        except Failed as failure:
            self.fail(failure)


def _cut(waiting: list[Waiting]) -> list[Waiting]:
    """Take from the front as much as goes into one commit."""
    weight = count = 0
    while count < len(waiting) and weight <= COMMIT_MAX:
        weight += waiting[count].entry.weight
        count += 1
    group = waiting[:count]
    del waiting[:count]
    return group
