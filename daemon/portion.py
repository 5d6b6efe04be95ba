"""A batch dealt out in portions, so that no step lasts for ever.

Many samples of one series cost a round each, a hundred times what they cost beside samples of other series. A bound on
the samples of a batch would let a single message of one series hold up everybody, and the heartbeat.
"""

from __future__ import annotations

from collections import Counter

from .batch import Batch

#: Seconds a step should last at most.
STEP_S = 0.1
#: How many samples of one series a portion has at first, and at most.
ROUNDS, ROUNDS_MAX = 1_000, 2_000


class Portions:
    """What is left of a batch. `put` a batch when nothing is left, `take` portions of it until nothing is."""

    def __init__(self) -> None:
        self._left: Batch | None = None
        self._rounds = ROUNDS

    def __bool__(self) -> bool:
        return self._left is not None

    def put(self, batch: Batch) -> None:
        self._left = batch

    def take(self) -> Batch:
        """The next portion: samples from the front on, none of whose series comes more often than a step has rounds.
        Refusals go with the first."""
        batch = self._left
        if batch is None:
            raise LookupError("nothing is left")
        end = self._end(batch.series)
        if end == len(batch):
            self._left = None
            return batch
        portion, self._left = _split(batch, end)
        return portion

    def pace(self, rounds: int, seconds: float) -> None:
        """Learns from a step how many rounds fit into one."""
        if seconds > STEP_S:
            self._rounds = max(int(rounds * STEP_S / seconds), 1)
        elif rounds >= self._rounds:
            self._rounds = min(2 * self._rounds, ROUNDS_MAX)

    def _end(self, series: list[str]) -> int:
        rounds = self._rounds
        if len(series) <= rounds or max(Counter(series).values()) <= rounds:
            return len(series)
        seen: dict[str, int] = {}
        for place, name in enumerate(series):
            times = seen.get(name, 0)
            if times == rounds:
                return place
            seen[name] = times + 1
        return len(series)


def _split(batch: Batch, at: int) -> tuple[Batch, Batch]:
    """The batch as two, the second from sample `at` on; so are the parcels that lie across it."""
    front, back = [], []
    for p in batch.parcels:
        if p.stop <= at:
            front.append(p)
        elif p.start >= at:
            back.append(p._replace(start=p.start - at, stop=p.stop - at))
        else:
            front.append(p._replace(stop=at))
            seq = p.seq + at - p.start if p.seq else 0
            back.append(p._replace(start=0, stop=p.stop - at, seq=seq))
    return (
        Batch(batch.series[:at], batch.value[:at], batch.time[:at], front, batch.refused),
        Batch(batch.series[at:], batch.value[at:], batch.time[at:], back),
    )
