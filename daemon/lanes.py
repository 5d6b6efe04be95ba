"""Who waits for whom: small messages go straight into the next batch, a dear one waits in the lane of its sender.

What a message costs is known when it has been read and gone through the pipeline, which may be a second later. So a
large one is only kept as it came. In each turn of the engine the senders of such messages have a step together, of a
length that is bounded; all others go before it. A sender's messages stay in their order: behind one that waits, small
ones wait, too. Without an identity (PULL, SUB) all who send to a socket are one sender.

What waits is bounded. Who is alone on a socket, and PULL and SUB as a whole, are then held back by ZeroMQ's queues. On
a ROUTER with several senders that would hold back all of them: there, who has his share of the room loses what he
sends beyond it, and sends it again if he numbers his samples.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Container, Sequence
from itertools import islice
from typing import NamedTuple

from .batch import Batch, Reply
from .pace import Pace
from .portion import Portions, Share, joined
from .settings import Limits
from .wire import NOWHERE, Inbox, Origin

#: Bytes of a message that is not taken in at once: some ten samples as JSON, 128 as columns.
DEAR_BYTES = 1_024
#: Bytes that wait in all lanes; with more, a sender has to keep to his share of them.
WAITING_MAX = 128 << 20
#: Bytes a turn takes off the sockets to wait: each sender's next message is among the first.
TURN_BYTES = 1 << 19
#: Bytes that wait up to which more is sought in each turn: a sender who has to wait for that of another one otherwise
#: waits for two turns.
BEHIND_BYTES = 4 << 20
#: Seconds a turn may spend on reading what waits.
READ_S = 0.001
#: Seconds that steps should last at most, of what goes straight in and of what waits.
STEP_S, SLOW_S = 0.02, 0.02
#: Series not known yet that a step of what waits may have, some 17 µs each.
NEW_MAX = 32
#: Senders whose messages are read at the same time: a message takes ten times its bytes when it has been read.
OPEN_MAX = 16


class Dealt(NamedTuple):
    """A step's worth of what waited: `marks` say when each message came, and where in the batch its samples end."""

    batch: Batch
    marks: list[tuple[float, int]]
    told: list[Reply]


class _Lane:
    """The messages of one sender, in their order."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[float, Sequence[bytes], Origin]] = deque()
        #: bytes of all its messages
        self.size = 0
        #: what is left of the message that has been read, its bytes, and when it came
        self.open: Portions | None = None
        self.open_size = 0
        self.came = 0.0


class Reception(Inbox):
    """An inbox that a dear message does not get into; `deal` has those. `known` are the series there are."""

    def __init__(self, limits: Limits, known: Container[str] = ()) -> None:
        super().__init__(limits)
        self._known = known
        #: of what goes straight in, and of what waits
        self.pace, self.slow = Pace(STEP_S), Pace(SLOW_S)
        self.waiting = self._parked = 0
        self._lanes: dict[bytes | str, _Lane] = {}
        self._reader = Inbox(limits)

    @property
    def room(self) -> int:
        """Samples still to be taken into this batch; 0 also where this turn has had enough messages wait."""
        if self._parked >= TURN_BYTES:
            return 0
        return min(self.limits.batch_samples, self.pace.samples) - self.size - self._refusals

    @property
    def full(self) -> bool:
        """Whether so much waits that whoever can be held back alone is to be."""
        return self.waiting >= WAITING_MAX

    @property
    def behind(self) -> bool:
        """Whether something waits, though not much."""
        return 0 < self.waiting < BEHIND_BYTES

    def add(self, frames: Sequence[bytes], origin: Origin = NOWHERE) -> None:
        """Takes one message, or has it wait; refuses it where too much waits already, of its sender above all."""
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        if size <= DEAR_BYTES and not self._lanes:
            return super().add(frames, origin)
        sender = origin.peer or origin.name
        lane = self._lanes.get(sender)
        if lane is None:
            if size <= DEAR_BYTES:
                return super().add(frames, origin)
            lane = self._lanes[sender] = _Lane()
        if self.full and lane.size * len(self._lanes) >= WAITING_MAX:
            return self.refuse("overload")
        lane.waiting.append((time.perf_counter(), frames, origin))
        lane.size += size
        self.waiting += size
        self._parked += size
        return None

    @property
    def lanes(self) -> int:
        """How many senders have messages that wait."""
        return len(self._lanes)

    def deal(self) -> Dealt:
        """What goes into the next step of all that waits: of each sender an equal share."""
        self._parked = 0
        batches: list[Batch] = []
        marks: list[tuple[float, int]] = []
        told: list[Reply] = []
        count, lanes = 0, list(islice(self._lanes.items(), OPEN_MAX))
        samples, new = max(self.slow.samples // len(lanes), 1), max(NEW_MAX // len(lanes), 1)
        for sender, lane in lanes:
            until = time.perf_counter() + READ_S / len(lanes)
            share = Share(samples, self.slow.rounds, new)
            while share and (lane.open or self._read(lane, told)):
                assert lane.open is not None
                batch = lane.open.take(share, self._known)
                batches.append(batch)
                count += len(batch)
                marks.append((lane.came, count))
                if not lane.open:
                    lane.size -= lane.open_size
                    self.waiting -= lane.open_size
                    if len(self._lanes) > OPEN_MAX or time.perf_counter() > until:
                        break
            if not lane.open:
                # Whoever has more to say makes room for those who have not been heard.
                del self._lanes[sender]
                if lane.waiting:
                    self._lanes[sender] = lane
        return Dealt(joined(batches), marks, told)

    def _read(self, lane: _Lane, told: list[Reply]) -> bool:
        """Makes samples of the next message of a lane; false where there is none."""
        if not lane.waiting:
            return False
        lane.came, frames, origin = lane.waiting.popleft()
        lane.open_size = sum(map(len, frames))
        self._reader.add(frames, origin)
        told += self._reader.told
        lane.open = Portions(self._reader.take())
        return True
