"""Who has sent what: the sequence numbers of producers, by which a sample is taken once and in order.

A producer numbers its samples from 1 in each epoch of its life. On a lossless socket what comes too early is not
accepted, since it will be sent again; elsewhere the jump is counted and the samples are taken."""

from __future__ import annotations

from dataclasses import dataclass

from .batch import Parcel


@dataclass(slots=True)
class Account:
    """One producer: the last number taken in its present epoch, and totals over all epochs."""

    epoch: int
    seq: int = 0
    samples: int = 0
    duplicates: int = 0
    gaps: int = 0


class Ledger:
    """The accounts of all producers, by name. The pipeline alone writes to it."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def accept(self, parcel: Parcel) -> int:
        """How many samples at the front of `parcel` are to be passed over; all of them where none may be taken.

        Whatever is passed over is a duplicate, but for a lossless parcel that comes too early: that one counts as not
        seen."""
        size = parcel.size
        account = self.accounts.get(parcel.producer)
        if account is None:
            account = self.accounts[parcel.producer] = Account(parcel.epoch)
        if parcel.epoch < account.epoch:
            account.duplicates += size
            return size
        if parcel.epoch > account.epoch:
            account.epoch, account.seq = parcel.epoch, 0
        ahead = parcel.seq - (account.seq + 1)
        if ahead > 0:
            account.gaps += ahead
            if parcel.lossless:
                return size
        known = min(max(-ahead, 0), size)
        account.duplicates += known
        account.seq = max(account.seq, parcel.seq + size - 1)
        account.samples += 0 if parcel.refused else size - known
        return known

    @property
    def gaps(self) -> int:
        """Numbers missed so far, over all producers."""
        return sum(account.gaps for account in self.accounts.values())
