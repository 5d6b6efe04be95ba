"""Who waits for whom: a dear message waits, small ones of others do not, and nobody's own order changes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from forecastd.daemon import lanes
from forecastd.daemon.lanes import DEAR_BYTES, NEW_MAX, OPEN_MAX, TURN_BYTES, Reception
from forecastd.daemon.settings import Limits
from forecastd.daemon.wire import Origin

A, B = Origin(b"\0\0a", True, "a"), Origin(b"\0\0b", True, "b")


def columns(series: str, count: int, seq: int = 0, producer: str = "") -> list[bytes]:
    header = {"columns": 1, "series": series, "seq": seq, "producer": producer}
    return [json.dumps(header).encode(), np.arange(float(count)).tobytes()]


def small(series: str) -> list[bytes]:
    return [series.encode(), b"1"]


@pytest.fixture
def reception() -> Reception:
    return Reception(Limits())


def drained(reception: Reception) -> list[list[str]]:
    """The series of each deal until nothing waits."""
    found = []
    while reception.lanes:
        dealt = reception.deal()
        assert [end for _, end in dealt.marks][-1:] == [len(dealt.batch)]
        found.append(dealt.batch.series)
    return found


def test_a_small_message_goes_straight_in_and_a_dear_one_waits(reception: Reception) -> None:
    """Unless its sender has one that waits: then it waits behind it."""
    reception.add(columns("long", 200), A)
    assert (reception.size, reception.lanes) == (0, 1)
    assert reception.waiting == sum(map(len, columns("long", 200))) > DEAR_BYTES
    reception.add(small("of a"), A)
    reception.add(small("of b"), B)
    assert reception.take().series == ["of b"]
    waited = [name for series in drained(reception) for name in series]
    assert waited == ["long"] * 200 + ["of a"]
    assert reception.waiting == 0
    reception.add(small("of a"), A)
    assert reception.take().series == ["of a"]


def test_a_step_has_so_many_samples_of_a_series_and_no_more(reception: Reception) -> None:
    """Whether they came in one message or in several; the numbers go on where they were cut."""
    reception.slow.rounds = 30
    reception.add(columns("long", 200, seq=1, producer="plc"), A)
    reception.add(columns("long", 130, seq=201, producer="plc"), A)
    sizes, numbers = [], []
    while reception.lanes:
        batch = reception.deal().batch
        sizes.append(len(batch))
        numbers += [n for p in batch.parcels for n in range(p.seq, p.seq + p.size)]
    assert sizes == [30] * 11
    assert numbers == list(range(1, 331))


def test_a_step_has_so_many_new_series_and_no_more() -> None:
    """Those that are known by then do not count."""
    names = [f"n{k}" for k in range(3 * NEW_MAX)]
    known = set(names[:NEW_MAX])
    reception = Reception(Limits(), known)
    reception.add([json.dumps([{"series": name, "value": 1} for name in names]).encode()], A)
    sizes = []
    while reception.lanes:
        batch = reception.deal().batch
        known.update(batch.series)
        sizes.append(len(batch))
    assert sizes == [2 * NEW_MAX, NEW_MAX]


def test_all_who_wait_have_an_equal_share_of_a_step(reception: Reception) -> None:
    """However much one of them has sent, and however long before."""
    for n in range(50):
        reception.add(columns(f"a{n}", 200), A)
    reception.add(columns("b", 200), B)
    reception.slow.rounds = 40
    first = reception.deal().batch.series
    assert first == ["a0"] * 40 + ["b"] * 40


def test_more_senders_than_are_read_at_a_time_take_turns(reception: Reception) -> None:
    """A lane gives its place up when a message of it is done."""
    senders = [Origin(bytes([0, 0, n]), True, str(n)) for n in range(3 * OPEN_MAX)]
    for k in range(2):
        for n, sender in enumerate(senders):
            reception.add(columns(f"{n}", 130, seq=1 + 130 * k), sender)
    order = [name for series in drained(reception) for name in dict.fromkeys(series)]
    assert len({*order}) == len(senders)
    # the last sender is served before the first one's second message has ended
    assert order.index(str(len(senders) - 1)) < len(order) - 1 - order[::-1].index("0")


def test_a_turn_takes_so_much_to_wait_and_no_more(reception: Reception) -> None:
    big = [b"[" * (TURN_BYTES // 2)]
    reception.add(big, A)
    assert reception.room > 0
    reception.add(big, A)
    assert reception.room == 0
    reception.deal()
    assert reception.room > 0


def test_who_is_a_little_behind_says_so(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "BEHIND_BYTES", 2 * TURN_BYTES)
    said = [reception.behind]
    for _ in range(3):
        reception.add([b"[" * TURN_BYTES], A)
        said.append(reception.behind)
    assert said == [False, True, False, False]
    drained(reception)
    assert not reception.behind


def test_where_too_much_waits_a_sender_keeps_to_his_share(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What he says beyond it is refused, small messages, too; that of others is not."""
    message = columns("a", 200)
    size = sum(map(len, message))
    monkeypatch.setattr(lanes, "WAITING_MAX", 4 * size)
    for _ in range(4):
        assert not reception.full
        reception.add(message, A)
    assert reception.full
    reception.add(message, A)
    reception.add(small("of a"), A)
    reception.add(small("of b"), B)
    assert (reception.waiting, reception.refused, reception.take().series) == (4 * size, {"overload": 2}, ["of b"])
    for _ in range(5):
        reception.add(columns("b", 200), B)
    assert (reception.waiting, reception.refused) == (6 * size, {"overload": 3})
    waited = [name for series in drained(reception) for name in series]
    assert (waited.count("a"), waited.count("b"), reception.waiting) == (800, 400, 0)
    reception.add(message, A)
    assert (reception.waiting, reception.full) == (size, False)


def test_what_is_refused_while_it_waits_is_counted_once(reception: Reception) -> None:
    """Also where it is all that the message has."""
    reception.add([b"[" * 5_000], A)
    reception.add([b"[" + b"{}," * 1_000 + b"1]"], B)
    dealt = [reception.deal().batch for _ in range(2) if reception.lanes]
    assert sum(batch.refused["malformed"] for batch in dealt) == 1_002
    assert not reception.lanes


def test_reading_is_bounded_too(reception: Reception, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no samples costs its reading: of each sender one message at least, and no more when the time is up."""
    monkeypatch.setattr(lanes, "READ_S", 0.0)
    for _ in range(5):
        reception.add([b"[" * 5_000], A)
        reception.add([b"[" * 5_000], B)
    counts = []
    while reception.lanes:
        counts.append(reception.deal().batch.refused["malformed"])
    assert counts == [2] * 5
