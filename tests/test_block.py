"""Blocks as messages: what the daemon's own wire reads out of them is what was put in."""

from __future__ import annotations

from array import array
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecastd.daemon.settings import Limits
from forecastd.daemon.wire import Inbox, Origin
from forecastd.producers.block import NAMES_BYTES_MAX, SAMPLES_MAX, SAMPLES_WIDE_MAX, Block

PEER = Origin(b"\0\0peer", True, "somebody")


def block(series: str | list[str], value: list[float], time: list[float]) -> Block:
    return Block(series, array("d", value), array("d", time))


@pytest.mark.parametrize(
    ("sent", "names", "times"),
    [
        (block("a", [1.5], [7.0]), ["a"], [7.0]),
        (block(["a"], [1.5], [7.0]), ["a"], [7.0]),
        (block("a", [1.5], [nan]), ["a"], [nan]),
        (block("a", [1.5, 2.5], [7.0, 8.0]), ["a", "a"], [7.0, 8.0]),
        (block(["a", "ü"], [1.5, 2.5], [7.0, 8.0]), ["a", "ü"], [7.0, 8.0]),
        (block(["a", "b", "a"], [1, 2, 3], [7.0]), ["a", "b", "a"], [7.0] * 3),
        (block(["a", "b"], [1, 2], [nan]), ["a", "b"], [nan] * 2),
        (block(["a", "b"], [1, 2], [nan, 8.0]), ["a", "b"], [nan, 8.0]),
    ],
)
def test_the_wire_reads_what_was_sent(sent: Block, names: list[str], times: list[float]) -> None:
    inbox = Inbox(Limits())
    inbox.add(sent.frames("plc-7", 3, 41), PEER)
    batch = inbox.take()
    assert not batch.refused
    assert batch.series == names
    np.testing.assert_array_equal(batch.value, list(sent.value))
    np.testing.assert_array_equal(batch.time, times)
    [parcel] = batch.parcels
    assert (parcel.producer, parcel.epoch, parcel.seq, parcel.lossless) == ("plc-7", 3, 41, True)
    assert (parcel.start, parcel.stop) == (0, len(sent))


def test_a_time_left_to_the_daemon_is_not_in_the_message() -> None:
    assert b"time" not in block("a", [1.0], [nan]).frames("p", 1, 1)[0]
    assert len(block(["a", "b"], [1.0, 2.0], [nan]).frames("p", 1, 1)) == 2


def test_a_long_run_of_one_series_is_cut_into_messages() -> None:
    whole = block("a", [float(k) for k in range(2500)], [float(k) for k in range(2500)])
    parts = whole.split(10_000)
    assert [len(part) for part in parts] == [SAMPLES_MAX, SAMPLES_MAX, 500]
    assert [value for part in parts for value in part.value] == list(whole.value)
    assert [time for part in parts for time in part.time] == list(whole.time)
    assert [len(part) for part in whole.split(600)] == [600, 600, 600, 600, 100]


def test_many_series_go_in_one_message_as_long_as_their_names_fit() -> None:
    names = [f"series-{k}" for k in range(SAMPLES_WIDE_MAX)]
    wide = block(names, [0.0] * len(names), [7.0])
    frames = [part.frames("p", 1, 1) for part in wide.split(50_000)]
    assert sum(map(len, wide.split(50_000))) == len(names)
    assert all(len(frame) < NAMES_BYTES_MAX + 200 for message in frames for frame in message)
    long = block(["ü" * 200 for _ in range(5000)], [0.0] * 5000, [7.0])
    assert all(len(part.frames("p", 1, 1)[0]) < NAMES_BYTES_MAX + 200 for part in long.split(50_000))


def test_a_part_shares_nothing_with_the_whole() -> None:
    whole = block(["a", "b"], [1, 2], [7.0])
    part = whole.part(1, 2)
    part.time.append(9.0)
    part.value.append(3.0)
    assert whole.time.tolist() == [7.0] and whole.value.tolist() == [1, 2]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40), st.data())
def test_values_cross_to_the_last_bit(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    whole = block("a", values, [float(k) for k in range(len(values))])
    inbox = Inbox(Limits())
    seq = 1
    for part in (whole.part(0, cut), whole.part(cut, len(values))):
        if len(part):
            inbox.add(part.frames("p", 1, seq), PEER)
            seq += len(part)
    batch = inbox.take()
    assert batch.value.tobytes() == np.array(values).tobytes()
    assert len(batch.parcels) == 1
    assert not any(isnan(time) for time in batch.time)
