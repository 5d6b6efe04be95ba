"""A batch dealt out from the front, so that no step lasts for ever.

A bound on the samples of a batch would let a single message of one series hold up everybody, and the heartbeat: its
samples cost a round each.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np

from .batch import Batch, Parcel


@dataclass(slots=True)
class Share:
    """What a portion may have: samples, how many of them of one series, and how many series that are not known yet."""

    samples: int
    rounds: int
    new: int

    def __bool__(self) -> bool:
        return self.samples > 0 and self.rounds > 0 and self.new > 0


class Portions:
    """What is left of a batch: true until all of it has been taken."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._start = self._parcel = 0
        self._left = True

    def __bool__(self) -> bool:
        return self._left

    def take(self, share: Share, known: Container[str] = ()) -> Batch:
        """As much as the share allows, which is then smaller by it. Refusals go with the first portion. `known` are the
        series there are."""
        batch, start = self._batch, self._start
        # A rest that is not worth a step of its own goes with the others.
        whole = len(batch) - start <= share.samples + share.samples // 2
        stop = self._end(len(batch) if whole else start + share.samples, share, known)
        share.samples -= max(stop - start, 1)
        self._start, self._left = stop, stop < len(batch)
        if not start and not self._left:
            return batch
        return Batch(
            batch.series[start:stop],
            batch.value[start:stop],
            batch.time[start:stop],
            self._parcels(start, stop),
            {} if start else batch.refused,
        )

    def _end(self, stop: int, share: Share, known: Container[str]) -> int:
        """Where the portion ends."""
        series, seen = self._batch.series, dict[str, int]()
        rounds, new, most = share.rounds, share.new, 0
        for place in range(self._start, stop):
            name = series[place]
            times = seen.get(name, 0)
            if times == rounds:
                stop = place
                break
            if not times and name not in known:
                if not new:
                    stop = place
                    break
                new -= 1
            seen[name] = times = times + 1
            if times > most:
                most = times
        share.rounds, share.new = rounds - most, new
        return stop

    def _parcels(self, start: int, stop: int) -> list[Parcel]:
        """The parcels from `start` on, as if the portion were a batch; one that lies across its end is cut."""
        parcels, found = self._batch.parcels, []
        while self._parcel < len(parcels):
            p = parcels[self._parcel]
            if p.start > stop or (p.start == stop and p.stop > stop):
                break
            first = max(p.start, start)
            seq = p.seq + first - p.start if p.seq else 0
            found.append(p._replace(start=first - start, stop=min(p.stop, stop) - start, seq=seq))
            if p.stop > stop:
                break
            self._parcel += 1
        return found


def joined(batches: list[Batch]) -> Batch:
    """Batches one after the other as one."""
    if len(batches) == 1:
        return batches[0]
    series: list[str] = []
    parcels: list[Parcel] = []
    refused: dict[str, int] = {}
    for batch in batches:
        at = len(series)
        series += batch.series
        parcels += [p._replace(start=p.start + at, stop=p.stop + at) for p in batch.parcels]
        for reason, count in batch.refused.items():
            refused[reason] = refused.get(reason, 0) + count
    value, time = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("value", "time"))
    return Batch(series, value, time, parcels, refused)
