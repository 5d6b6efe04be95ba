"""A producer at work: its pace, its order, its end. What it sends is read off a real socket by the daemon's wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from forecastd.daemon.settings import Limits
from forecastd.daemon.wire import Inbox
from forecastd.producers.client import Producer
from forecastd.producers.feed import Feed, Pace, play_recordings, play_waves, restamped
from forecastd.producers.playback import Recording
from forecastd.producers.waves import ORIGIN, WAVES

Sent = tuple[list[str], np.ndarray, np.ndarray]


class Line:
    """A producer, and the PULL socket at the other end."""

    def __init__(self, folder: Path) -> None:
        address = f"ipc://{folder}/line"
        self.context = zmq.Context()
        self._socket = self.context.socket(zmq.PULL)
        self._socket.bind(address)
        self.producer = Producer(f"pull+{address}")
        self.notices: list[str] = []

    def feed(self, seconds: float | None = None) -> Feed:
        return Feed(self.producer, seconds, self.notices.append)

    def close(self) -> Sent:
        """Ends the producer; the series, values and times of all it sent."""
        assert self.producer.close()
        inbox = Inbox(Limits())
        while self._socket.poll(200):
            inbox.add(self._socket.recv_multipart())
        batch = inbox.take()
        assert not batch.refused
        return batch.series, batch.value, batch.time


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    line.producer.close()
    line.context.destroy(linger=0)


def test_waves_flat_out_are_sent_side_by_side_and_whole(line: Line) -> None:
    waves = [(["a-1", "a-2"], WAVES["sine"](3, series=2)), (["b"], WAVES["chirp"](3))]
    play_waves(line.feed(), waves, 0.0, 700)
    series, value, time_ = line.close()
    assert series == ["a-1", "a-2", "b"] * 700
    np.testing.assert_array_equal(value.reshape(700, 3)[:, :2], WAVES["sine"](3, series=2).rows(700)[1])
    np.testing.assert_array_equal(value.reshape(700, 3)[:, 2], WAVES["chirp"](3).take(700)[1])
    np.testing.assert_array_equal(time_.reshape(700, 3), np.repeat(ORIGIN + np.arange(700.0), 3).reshape(700, 3))


def test_missing_samples_are_not_sent(line: Line) -> None:
    play_waves(line.feed(), [(["m", "n"], WAVES["missing"](0, series=2))], 0.0, 2000)
    series, value, time_ = line.close()
    there = np.array(series) == "m"
    expected_time, expected = WAVES["missing"](0).take(int(there.sum()))
    np.testing.assert_array_equal(value[there], expected)
    np.testing.assert_array_equal(time_[there], expected_time)
    assert 1700 < there.sum() < 1900
    assert line.producer.stats().refused == {}


def test_a_paced_wave_keeps_its_schedule_and_its_times(line: Line) -> None:
    feed = line.feed(seconds=1.0)
    begin = time.monotonic()
    play_waves(feed, [(["a"], WAVES["sine"](0, step=0.01, start=1000.0))], 100.0, None)
    took = time.monotonic() - begin
    _, _, times = line.close()
    assert 1.0 <= took < 1.5
    assert 95 <= len(times) <= 100
    np.testing.assert_allclose(times, 1000.0 + np.arange(len(times)) / 100)


def test_a_paced_wave_that_was_held_up_catches_up(line: Line) -> None:
    feed = line.feed()
    feed.start -= 0.5  # as if asleep for half a second
    begin = time.monotonic()
    play_waves(feed, [(["a"], WAVES["sine"](0))], 1000.0, 600)
    assert 0.05 < time.monotonic() - begin < 0.3
    assert len(line.close()[0]) == 600


def test_the_pace_is_a_count_since_the_start_so_that_it_does_not_drift() -> None:
    pace = Pace(4.0, 100.0)
    assert [pace.due(now) for now in (99.0, 100.0, 100.24, 100.25, 101.0)] == [0, 1, 1, 2, 5]
    assert pace.moment(3, 100.0) == 100.75
    assert pace.moment(3, 200.0) == 200.001
    assert Pace(0.0, 100.0).due(0.0) == float("inf")


def recording(name: str, times: list[float]) -> Recording:
    return Recording(name, np.array(times), np.arange(len(times), dtype=np.float64))


def test_recordings_flat_out_go_by_their_times(line: Line) -> None:
    recordings = [recording("a", [1, 2, 3, 4]), recording("b", [2.5, 2.75])]
    play_recordings(line.feed(), recordings, None, 0.0, None)
    series, value, times = line.close()
    assert series == ["a", "a", "b", "b", "a", "a"]
    assert times.tolist() == [1, 2, 2.5, 2.75, 3, 4]
    assert value.tolist() == [0, 1, 0, 1, 2, 3]


def test_recordings_at_their_own_pace_take_as_long_as_they_did(line: Line) -> None:
    recordings = [recording("a", [10.0, 10.4, 10.8]), recording("b", [10.2, 11.0])]
    begin = time.monotonic()
    play_recordings(line.feed(), recordings, 2.0, 0.0, None)
    assert 0.5 <= time.monotonic() - begin < 0.8
    series, _, times = line.close()
    assert series == ["a", "b", "a", "a", "b"]
    assert times.tolist() == [10.0, 10.2, 10.4, 10.8, 11.0]


def test_recordings_at_a_rate_take_turns_and_keep_their_times(line: Line) -> None:
    recordings = [recording("a", [10.0, 20.0, 30.0]), recording("b", [5.0, 6.0])]
    begin = time.monotonic()
    play_recordings(line.feed(), recordings, None, 10.0, None)
    assert 0.2 <= time.monotonic() - begin < 0.5
    series, _, times = line.close()
    assert series == ["a", "b", "a", "b", "a"]
    assert times.tolist() == [10, 5, 20, 6, 30]


def test_a_count_is_of_each_series(line: Line) -> None:
    play_recordings(line.feed(), [recording("a", [1, 2, 3]), recording("b", [1])], None, 0.0, 2)
    assert line.close()[0] == ["a", "b", "a"]


def test_a_long_recording_goes_in_messages_of_a_thousand(line: Line) -> None:
    play_recordings(line.feed(), [recording("a", [float(k) for k in range(2500)])], None, 0.0, None)
    _, value, _ = line.close()
    assert value.tolist() == list(range(2500))


def test_restamped_recordings_have_the_times_they_are_sent_at() -> None:
    recordings = [recording("a", [10.0, 14.0]), recording("b", [12.0])]
    assert [each.time.tolist() for each in restamped(recordings, 2.0, 0.0, 1000.0)] == [[1000, 1002], [1001]]
    assert [each.time.tolist() for each in restamped(recordings, None, 4.0, 1000.0)] == [[1000, 1000.25], [1000]]


def play_for_ever(feed: Feed) -> None:
    play_waves(feed, [(["a"], WAVES["sine"](0))], 5.0, None)


def play_flat_out(feed: Feed) -> None:
    play_waves(feed, [(["a"], WAVES["sine"](0))], 0.0, None)


def play_slowly(feed: Feed) -> None:
    play_recordings(feed, [recording("a", [0.0, 1e6])], 1.0, 0.0, None)


@pytest.mark.parametrize("play", [play_for_ever, play_flat_out, play_slowly])
def test_told_to_stop_it_stops(line: Line, play: Callable[[Feed], None]) -> None:
    feed = line.feed()
    worker = threading.Thread(target=play, args=(feed,))
    worker.start()
    while not feed.sent:
        time.sleep(0.001)
    begin = time.monotonic()
    feed.stop()
    worker.join(20)
    assert not worker.is_alive()
    assert time.monotonic() - begin < 0.4
    assert feed.over and feed.finish()


def test_a_feed_without_a_daemon_says_so_and_ends_in_time() -> None:
    notices: list[str] = []
    producer = Producer("tcp://127.0.0.1:1", window=2500)
    feed = Feed(producer, 1.8, notices.append)
    begin = time.monotonic()
    play_waves(feed, [(["a"], WAVES["sine"](0))], 0.0, None)
    assert time.monotonic() - begin < 2.5
    assert notices == ["nobody answers at tcp://127.0.0.1:1; waiting"]
    assert not feed.finish()
    producer.close(0.0)
