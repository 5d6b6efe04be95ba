"""The door of the pipeline: which samples of a batch are taken, and by what name the others are refused.

Nothing here raises: a bad sample is a counter and, where its producer numbers its samples, a reply.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from math import inf

import numpy as np
from numpy.typing import NDArray

from .batch import REASONS, Batch, Reply
from .ledger import Ledger
from .settings import Limits

#: Larger numbers would be infinite in single precision or when squared; they are refused as `nonfinite`.
VALUE_MAX = 1e30


class Admission:
    """Names, ledger and refusals. `names` and `rows` map rows to series and back."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ledger = Ledger()
        self.names: list[str] = []
        self.rows: dict[str, int] = {}
        self.refused: Counter[str] = Counter()

    def rows_of(self, batch: Batch, now: float) -> tuple[NDArray[np.intp], list[Reply], list[Reply]]:
        """The row of each sample of `batch`, negative where it is not taken; the refusals to be told, and the
        acknowledgements.

        Known series keep their row, new ones get the next. Lateness is for the caller to see: it depends on the
        samples before. What is refused is told before the acknowledgement that covers it.
        """
        if batch.refused:
            self.refused.update(batch.refused)
        row = np.array([self.rows.get(name, -1) for name in batch.series], np.intp)
        replies, acks = self._sequence(batch, row)
        time, limit = batch.time, now + self.limits.future_s
        sound = np.abs(batch.value) <= VALUE_MAX
        # neither comparison holds for a time that was not given
        future, odd = time > limit, np.abs(time) == np.inf
        if future.any() or odd.any() or not sound.all():
            taken = row > -2
            for reason, bad in (("nonfinite", ~sound | odd), ("future", future)):
                self.refuse(batch, row, replies, np.flatnonzero(taken & bad), reason)
                taken &= ~bad
        if int(row.min(initial=0)) < 0:
            self._enter_all(batch, row, replies)
        return row, replies, acks

    def row_of(self, batch: Batch, now: float) -> tuple[int, list[Reply]] | None:
        """`rows_of` for a batch of one sample in plain numbers: its row, negative where it was seen before, and the
        acknowledgements. None, and nothing done, where there is more to be said."""
        row = [self.rows.get(batch.series[0], -1)]
        value, time = batch.sample(0)
        sound = abs(value) <= VALUE_MAX and time != -inf and not time > now + self.limits.future_s
        if row[0] < 0 or batch.refused or not sound:
            return None
        _, acks = self._sequence(batch, row)
        return row[0], acks

    def _enter_all(self, batch: Batch, row: NDArray[np.intp], replies: list[Reply]) -> None:
        """Give new series their rows."""
        for place in np.flatnonzero(row == -1).tolist():
            row[place] = self._enter(batch.series[place])
            if row[place] < 0:
                reason = "too_many_series" if _is_name(batch.series[place], self.limits.name_bytes) else "name"
                self.refuse(batch, row, replies, np.array([place]), reason)
        row[row < 0] = -1

    def refuse(
        self, batch: Batch, row: NDArray[np.intp], replies: list[Reply], places: NDArray[np.intp], reason: str
    ) -> None:
        """Take the samples at `places` out and tell their producers, if those number them."""
        if not len(places):
            return
        assert reason in REASONS
        self.refused[reason] += len(places)
        row[places] = -2
        ends = [parcel.stop for parcel in batch.parcels]
        for place in places.tolist():
            parcel = batch.parcels[bisect_right(ends, place)]
            if parcel.seq and parcel.peer:
                replies.append(Reply(parcel.peer, refused=reason, seq=parcel.seq + place - parcel.start))

    def _enter(self, name: str) -> int:
        known = self.rows.get(name)
        if known is not None:
            return known
        if len(self.names) >= self.limits.series or not _is_name(name, self.limits.name_bytes):
            return -2
        self.rows[name] = len(self.names)
        self.names.append(name)
        return self.rows[name]

    def _sequence(self, batch: Batch, row: NDArray[np.intp] | list[int]) -> tuple[list[Reply], list[Reply]]:
        """Mark samples that were seen before, or come too early, with -2; acknowledge what each producer is past."""
        acks: dict[tuple[bytes, str], int] = {}
        replies = []
        for parcel in batch.parcels:
            if not parcel.seq:
                continue
            before = self.ledger.accounts.get(parcel.producer)
            seen = before.duplicates if before else 0
            passed = self.ledger.accept(parcel)
            account = self.ledger.accounts[parcel.producer]
            if not parcel.refused:
                row[parcel.start : parcel.start + passed] = [-2] * passed
            elif parcel.peer and not passed:
                replies.append(Reply(parcel.peer, refused=parcel.refused, seq=parcel.seq))
            if account.duplicates > seen:
                self.refused["duplicate"] += account.duplicates - seen
            if parcel.peer:
                acks[parcel.peer, parcel.producer] = account.seq
        return replies, [Reply(peer, ack=seq) for (peer, _), seq in acks.items()]


def _is_name(name: str, size_max: int) -> bool:
    """Printable, no blank at either end, and not too long."""
    if not name or name != name.strip() or not name.isprintable():
        return False
    return len(name) <= size_max and len(name.encode("utf-8", "surrogatepass")) <= size_max
