"""The engine: what becomes of messages between its sockets, in a loop of its own process and in one that is turned by
hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from forecastd.daemon import engine as module
from forecastd.daemon import scoreboard
from forecastd.daemon.batch import Batch, Effects, Reply
from forecastd.daemon.engine import EVENTS, Engine
from forecastd.daemon.histogram import BOUNDS
from forecastd.daemon.keeper import Ephemeral
from forecastd.daemon.settings import Limits, Settings
from forecastd.daemon.transport import Transport

from .patience import until

ANY = "tcp://127.0.0.1:0"
SETTINGS = Settings(
    ingest=(ANY, f"pull+{ANY}"),
    publish=ANY,
    web="",
    ephemeral=True,
    experts=("naive", "ses", "ar"),
    limits=Limits(frame_bytes=1 << 16, batch_samples=1000),
)


class Peers:
    """Sockets of the outside world, which end with the test."""

    def __init__(self, bound: list[str]) -> None:
        self.address = dict(line.rsplit(" ", 1) for line in bound)
        self.context: zmq.SyncContext = zmq.Context()
        self._sockets: list[zmq.SyncSocket] = []

    def __call__(self, kind: int, where: str, topic: str | None = None) -> zmq.SyncSocket:
        peer = self.context.socket(kind)
        self._sockets.append(peer)
        peer.linger, peer.rcvtimeo, peer.sndtimeo, peer.sndhwm = 0, 20_000, 20_000, 0
        peer.connect(self.address[where])
        if topic is not None:
            peer.subscribe(topic)
        return peer

    def close(self) -> None:
        self.context.destroy(0)


# ---- turned by hand


class Silent:
    """A supervisor that says nothing."""

    def __init__(self) -> None:
        self.stdin, self.end = os.pipe()
        os.set_blocking(self.stdin, False)
        self.said: list[dict[str, Any]] = []
        self.gone = False

    def fileno(self) -> int:
        return self.stdin

    def lines(self) -> list[dict[str, Any]]:
        self.gone = not os.read(self.stdin, 4096)
        return []

    def report(self, **fields: Any) -> None:
        self.said.append(fields)


class Hand:
    """An engine in this process, turned by the test."""

    def __init__(self, keeper: Any = None) -> None:
        self.parent = Silent()
        self.transport = Transport(SETTINGS)
        self.keeper = keeper or Ephemeral(SETTINGS, None)
        self.engine = Engine(SETTINGS, self.transport, self.keeper, self.parent)  # type: ignore[arg-type]
        self.peers = Peers(self.transport.bound)

    def turn(self) -> None:
        ready = self.transport.wait(0.01)
        self.engine.turn(ready)
        self.engine.hear(ready)

    def until(self, probe: Callable[[], Any]) -> Any:
        return until(lambda: (self.turn(), probe())[1])

    def subscribed(self, topic: str) -> zmq.SyncSocket:
        subscriber = self.peers(zmq.SUB, "publish", topic)
        self.until(lambda: topic.encode() in self.transport.publish.prefixes)
        return subscriber

    def close(self) -> None:
        self.peers.close()
        if not self.transport.context.closed:
            self.transport.close()


@pytest.fixture
def handlers() -> Iterator[None]:
    """Whoever handled signals before does so afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def hand(handlers: None) -> Iterator[Hand]:
    hand = Hand()
    yield hand
    hand.close()


def test_a_sample_comes_out_as_a_forecast(hand: Hand) -> None:
    """On the topic of its series, with its value, and a number that rises by one."""
    subscriber, dealer = hand.subscribed("boiler"), hand.peers(zmq.DEALER, "ingest router")
    for n in range(40):
        dealer.send(json.dumps({"series": "boiler", "value": 70 + n % 3, "time": 1000.0 + n}).encode())
        hand.until(lambda: subscriber.poll(0))
        topic, message = subscriber.recv_multipart()
        forecast = json.loads(message)
        assert (topic, forecast["value"], forecast["seq"]) == (b"boiler", 70 + n % 3, n + 1)
        assert forecast["time"] == 1000.0 + n
    assert forecast["status"] == "ready"
    assert len(forecast["mean"]) == len(forecast["lower"]) == len(forecast["upper"]) == SETTINGS.horizon
    assert forecast["lower"][0] <= forecast["mean"][0] <= forecast["upper"][0]
    assert set(forecast["experts"]) == set(forecast["weights"])


def test_events_are_told_to_those_who_subscribed_to_them(hand: Hand) -> None:
    """An alert begins, under a topic that no series can have."""
    dealer, listener, other = hand.peers(zmq.DEALER, "ingest router"), hand.subscribed(EVENTS), hand.subscribed("x")
    random = np.random.default_rng(0)
    for value in [*random.normal(size=300).tolist(), 1e3]:
        dealer.send_json({"series": "boiler", "value": value})
    hand.until(lambda: listener.poll(0))
    topic, message = listener.recv_multipart()
    told = json.loads(message)
    assert (topic, told["event"], told["series"]) == (EVENTS.encode(), "anomaly", "boiler")
    assert told["time"] > 0 and not other.poll(100)


def test_only_subscribed_series_are_encoded(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten series come, one is listened to, one is encoded."""
    encoded: list[str] = []
    encode = __import__("forecastd.daemon.engine", fromlist=["engine"]).encode_forecasts

    def spy(forecasts: Any, chosen: list[int], *rest: Any) -> list[bytes]:
        encoded.extend(forecasts.series[i] for i in chosen)
        return list(encode(forecasts, chosen, *rest))

    monkeypatch.setattr("forecastd.daemon.engine.encode_forecasts", spy)
    push, subscriber = hand.peers(zmq.PUSH, "ingest pull"), hand.subscribed("s7")
    for n in range(10):
        push.send_multipart([b"s%d" % n, b"1"])
    hand.until(lambda: subscriber.poll(0))
    hand.until(lambda: len(hand.engine.pipeline.names) == 10)
    assert encoded == ["s7"]


def test_a_numbered_sample_is_acknowledged_and_a_refused_one_told_by_name(hand: Hand) -> None:
    """Also one that the wire refused: its number is dealt with, and the next one is taken."""
    dealer = hand.peers(zmq.DEALER, "ingest router")
    for frame in (
        b'{"series":"a","value":1,"seq":1}',
        b'{"series":"a","value":NaN,"seq":2}',
        b'{"series":"a","seq":3}',
        b'{"series":"a","value":4,"seq":4}',
    ):
        dealer.send(frame)
    replies: list[dict[str, Any]] = []

    def acknowledged() -> bool:
        while dealer.poll(0):
            replies.append(json.loads(dealer.recv()))
        return {"ack": 4} in replies

    hand.until(acknowledged)
    assert {"refused": "nonfinite", "seq": 2} in replies
    assert {"refused": "malformed", "seq": 3} in replies


def test_forecasts_do_not_wait_for_the_keeper(handlers: None) -> None:
    """They are out before the batch is handed over, and the replies leave only when the keeper gives them back."""
    order: list[str] = []

    class Slow(Ephemeral):
        held: list[Reply]

        def append(
            self, batch: Batch, now: float, effects: Effects, replies: list[Reply], spent_s: float
        ) -> list[Reply]:
            order.append("kept")
            self.held = replies
            return []

    keeper = Slow(SETTINGS, None)
    hand = Hand(keeper)
    try:
        subscriber, dealer = hand.subscribed(""), hand.peers(zmq.DEALER, "ingest router")
        send = hand.transport.publish.send
        hand.transport.publish.send = lambda *frames: (order.append("published"), send(*frames))[1]  # type: ignore[method-assign]
        dealer.send(b'{"series":"a","value":1,"seq":1}')
        hand.until(lambda: subscriber.poll(0))
        hand.until(lambda: order == ["published", "kept"])
        assert not dealer.poll(50)
        hand.engine.answer(keeper.held)
        assert json.loads(dealer.recv()) == {"ack": 1}
    finally:
        hand.close()


def test_a_batch_that_breaks_the_pipeline_is_counted_and_the_next_one_is_forecast(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No exception leaves the loop, and the keeper is told that a step failed halfway."""
    lost: list[bool] = []
    monkeypatch.setattr(hand.keeper, "lose", lambda: lost.append(True))
    push, subscriber = hand.peers(zmq.PUSH, "ingest pull"), hand.subscribed("")
    with monkeypatch.context() as patched:
        patched.setattr(hand.engine.pipeline, "step", lambda *_: 1 / 0)
        push.send_multipart([b"a", b"1"])
        hand.until(lambda: hand.engine.failures)
    push.send_multipart([b"a", b"2"])
    hand.until(lambda: subscriber.poll(0))
    assert json.loads(subscriber.recv_multipart()[1])["value"] == 2
    assert (hand.engine.failures, lost) == (1, [True])


def test_each_forecast_is_timed_from_its_receipt_to_its_publication(hand: Hand) -> None:
    """As many observations as forecasts, alone or in batches; refused samples are none."""
    push = hand.peers(zmq.PUSH, "ingest pull")
    push.send_multipart([b"a", b"1"])
    hand.until(lambda: len(hand.engine.pipeline.names) == 1)
    assert sum(hand.engine.durations.counts) == 1
    array = [{"series": f"s{n}", "value": n} for n in range(50)]
    push.send(json.dumps([*array, {"series": "", "value": 1}]).encode())
    push.send(b"junk")
    hand.until(lambda: len(hand.engine.pipeline.names) == 51)
    assert sum(hand.engine.durations.counts) == 51
    assert 0 < hand.engine.durations.sum < 51 * 60
    assert len(hand.engine.durations.counts) == len(BOUNDS) + 1


def test_the_scoreboard_is_sent_at_once_and_then_every_second(hand: Hand) -> None:
    """With the engine's own figures in it; while nobody listens, none is made."""
    hand.peers(zmq.PUSH, "ingest pull").send_multipart([b"a", b"1"])
    hand.until(lambda: hand.engine.pipeline.names)
    listener = hand.peers(zmq.SUB, "board", "")
    hand.until(lambda: listener.poll(0))
    topic, message = listener.recv_multipart()
    board = scoreboard.decode(message)
    assert (topic, board.series) == (b"scoreboard", ["a"])
    assert board.duration_bounds == list(BOUNDS)
    assert sum(board.duration_counts) == 1
    assert board.counters["failures"] == 0
    hand.engine.tick()
    assert listener.poll(20_000)
    hand.engine.tick()
    listener.recv_multipart()
    assert not listener.poll(50), "no two within a second"


def test_each_new_listener_is_sent_a_scoreboard_at_once(hand: Hand) -> None:
    """So that a web process that comes back has something to show; the loop has not come to its second yet."""
    for _ in range(2):
        listener = hand.peers(zmq.SUB, "board", "")
        hand.until(lambda listener=listener: listener.poll(0))


@pytest.mark.parametrize("count, steps", [(1, [1]), (3, [1, 1, 1]), (4, [4])])
def test_a_few_samples_that_come_together_are_taken_one_by_one(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, count: int, steps: list[int]
) -> None:
    """Each is answered, forecast and timed as its own; more go together."""
    sizes: list[int] = []
    step = hand.engine.pipeline.step
    monkeypatch.setattr(
        hand.engine.pipeline, "step", lambda batch, now: (sizes.append(len(batch)), step(batch, now))[1]
    )
    dealer, subscriber = hand.peers(zmq.DEALER, "ingest router"), hand.subscribed("s")
    dealer.send_json([{"series": f"s{n}", "value": n, "seq": n + 1} for n in range(count)])
    hand.until(lambda: dealer.poll(0) and dealer.recv_json() == {"ack": count})
    assert sizes == steps
    assert [subscriber.recv_multipart()[0] for _ in range(count)] == [b"s%d" % n for n in range(count)]
    assert sum(hand.engine.durations.counts) == count


def test_what_is_dealt_out_over_several_steps_is_timed_once_a_sample(hand: Hand) -> None:
    """Those of one message and those of the next, each from its own receipt."""
    hand.engine.inbox.slow.rounds = 10
    array = [{"series": name, "value": n} for n in range(35) for name in "ab"]
    hand.peers(zmq.PUSH, "ingest pull").send(json.dumps(array).encode())
    hand.until(lambda: hand.engine.pipeline.samples == 70)
    assert sum(hand.engine.durations.counts) == 70
    hand.peers(zmq.PUSH, "ingest pull").send_multipart([b"a", b"1"])
    hand.until(lambda: hand.engine.pipeline.samples == 71)
    assert sum(hand.engine.durations.counts) == 71
    now, before = time.perf_counter(), hand.engine.durations.sum
    hand.engine.observe(10, [(now - 100.0, 4), (now - 10.0, 20)])
    assert 460.0 <= hand.engine.durations.sum - before < 470.0


def test_a_sample_overtakes_a_message_of_ten_thousand(hand: Hand) -> None:
    """It is forecast after one step of bounded length; the long message goes on to its end, and is then
    acknowledged."""
    long, other, subscriber = hand.peers(zmq.DEALER, "ingest router"), hand.peers(zmq.DEALER, "ingest router"), None
    columns = {"columns": 1, "series": "long", "seq": 1, "producer": "plc"}
    long.send_multipart([json.dumps(columns).encode(), np.arange(1_000.0).tobytes()])
    hand.until(lambda: hand.engine.pipeline.samples)
    assert 0 < hand.engine.pipeline.samples <= 40, "so many rounds are a step"
    subscriber = hand.subscribed("other")
    other.send_multipart([b"other", b"1"])
    hand.until(lambda: subscriber.poll(0))
    assert hand.engine.inbox.lanes == 1 and hand.engine.pipeline.samples < 1_001
    replies = []
    hand.until(
        lambda: (
            (replies.extend(json.loads(long.recv()) for _ in range(bool(long.poll(0)))), replies[-1:])[1]
            == [{"ack": 1000}]
        )
    )
    assert hand.engine.inbox.lanes == hand.engine.inbox.waiting == 0
    assert hand.engine.pipeline.samples == 1_001


@pytest.mark.parametrize("quiet_s, path", [(0.0, ["sent", "yielded", "finished"]), (1e9, ["sent", "finished"])])
def test_a_lone_forecast_of_a_quiet_stream_is_let_out_before_the_engine_goes_on(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, quiet_s: float, path: list[str]
) -> None:
    """What carries it may have to wait for the very core that the scores would be reckoned on."""
    monkeypatch.setattr(module, "QUIET_S", quiet_s)
    subscriber, push, order = hand.subscribed("a"), hand.peers(zmq.PUSH, "ingest pull"), []
    send, finish = hand.transport.publish.send, hand.engine.pipeline.finish
    monkeypatch.setattr(hand.transport.publish, "send", lambda *what: (order.append("sent"), send(*what)))
    monkeypatch.setattr(os, "sched_yield", lambda: order.append("yielded"))
    monkeypatch.setattr(hand.engine.pipeline, "finish", lambda: (order.append("finished"), finish()))
    push.send_multipart([b"a", b"1"])
    hand.until(lambda: subscriber.poll(0))
    assert order == path


def test_a_heartbeat_is_beaten_once_a_second_by_the_loop(hand: Hand) -> None:
    """Two ticks in a row are one beat."""
    hand.engine.tick()
    hand.engine.tick()
    assert [list(said) for said in hand.parent.said] == [["beat"]]


def test_what_had_arrived_is_worked_off_before_the_end(hand: Hand) -> None:
    """A thousand samples wait when the engine is told to end: all are forecast and acknowledged."""
    dealer, subscriber = hand.peers(zmq.DEALER, "ingest router"), hand.subscribed("")
    for n in range(1, 901):
        dealer.send(json.dumps({"series": f"s{n % 30}", "value": n, "seq": n, "time": n}).encode())
    until(lambda: hand.transport.ingest[0].socket.poll(0))
    os.kill(os.getpid(), signal.SIGTERM)
    hand.engine.run()
    published = 0
    while subscriber.poll(200):
        subscriber.recv_multipart()
        published += 1
    acks = []
    while dealer.poll(200):
        acks.append(json.loads(dealer.recv())["ack"])
    assert published == acks[-1] == 900


def test_the_end_of_stdin_is_the_end(hand: Hand) -> None:
    """The supervisor is gone: the loop returns by itself."""
    os.close(hand.parent.end)
    hand.engine.run()
    assert hand.engine.stopping


# ---- a process


class Process:
    """The engine as the supervisor starts it."""

    def __init__(self, hello: Any) -> None:
        command = [sys.executable, "-m", "forecastd.daemon.engine"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin, self.stdout, self.stderr = self.process.stdin, self.process.stdout, self.process.stderr
        if hello is not None:
            self.stdin.write(msgspec.json.encode(hello) + b"\n")
            self.stdin.flush()

    def line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.stdout.readline())
        return line

    def until_ready(self) -> list[str]:
        bound = []
        while "ready" not in (line := self.line()):
            bound.append(line["bound"])
        return bound

    def end(self) -> int:
        """The exit status, once it has ended by itself."""
        return self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


@pytest.fixture
def start() -> Iterator[Callable[[Any], Process]]:
    started: list[Process] = []

    def starting(hello: Any) -> Process:
        started.append(Process(hello))
        return started[-1]

    yield starting
    for process in started:
        process.close()


def test_the_process_reports_its_sockets_that_it_is_ready_and_that_it_works(start: Callable[[Any], Process]) -> None:
    """In this order, and then a beat a second."""
    process = start({"settings": SETTINGS})
    assert [line.rsplit(" ", 1)[0] for line in process.until_ready()] == [
        "ingest router",
        "ingest pull",
        "publish",
        "board",
    ]
    beats = [process.line()["beat"] for _ in range(3)]
    assert 0.9 < beats[2] - beats[1] < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_status_0(start: Callable[[Any], Process], number: int) -> None:
    """After it has drained."""
    process = start({"settings": SETTINGS})
    process.until_ready()
    process.process.send_signal(number)
    assert process.end() == 0


def test_the_process_ends_with_its_supervisor(start: Callable[[Any], Process]) -> None:
    """Whose end closes its stdin."""
    process = start({"settings": SETTINGS})
    process.until_ready()
    process.stdin.close()
    assert process.end() == 0


def test_a_process_that_is_never_told_anything_ends_too(start: Callable[[Any], Process]) -> None:
    """Its supervisor died between starting it and greeting it."""
    process = start(None)
    process.stdin.close()
    assert process.end() == 1


def test_an_endpoint_that_is_taken_is_reported_in_a_line(start: Callable[[Any], Process]) -> None:
    """And the process ends with status 3."""
    first = start({"settings": SETTINGS})
    taken = first.until_ready()[2].rsplit(" ", 1)[1]
    second = start({"settings": msgspec.structs.replace(SETTINGS, publish=taken)})
    assert second.line() == {"failed": f"{taken}: address already in use", "status": 3}
    assert second.end() == 3


def test_a_model_that_is_none_is_reported_in_a_line(start: Callable[[Any], Process]) -> None:
    """And the process ends with status 2."""
    process = start({"settings": msgspec.structs.replace(SETTINGS, model="nosuch", experts=("naive", "rnn"))})
    while "bound" in (line := process.line()):
        pass
    assert line["status"] == 2
    assert "no model is called 'nosuch'" in line["failed"]
    assert process.end() == 2


def test_the_process_imports_neither_tensorflow_nor_a_web_server_nor_a_command_line() -> None:
    """Nor what would make its start slow."""
    code = "import sys, forecastd.daemon.engine; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "tensorflow",
        "keras",
        "h5py",
        "starlette",
        "uvicorn",
        "prometheus_client",
        "click",
        "rich",
        "plotly",
        "asyncio",
    }
    assert heavy & set(found) == set()
