"""A numbered sample is taken once and in order."""

from __future__ import annotations

import pytest

from forecastd.daemon.batch import Parcel
from forecastd.daemon.ledger import PASSING, Ledger


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


def named(name: str, seq: int = 1) -> Parcel:
    return Parcel(0, 1, b"peer", True, name, 0, seq)


def test_those_without_a_name_are_forgotten_the_longest_unheard_of_first() -> None:
    """A tenth of the limit at a time; what they missed stays counted."""
    ledger = Ledger(20)
    ledger.accept(named("plc"))
    ledger.accept(named(f"{PASSING}0", seq=4))
    for n in range(1, 19):
        ledger.accept(named(f"{PASSING}{n}"))
    ledger.accept(named(f"{PASSING}1", seq=2))
    assert (len(ledger.accounts), ledger.gaps) == (20, 3)
    assert ledger.accept(named("new")) == 0
    assert {f"{PASSING}0", f"{PASSING}2"} & set(ledger.accounts) == set()
    assert {f"{PASSING}1", "plc", "new"} <= set(ledger.accounts)
    assert (len(ledger.accounts), ledger.gaps) == (19, 3)


def test_who_has_a_name_is_never_forgotten_and_a_new_one_waits_outside() -> None:
    """However many come: the next sample of a known one is a duplicate or the next one, as ever."""
    ledger = Ledger(20)
    for n in range(20):
        assert ledger.accept(named(f"plc-{n}")) == 0
    for n in range(1000):
        assert ledger.accept(named(f"flood-{n}")) is None
        assert ledger.accept(named(f"{PASSING}{n}")) is None
    assert [ledger.accept(named("plc-0")), ledger.accept(named("plc-0", seq=2))] == [1, 0]
    assert len(ledger.accounts) == 20


def test_a_crowd_without_names_takes_no_more_room_than_there_is() -> None:
    """A new one of them is always taken."""
    ledger = Ledger(100)
    ledger.accept(named("plc"))
    for n in range(5_000):
        assert ledger.accept(named(f"{PASSING}{n}")) == 0
        assert len(ledger.accounts) <= 100
    assert ledger.accept(named("plc")) == 1
