"""The door of the pipeline: which samples of a batch are taken, and by what name the others are refused.

Nothing here raises: a bad sample is a counter and, where its producer numbers its samples, a reply.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from math import inf

import numpy as np
from numpy.typing import NDArray

from .batch import REASONS, Batch, Parcel, Reply
from .ledger import Ledger
from .settings import Limits

#: Larger numbers would be infinite in single precision or when squared; they are refused as `nonfinite`.
VALUE_MAX = 1e30


class Admission:
    """Names, ledger and refusals. `names` and `rows` map rows to series and back."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ledger = Ledger(limits.producers)
        self.names: list[str] = []
        self.rows: dict[str, int] = {}
        #: how many series each producer brought, by name; those without a name are one
        self.brought: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def rows_of(self, batch: Batch, now: float) -> tuple[NDArray[np.intp], list[Reply], list[Reply]]:
        """The row of each sample of `batch`, negative where it is not taken; the refusals to be told, and the
        acknowledgements.

        Known series keep their row, new ones get the next. Lateness is for the caller to see: it depends on the
        samples before. What is refused is told before the acknowledgement that covers it.
        """
        if batch.refused:
            self.refused.update(batch.refused)
        if batch.rows is None:
            row = np.array([self.rows.get(name, -1) for name in batch.series], np.intp)
        else:
            # A series that is new with this step has no row yet.
            row = np.where(batch.rows < len(self.names), batch.rows, -1)
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

    def row_of(self, batch: Batch, value: float, time: float, now: float) -> tuple[int, list[Reply]] | None:
        """`rows_of` for a batch of one sample, of this `value` and `time`: its row, negative where it was seen before,
        and the acknowledgements. None, and nothing done, where there is more to be said."""
        number = self.rows.get(batch.series[0], -1)
        sound = abs(value) <= VALUE_MAX and time != -inf and not time > now + self.limits.future_s
        if number < 0 or batch.refused or not sound:
            return None
        if not batch.parcels[0].seq:
            return number, []
        if not self.ledger.has_room(batch.parcels[0]):
            return None
        row = [number]
        _, acks = self._sequence(batch, row)
        return row[0], acks

    def _enter_all(self, batch: Batch, row: NDArray[np.intp], replies: list[Reply]) -> None:
        """Give new series their rows."""
        refused: dict[str, list[int]] = {"name": [], "too_many_series": []}
        parcels = iter(batch.parcels)
        parcel = next(parcels)
        for place in np.flatnonzero(row == -1).tolist():
            while place >= parcel.stop:
                parcel = next(parcels)
            name = batch.series[place]
            known = self.rows.get(name)
            if known is not None:
                row[place] = known
            elif not _is_name(name, self.limits.name_bytes):
                refused["name"].append(place)
            elif self._is_full(parcel.producer):
                refused["too_many_series"].append(place)
            else:
                row[place] = self._enter(name, parcel.producer)
        for reason, places in refused.items():
            self.refuse(batch, row, replies, np.array(places, np.intp), reason)
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

    def _is_full(self, producer: str) -> bool:
        return len(self.names) >= self.limits.series or self.brought[producer] >= self.limits.series_per_producer

    def _enter(self, name: str, producer: str) -> int:
        row = self.rows[name] = len(self.names)
        self.names.append(name)
        self.brought[producer] += 1
        return row

    def _sequence(self, batch: Batch, row: NDArray[np.intp] | list[int]) -> tuple[list[Reply], list[Reply]]:
        """Mark samples that were seen before, or come too early, with -2; acknowledge what each producer is past."""
        acks: dict[tuple[bytes, str], int] = {}
        replies: list[Reply] = []
        for parcel in batch.parcels:
            if not parcel.seq:
                continue
            before = self.ledger.accounts.get(parcel.producer)
            seen = before.duplicates if before else 0
            passed = self.ledger.accept(parcel)
            if passed is None:
                assert isinstance(row, np.ndarray)  # `row_of` has asked whether there is room
                self._turn_away(batch, row, replies, parcel)
                continue
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

    def _turn_away(self, batch: Batch, row: NDArray[np.intp], replies: list[Reply], parcel: Parcel) -> None:
        """A producer that there is no room for: it is told, and gets no acknowledgement."""
        self.refuse(batch, row, replies, np.arange(parcel.start, parcel.stop), "too_many_producers")
        if parcel.refused and parcel.peer:
            replies.append(Reply(parcel.peer, refused="too_many_producers", seq=parcel.seq))


def _is_name(name: str, size_max: int) -> bool:
    """Printable, no blank at either end, and not too long."""
    if not name or name != name.strip() or not name.isprintable():
        return False
    return len(name) <= size_max and len(name.encode("utf-8", "surrogatepass")) <= size_max
