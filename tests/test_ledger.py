"""A numbered sample is taken once and in order."""

from __future__ import annotations

import pytest

from forecastd.daemon.batch import Parcel
from forecastd.daemon.ledger import Ledger


def parcel(seq: int, size: int = 1, epoch: int = 0, lossless: bool = True) -> Parcel:
    return Parcel(0, size, b"peer", lossless, "plc-7", epoch, seq)


def test_in_order_everything_is_taken() -> None:
    ledger = Ledger()
    assert [ledger.accept(parcel(1, 3)), ledger.accept(parcel(4))] == [0, 0]
    account = ledger.accounts["plc-7"]
    assert (account.seq, account.samples, account.duplicates, account.gaps) == (4, 4, 0, 0)


def test_what_was_seen_is_passed_over_and_counted() -> None:
    ledger = Ledger()
    ledger.accept(parcel(1, 3))
    assert ledger.accept(parcel(2, 4)) == 2
    account = ledger.accounts["plc-7"]
    assert (account.seq, account.samples, account.duplicates) == (5, 5, 2)


@pytest.mark.parametrize(("lossless", "passed", "seq"), [(True, 1, 1), (False, 0, 5)])
def test_a_jump_is_held_off_where_it_will_be_sent_again_and_only_counted_elsewhere(
    lossless: bool, passed: int, seq: int
) -> None:
    ledger = Ledger()
    ledger.accept(parcel(1))
    assert ledger.accept(parcel(5, lossless=lossless)) == passed
    assert (ledger.accounts["plc-7"].seq, ledger.gaps) == (seq, 3)


def test_a_new_epoch_starts_from_one_and_the_old_life_is_over() -> None:
    ledger = Ledger()
    ledger.accept(parcel(1, 9, epoch=3))
    assert ledger.accept(parcel(1, 2, epoch=4)) == 0
    assert ledger.accept(parcel(10, 1, epoch=3)) == 1
    account = ledger.accounts["plc-7"]
    assert (account.epoch, account.seq, account.samples, account.duplicates) == (4, 2, 11, 1)


def test_what_the_wire_could_not_read_is_dealt_with_and_the_next_number_is_expected() -> None:
    ledger = Ledger()
    ledger.accept(parcel(1))
    assert ledger.accept(Parcel(0, 0, b"peer", True, "plc-7", 0, 2, "malformed", 3)) == 0
    assert ledger.accept(parcel(5)) == 0
    account = ledger.accounts["plc-7"]
    assert (account.seq, account.samples) == (5, 2)
