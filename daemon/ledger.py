"""Who has sent what: the sequence numbers of producers, by which a sample is taken once and in order.

A producer numbers its samples from 1 in each epoch of its life. On a lossless socket what comes too early is not
accepted, since it will be sent again; elsewhere the jump is counted and the samples are taken.

There is room for so many accounts. Who gives no name has one for the length of a connection; when there is no more room
those go first that were not heard of for longest. Who has a name is never forgotten: a sample sent twice would be taken
twice. So where all have names, a new one is refused."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from .batch import Parcel


@dataclass(slots=True)
class Account:
    """One producer: the last number taken in its present epoch, and totals over all epochs."""

    epoch: int
    seq: int = 0
    samples: int = 0
    duplicates: int = 0
    gaps: int = 0


#: What the account of a producer without a name begins with; the rest is ZeroMQ's name for its connection.
PASSING = "\0"


class Ledger:
    """The accounts of all producers, by name, at most `limit`. The pipeline alone writes to it."""

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        self.accounts: dict[str, Account] = {}
        self._gaps_forgotten = 0

    def accept(self, parcel: Parcel) -> int | None:
        """How many samples at the front of `parcel` are to be passed over; all of them where none may be taken. None
        where there is no room for a new producer.

        Whatever is passed over is a duplicate, but for a lossless parcel that comes too early: that one counts as not
        seen."""
        size = parcel.size
        account = self._account(parcel)
        if account is None:
            return None
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

    def has_room(self, parcel: Parcel) -> bool:
        """Whether its producer is known, or need not be, or has room without anybody being forgotten."""
        return parcel.producer in self.accounts or not parcel.seq or len(self.accounts) < self.limit

    def _account(self, parcel: Parcel) -> Account | None:
        name = parcel.producer
        account = self.accounts.get(name)
        if account is None:
            if len(self.accounts) >= self.limit and not self._forget():
                return None
            account = self.accounts[name] = Account(parcel.epoch)
        elif name[:1] == PASSING:
            # Their order is that in which they were last heard of.
            self.accounts[name] = self.accounts.pop(name)
        return account

    def _forget(self) -> bool:
        """Makes room for a tenth of the limit, as far as there are accounts without a name; whether there were."""
        passing = (name for name in self.accounts if name[:1] == PASSING)
        gone = list(islice(passing, max(1, self.limit // 10)))
        for name in gone:
            self._gaps_forgotten += self.accounts.pop(name).gaps
        return bool(gone)

    @property
    def gaps(self) -> int:
        """Numbers missed so far, over all producers."""
        return self._gaps_forgotten + sum(account.gaps for account in self.accounts.values())
