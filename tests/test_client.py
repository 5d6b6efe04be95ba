"""The client against a real ROUTER that keeps the contract, and is silent, gone, restarted or forgetful in turns."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from forecastd.daemon.ledger import Ledger
from forecastd.daemon.settings import Limits
from forecastd.daemon.wire import Inbox, Origin
from forecastd.producers.client import Producer, SpoolError, WindowFull
from forecastd.producers.link import Target


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


class Daemon:
    """A ROUTER with the daemon's own wire and ledger: takes the next number only, says how far it is, and refuses.

    `stop` and `start` keep the port, and what was taken; `forget` is a daemon without a journal. While `mute`, it takes
    samples and says nothing; while `deaf`, it throws them away.
    """

    def __init__(self) -> None:
        self.port = 0
        self.mute = self.deaf = False
        self.delay = 0.0
        self.refuses: dict[str, str] = {}
        self.refuses_after = 0.0
        self.taken: list[tuple[str, float, float]] = []
        self.messages = 0
        self.forget()
        self.start()

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def values(self) -> list[float]:
        return [value for _, value, _ in self.taken]

    def forget(self) -> None:
        self.ledger = Ledger()

    def start(self) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(f"tcp://127.0.0.1:{self.port or '*'}")
        self.port = int(self._socket.last_endpoint.decode().rpartition(":")[2])
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        self._context.destroy(linger=0)

    def _run(self) -> None:
        while not self._stopping:
            if self._socket.poll(5):
                peer, *frames = self._socket.recv_multipart()
                self.messages += 1
                time.sleep(self.delay)
                if not self.deaf:
                    self._take(peer, frames)

    def _take(self, peer: bytes, frames: list[bytes]) -> None:
        inbox = Inbox(Limits())
        inbox.add(frames, Origin(peer, True, "anonymous"))
        batch = inbox.take()
        assert not batch.refused
        refusals = []
        for parcel in batch.parcels:
            passed = self.ledger.accept(parcel)
            for place in range(parcel.start + passed, parcel.stop):
                series = batch.series[place]
                if reason := self.refuses.get(series):
                    self._say(
                        peer, b'{"refused": "%s", "seq": %d}' % (reason.encode(), parcel.seq + place - parcel.start)
                    )
                else:
                    self.taken.append((series, float(batch.value[place]), float(batch.time[place])))
            self._say(peer, b'{"ack": %d}' % self.ledger.accounts[parcel.producer].seq)
        time.sleep(self.refuses_after)
        for refusal in refusals:
            self._say(peer, refusal)

    def _say(self, peer: bytes, text: bytes) -> None:
        if not self.mute:
            self._socket.send_multipart([peer, text])


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.stop()


def test_every_sample_arrives_once_in_order_and_is_acknowledged(daemon: Daemon) -> None:
    with Producer(daemon.endpoint) as producer:
        for k in range(5000):
            producer.send("boiler", k, 1000.0 + k)
        assert producer.flush(20)
        stats = producer.stats()
    assert daemon.taken == [("boiler", float(k), 1000.0 + k) for k in range(5000)]
    assert (stats.sent, stats.acked, stats.refused, stats.resent, stats.dropped, stats.waiting) == (
        5000,
        5000,
        {},
        0,
        0,
        0,
    )
    assert stats.connected and stats.connections == 1
    assert daemon.messages < 2500  # what waited together travelled together


def test_a_sample_without_a_time_gets_this_machines_or_is_left_to_the_daemon(daemon: Daemon) -> None:
    before = time.time()
    with Producer(daemon.endpoint) as producer:
        producer.send("a", 1)
        producer.send_columns(["b", "c"], [2, 3])
    assert all(before <= moment <= time.time() for _, _, moment in daemon.taken)
    with Producer(daemon.endpoint, stamp=False) as producer:
        producer.send("a", 1)
        producer.send_columns(["b", "c"], [2, 3])
    assert len(daemon.taken) == 6
    assert all(isnan(moment) for _, _, moment in daemon.taken[3:])


def test_columns_come_out_as_rounds(daemon: Daemon) -> None:
    with Producer(daemon.endpoint) as producer:
        producer.send_columns(np.array(["a"]), np.array([1.0, 2.0, 3.0]), time=10.0, step=0.5)
        producer.send_columns("b", [1, 2], time=[5, 6])
        producer.send_columns(["x", "y"], np.arange(4.0)[::-1], time=[1.0, 2.0])
        producer.send_columns(["x", "y"], (7, 8, 9, 10), time=[3, 4, 5, 6])
        producer.send_columns(("x", "y"), np.arange(2, dtype=np.float32), time=9.0)
        producer.send_columns(["z"], [1, 2], time=20.0, step=1.0)
        producer.send_columns(["x", "y"], [])
    assert daemon.taken == [
        *[("a", 1.0, 10.0), ("a", 2.0, 10.5), ("a", 3.0, 11.0)],
        *[("b", 1.0, 5.0), ("b", 2.0, 6.0)],
        *[("x", 3.0, 1.0), ("y", 2.0, 1.0), ("x", 1.0, 2.0), ("y", 0.0, 2.0)],
        *[("x", 7.0, 3.0), ("y", 8.0, 4.0), ("x", 9.0, 5.0), ("y", 10.0, 6.0)],
        *[("x", 0.0, 9.0), ("y", 1.0, 9.0)],
        *[("z", 1.0, 20.0), ("z", 2.0, 21.0)],
    ]


def test_the_callers_lists_are_his_own_again_when_send_columns_returns(daemon: Daemon) -> None:
    names, values = ["a", "b"], np.array([1.0, 2.0])
    daemon.mute = True
    with Producer(daemon.endpoint) as producer:
        producer.send_columns(names, values, time=1.0)
        names[0], values[0] = "c", 3.0
        producer.send_columns(names, values, time=2.0)
        names.append("d")
        daemon.mute = False
        producer.send("e", 5, 3.0)
    assert daemon.taken == [("a", 1, 1), ("b", 2, 1), ("c", 3, 2), ("b", 2, 2), ("e", 5, 3)]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("a", [1, 2]), ValueError, "2 samples of one series need their times"),
        ((["a", "b"], [1, 2, 3], 1.0), ValueError, "3 values for 2 names"),
        ((["a", "b"], [1, 2], [1, 2, 3]), ValueError, "3 times for 2 values"),
        (("a", [1, 2], [1, nan]), ValueError, "a time is not finite"),
        (([], [1]), ValueError, "no names"),
        ((["a", 7], [1, 2]), TypeError, "a series is named by a string, not 7"),
        ((7, [1, 2]), TypeError, "not iterable"),
        (("a", ["x"], 1.0), TypeError, "must be real number"),
        (("a\ud800", [1.0], 1.0), UnicodeEncodeError, "surrogates"),
    ],
)
def test_what_makes_no_sense_raises_where_it_is_sent(
    daemon: Daemon, arguments: tuple[Any, ...], error: type[Exception], message: str
) -> None:
    with Producer(daemon.endpoint) as producer:
        with pytest.raises(error, match=message):
            producer.send_columns(*arguments)
        producer.send("still", 1)
        assert producer.flush(20)
    assert [series for series, _, _ in daemon.taken] == ["still"]


def test_what_is_not_finite_is_refused_by_the_client_and_counted(daemon: Daemon) -> None:
    with Producer(daemon.endpoint) as producer:
        producer.send("a", nan, 1)
        producer.send("a", -inf, 1)
        producer.send("a", 1, inf)
        producer.send_columns("a", [1, nan, 3, inf], time=[1, 2, 3, 4])
        producer.send_columns(["a", "b", "c"], [nan, 5, -inf], time=5.0)
        producer.send_columns("a", [1e308, 1e308, -1e308], time=[6, 7, 8])  # finite, though their sum is not
        producer.send_columns("a", [nan], time=9.0)
        assert producer.flush(20)
        assert producer.stats().refused == {"nonfinite": 8}
        assert producer.stats().acked == 6
    assert daemon.taken == [("a", 1, 1), ("a", 3, 3), ("b", 5, 5), ("a", 1e308, 6), ("a", 1e308, 7), ("a", -1e308, 8)]


def test_refusals_are_counted_by_reason_and_hold_nothing_up(daemon: Daemon) -> None:
    daemon.refuses = {"old": "late", "": "name"}
    with Producer(daemon.endpoint) as producer:
        for series in ("a", "old", "b", "", "old", "c"):
            producer.send(series, 1)
        assert producer.flush(20)
        stats = producer.stats()
    assert stats.refused == {"late": 2, "name": 1}
    assert (stats.sent, stats.acked, stats.waiting) == (6, 3, 0)
    assert [series for series, _, _ in daemon.taken] == ["a", "b", "c"]


def test_refusals_that_follow_the_last_acknowledgement_are_counted(daemon: Daemon) -> None:
    daemon.refuses = {"old": "late"}
    daemon.refuses_after = 0.005
    for _ in range(5):
        producer = Producer(daemon.endpoint)
        producer.send("old", 1)
        assert producer.close()
        assert producer.stats().refused == {"late": 1}


def test_a_producer_may_start_before_the_daemon(daemon: Daemon) -> None:
    daemon.stop()
    with Producer(daemon.endpoint) as producer:
        producer.send("a", 1)
        assert not producer.flush(0.2)
        assert not producer.stats().connected
        daemon.start()
        producer.send("a", 2)
        assert producer.flush(20)
    assert daemon.values == [1, 2]


def test_a_daemon_restarted_under_load_misses_nothing_and_takes_nothing_twice(daemon: Daemon) -> None:
    with Producer(daemon.endpoint, window=2000, resend_after=60.0) as producer:
        sender = threading.Thread(target=lambda: [producer.send("a", k) for k in range(20_000)])
        sender.start()
        for stop in (2000, 6000, 11_000):
            until(lambda stop=stop: len(daemon.taken) > stop)  # type: ignore[misc]
            daemon.stop()
            daemon.start()
        sender.join()
        assert producer.flush(20)
        stats = producer.stats()
    assert daemon.values == list(range(20_000))
    assert stats.connections == 4 and stats.sent == stats.acked == 20_000
    assert daemon.ledger.accounts[producer.name].epoch == producer.epoch


def test_acknowledgements_lost_with_a_connection_are_made_good_by_the_next(daemon: Daemon) -> None:
    with Producer(daemon.endpoint) as producer:
        producer.send("a", 1)
        assert producer.flush(20)
        daemon.mute = True
        producer.send("a", 2)
        until(lambda: len(daemon.taken) == 2)
        daemon.stop()
        daemon.mute = False
        daemon.start()
        assert producer.flush(20)
        assert producer.stats().resent == 1
    assert daemon.values == [1, 2]


def test_silence_on_a_sound_connection_makes_it_send_again(daemon: Daemon) -> None:
    with Producer(daemon.endpoint, resend_after=0.05) as producer:
        daemon.deaf = True
        producer.send("a", 1)
        until(lambda: daemon.messages >= 3)
        assert producer.stats().waiting == 1
        daemon.deaf = False
        assert producer.flush(20)
        stats = producer.stats()
    assert daemon.values == [1]
    assert stats.sent == 1 and stats.resent >= 2 and stats.connections == 1


def test_what_the_daemon_lost_on_a_sound_connection_comes_again_with_all_that_followed(daemon: Daemon) -> None:
    with Producer(daemon.endpoint, resend_after=0.05) as producer:
        producer.send("a", 0)
        assert producer.flush(20)
        for k in range(1, 11):
            daemon.deaf = k in (3, 4, 7)
            before = daemon.messages
            producer.send("a", k)
            until(lambda before=before: daemon.messages > before)  # type: ignore[misc]
        assert producer.flush(20)
        assert producer.stats().connections == 1
    assert daemon.values == list(range(11))


def test_a_slow_daemon_is_not_sent_everything_twice(daemon: Daemon) -> None:
    daemon.delay = 0.1
    with Producer(daemon.endpoint, resend_after=0.03) as producer:
        for k in range(20):
            producer.send_columns("a", [k], k)
        assert producer.flush(20)
        assert producer.stats().resent < 10
    assert daemon.values == list(range(20))


def test_a_silent_daemon_is_asked_less_and_less_often(daemon: Daemon) -> None:
    daemon.deaf = True
    with Producer(daemon.endpoint, resend_after=0.05) as producer:
        start = time.monotonic()
        producer.send("a", 1)
        until(lambda: daemon.messages >= 5)
        assert time.monotonic() - start > 0.05 * (1 + 2 + 4 + 8)
        daemon.deaf = False


def test_for_a_daemon_that_has_lost_its_place_a_new_epoch_begins(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    with Producer(daemon.endpoint, name="plc-7", epoch=3) as producer:
        producer.send_columns("a", range(10), time=range(10))
        assert producer.flush(20)
        daemon.mute = True
        producer.send("a", 10, 10)
        until(lambda: len(daemon.taken) == 11)
        daemon.stop()
        daemon.mute = False
        daemon.forget()
        daemon.taken.clear()
        with caplog.at_level(logging.WARNING):
            daemon.start()
            producer.send("a", 11, 11)
            assert producer.flush(20)
        assert producer.epoch > 3
    assert daemon.values == [10, 11]  # the one in doubt was for the old daemon; this one has never seen it
    assert "lost its place; plc-7 begins epoch" in caplog.text
    account = daemon.ledger.accounts["plc-7"]
    assert (account.epoch, account.seq) == (producer.epoch, 2)


def test_a_full_window_blocks_until_there_is_room(daemon: Daemon) -> None:
    daemon.mute = True
    with Producer(daemon.endpoint, window=10, resend_after=0.05) as producer:
        for k in range(10):
            producer.send("a", k)
        done = threading.Event()
        sender = threading.Thread(target=lambda: (producer.send("a", 10), done.set()))
        sender.start()
        assert not done.wait(0.1)
        assert not producer.await_room(1, timeout=0.01)
        daemon.mute = False
        assert done.wait(20)
        assert producer.flush(20)
    assert daemon.values == list(range(11))


def test_a_block_longer_than_the_window_passes_through_it_in_pieces(daemon: Daemon) -> None:
    with Producer(daemon.endpoint, window=64) as producer:
        producer.send_columns("a", range(5000), time=range(5000))
        assert producer.flush(20)
    assert daemon.values == list(range(5000))


def test_a_full_window_raises_and_takes_nothing(daemon: Daemon) -> None:
    daemon.stop()
    with Producer(daemon.endpoint, window=10, when_full="raise") as producer:
        producer.send_columns("a", range(8), time=range(8))
        with pytest.raises(WindowFull, match="8 of 10 samples wait"):
            producer.send_columns("a", range(3), time=range(3))
        producer.send("a", 8)
        producer.send("a", 9)
        with pytest.raises(WindowFull):
            producer.send("a", 10)
        daemon.start()
        assert producer.await_room(10, timeout=20)
    assert daemon.values == list(range(10))


def test_a_full_window_drops_its_oldest_and_the_numbers_have_no_hole(daemon: Daemon) -> None:
    daemon.stop()
    with Producer(daemon.endpoint, window=10, when_full="drop_oldest") as producer:
        for k in range(20):
            producer.send("a", k)
        producer.send_columns("a", range(20, 24), time=range(4))
        producer.send_columns("a", range(24, 60), time=range(36))
        assert producer.stats().dropped == 50
        daemon.start()
        assert producer.flush(20)
    assert daemon.values == list(range(50, 60))


def test_what_was_sent_is_kept_when_the_oldest_are_dropped(daemon: Daemon) -> None:
    daemon.mute = True
    with Producer(daemon.endpoint, window=10, when_full="drop_oldest", resend_after=0.05) as producer:
        for k in range(5):
            producer.send("a", k)
            until(lambda k=k: producer.stats().sent == k + 1)  # type: ignore[misc]
        for k in range(5, 25):
            producer.send("a", k)
        daemon.mute = False
        assert producer.flush(20)
        assert producer.stats().dropped == 15
    assert daemon.values == [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]


def test_threads_may_share_a_producer(daemon: Daemon) -> None:
    with Producer(daemon.endpoint, window=500) as producer:
        threads = [
            threading.Thread(target=lambda t=t: [producer.send(f"s{t}", k) for k in range(2000)]) for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert producer.flush(20)
    for t in range(4):
        assert [value for series, value, _ in daemon.taken if series == f"s{t}"] == list(range(2000))


def test_closing_says_whether_all_was_acknowledged(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    producer = Producer(daemon.endpoint)
    producer.send("a", 1)
    assert producer.close() and producer.close()
    with pytest.raises(ValueError, match="closed"):
        producer.send("a", 2)
    daemon.stop()
    lonely = Producer(daemon.endpoint)
    lonely.send("a", 1)
    assert not lonely.close(timeout=0.05)
    assert not lonely.close()
    daemon.start()


def test_two_producers_get_two_names_and_a_given_name_is_kept(daemon: Daemon) -> None:
    with Producer(daemon.endpoint) as one, Producer(daemon.endpoint) as two, Producer(daemon.endpoint, name="x") as x:
        assert one.name != two.name
        assert x.name == "x"
        for producer in (one, two, x):
            producer.send("a", 1)
    assert set(daemon.ledger.accounts) == {one.name, two.name, "x"}
    with pytest.raises(ValueError, match="printable"):
        Producer(daemon.endpoint, name="")


def test_a_spool_carries_samples_over_to_the_next_life(daemon: Daemon, tmp_path: Path) -> None:
    daemon.stop()
    first = Producer(daemon.endpoint, name="plc-7", spool=tmp_path / "spool")
    for k in range(3):
        first.send("a", k, 100.0 + k)
    assert not first.close(timeout=0.0)
    daemon.start()
    with Producer(daemon.endpoint, spool=tmp_path / "spool") as second:
        assert (second.name, second.epoch) == ("plc-7", first.epoch)
        second.send("a", 3, 103.0)
        assert second.flush(20)
    with Producer(daemon.endpoint, name="plc-7", spool=tmp_path / "spool") as third:
        third.send("a", 4, 104.0)
    assert daemon.taken == [("a", float(k), 100.0 + k) for k in range(5)]
    assert daemon.ledger.accounts["plc-7"].seq == 5
    with pytest.raises(SpoolError, match="is the spool of 'plc-7', not of 'x'"):
        Producer(daemon.endpoint, name="x", spool=tmp_path / "spool")
    Producer(daemon.endpoint, spool=tmp_path / "spool").close()  # the refused one did not keep the lock


def test_a_spool_follows_into_a_new_epoch(daemon: Daemon, tmp_path: Path) -> None:
    with Producer(daemon.endpoint, spool=tmp_path / "spool") as producer:
        producer.send("a", 1)
        assert producer.flush(20)
        daemon.stop()
        daemon.forget()
        daemon.start()
        producer.send("a", 2)
        assert producer.flush(20)
    with Producer(daemon.endpoint, spool=tmp_path / "spool") as again:
        assert again.epoch == producer.epoch
        again.send("a", 3)
    assert daemon.values == [1, 2, 3]


PLC = """
import sys
from forecastd.producers.client import Producer
producer = Producer(sys.argv[1], spool=sys.argv[2], window=1000)
k = int(sys.argv[3])
while True:
    k += 1
    producer.send("a", k, float(k))
    print(k, flush=True)
"""


def test_a_producer_killed_again_and_again_loses_nothing_that_send_returned_for(daemon: Daemon, tmp_path: Path) -> None:
    told = 0
    for life in range(4):
        daemon.mute = life % 2 == 1  # die with much under way, and with little
        already = len(daemon.taken)
        command = [sys.executable, "-c", textwrap.dedent(PLC), daemon.endpoint, str(tmp_path / "spool"), str(told)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as plc:
            assert plc.stdout is not None
            try:
                until(lambda already=already: len(daemon.taken) > already + 200)  # type: ignore[misc]
            finally:
                os.kill(plc.pid, signal.SIGKILL)
            lines = plc.stdout.read().split()
            told = int(lines[-1])
        with Producer(daemon.endpoint, spool=tmp_path / "spool") as heir:
            daemon.mute = False
            assert heir.flush(20)
        # The last one may have been in the spool before the print was out.
        assert len(daemon.taken) - told in (0, 1)
        told = len(daemon.taken)
        assert daemon.values == list(range(1, told + 1))
    assert len(daemon.ledger.accounts) == 1


def test_a_spool_that_fails_stops_the_producer_and_is_told_to_the_sender(daemon: Daemon, tmp_path: Path) -> None:
    producer = Producer(daemon.endpoint, spool=tmp_path / "spool")
    producer.send("a", 1)
    assert producer.flush(20)
    spool = producer.outbox._spool
    assert spool is not None
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), spool._fd)
    with pytest.raises(OSError, match="No space left"):
        producer.send("a", 2)
    assert producer.stats().waiting == 0
    assert producer.close()
    assert daemon.values == [1]


def test_what_could_not_be_made_safe_is_not_sent(daemon: Daemon, tmp_path: Path) -> None:
    producer = Producer(daemon.endpoint, spool=tmp_path / "spool")
    producer.send("a", 1)
    assert producer.flush(20)
    spool = producer.outbox._spool
    assert spool is not None

    def broken() -> None:
        raise OSError(5, "Input/output error")

    spool.sync = broken  # type: ignore[method-assign]
    producer.send("a", 2)
    with pytest.raises(OSError, match=r"the producer has stopped: .*Input/output error"):
        producer.flush(20)
    with pytest.raises(OSError, match="the producer has stopped"):
        producer.send("a", 3)
    assert not producer.close()
    assert daemon.values == [1]
    with Producer(daemon.endpoint, spool=tmp_path / "spool") as heir:
        assert heir.flush(20)
    assert daemon.values == [1, 2]


@pytest.mark.parametrize(("kind", "receiver"), [("pull", zmq.PULL), ("sub", zmq.SUB)])
@pytest.mark.parametrize("bind", [False, True])
def test_sockets_without_a_way_back_get_numbered_samples_and_no_promise(
    kind: str, receiver: int, bind: bool, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/line"
    context = zmq.Context()
    socket = context.socket(receiver)
    if kind == "sub":
        socket.subscribe(b"")
    (socket.connect if bind else socket.bind)(address)
    inbox = Inbox(Limits())
    with Producer(f"{kind}+{'bind+' if bind else ''}{address}", name="plc-7", epoch=3) as producer:
        for k in range(1000):
            producer.send("a", k, 100.0 + k)
        producer.send_columns("b", range(1000), time=range(1000))
        while inbox.size < 2000 and socket.poll(20_000):
            inbox.add(socket.recv_multipart())
        assert producer.flush(20)
        stats = producer.stats()
    context.destroy(linger=0)
    assert (stats.sent, stats.acked, stats.waiting) == (2000, 0, 0)
    batch = inbox.take()
    assert batch.value.tolist() == [*range(1000), *range(1000)]
    assert batch.series == ["a"] * 1000 + ["b"] * 1000
    assert {(p.producer, p.epoch) for p in batch.parcels} == {("plc-7", 3)}
    assert [p.seq for p in batch.parcels] == [p.start + 1 for p in batch.parcels]


def test_nothing_is_pushed_before_somebody_is_there(tmp_path: Path) -> None:
    with Producer(f"push+ipc://{tmp_path}/line") as producer:
        producer.send("a", 1)
        assert not producer.flush(0.2)
        assert producer.stats().waiting == 1
        context = zmq.Context()
        socket = context.socket(zmq.PULL)
        socket.bind(f"ipc://{tmp_path}/line")
        assert producer.flush(20)
        assert socket.poll(20_000)
    context.destroy(linger=0)


def test_nothing_is_published_before_somebody_listens(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/line"
    context = zmq.Context()
    with Producer(f"sub+bind+{address}") as producer:
        producer.send("a", 1)
        assert not producer.flush(0.2)
        socket = context.socket(zmq.SUB)
        socket.subscribe(b"")
        socket.connect(address)
        assert producer.flush(20)
        assert socket.poll(20_000)
        assert b'"value":1.0' in socket.recv()
    context.destroy(linger=0)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("tcp://127.0.0.1:5555", Target(zmq.DEALER, False, "tcp://127.0.0.1:5555")),
        ("router+tcp://h:1", Target(zmq.DEALER, False, "tcp://h:1")),
        ("push+tcp://h:1", Target(zmq.PUSH, False, "tcp://h:1")),
        ("pull+bind+tcp://*:1", Target(zmq.PUSH, True, "tcp://*:1")),
        ("pub+tcp://[::1]:1", Target(zmq.XPUB, False, "tcp://[::1]:1")),
        ("sub+ipc:///run/x+y", Target(zmq.XPUB, False, "ipc:///run/x+y")),
    ],
)
def test_an_endpoint_names_the_daemons_socket_or_the_producers(text: str, target: Target) -> None:
    assert Target.parse(text) == target


@pytest.mark.parametrize("text", ["", "127.0.0.1:5555", "http://h:1", "tcp://h", "rep+tcp://h:1", "bind+tcp://*:1"])
def test_an_endpoint_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*$") as caught:
        Producer(text)
    assert "\n" not in str(caught.value)


def test_answers_that_are_none_are_passed_over(daemon: Daemon) -> None:
    with Producer(daemon.endpoint, resend_after=0.05) as producer:
        daemon.deaf = True
        producer.send("a", 1)
        until(lambda: daemon.messages > 0)
        daemon.deaf = False
        say, junk = daemon._say, (b"", b"\xff", b"[]", b'{"ack": "x"}', b'{"ack": -1}')

        def babble(peer: bytes, text: bytes) -> None:
            for each in (*junk, text):
                say(peer, each)

        daemon._say = babble  # type: ignore[method-assign]
        assert producer.flush(20)
    assert daemon.values == [1]


def test_the_client_is_light() -> None:
    program = """
        import sys, forecastd.producers.client
        print([m for m in ('numpy', 'asyncio', 'rich', 'click') if m in sys.modules])
    """
    program = textwrap.dedent(program)
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_program_that_forgets_to_close_still_delivers(daemon: Daemon) -> None:
    program = "import sys\nfrom forecastd.producers.client import Producer\nProducer(sys.argv[1]).send('a', 1)"
    subprocess.run([sys.executable, "-c", program, daemon.endpoint], check=True, timeout=60)
    assert daemon.values == [1]
