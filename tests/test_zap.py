"""Who is let in, with real keys and real sockets: the authorised alone, whatever becomes of the doorkeeper."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from forecastd.daemon.batch import Batch
from forecastd.daemon.settings import Limits, Settings
from forecastd.daemon.sockets import house_curve
from forecastd.daemon.subscriber import Subscriber
from forecastd.daemon.transport import Transport
from forecastd.daemon.wire import Inbox
from forecastd.producers.key import Curve

from .keyring import Keyring
from .patience import until

ANY = "tcp://127.0.0.1:0"


class Harness:
    """A transport that asks for keys. `plc` may send boilers, `desk` may watch; both are bound to their names."""

    def __init__(self, folder: Path) -> None:
        self.keys = Keyring(folder)
        settings = Settings(ingest=(ANY, f"pull+{ANY}", f"sub+{ANY}"), publish=ANY)
        self.entries = [
            self.keys.entry("plc", "boiler*", "pump"),
            self.keys.entry("other", "*"),
            self.keys.entry("desk", watch=True),
        ]
        self.transport = Transport(settings, secret=self.keys.pair("daemon")[1], clients=self.entries)
        self.inbox = Inbox(Limits())
        self.address = dict(line.rsplit(" ", 1) for line in self.transport.bound)
        self.context: zmq.SyncContext = zmq.Context()
        self.peers: list[zmq.SyncSocket] = []

    def peer(
        self, kind: int, where: str, name: str = "", server: str = "daemon", identity: bytes = b""
    ) -> zmq.SyncSocket:
        peer = self.context.socket(kind)
        self.peers.append(peer)
        peer.linger, peer.reconnect_ivl = 0, 20
        if identity:
            peer.identity = identity
        if name:
            self.keys.on(peer, name, server)
        peer.connect(self.address[where])
        return peer

    def turn(self, answering: bool = True) -> None:
        ready = self.transport.wait(0.005)
        if answering:
            self.transport.admit(ready)
        self.transport.publish.listen()
        self.transport.board.listen()
        self.transport.receive(self.inbox, [], ready)

    def until(self, probe: Callable[[], Any]) -> Any:
        return until(lambda: (self.turn(), probe())[1])

    def batch(self, samples: int) -> Batch:
        self.until(lambda: self.inbox.size >= samples)
        return self.inbox.take()

    def failed(self) -> dict[str, float]:
        """The handshakes that failed, by why."""
        self.transport.look()
        return {
            name.removeprefix("handshakes_"): n for name, n in self.transport.told().items() if n and "shakes_" in name
        }

    def close(self) -> None:
        self.context.destroy(0)
        self.transport.close()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()


def sample(series: str, **fields: object) -> bytes:
    return json.dumps({"series": series, "value": 1.0, **fields}).encode()


# ---- who is let in


@pytest.mark.parametrize(
    ("kind", "where"), [(zmq.DEALER, "ingest router"), (zmq.PUSH, "ingest pull"), (zmq.PUB, "ingest sub")]
)
def test_an_authorised_key_sends_on_every_kind_of_socket(harness: Harness, kind: int, where: str) -> None:
    """And what it sends is its producer's, named or not."""
    peer = harness.peer(kind, where, "plc")
    harness.until(lambda: (peer.send(sample("boiler", seq=1), zmq.NOBLOCK), harness.inbox.size)[1])
    batch = harness.inbox.take()
    assert {parcel.producer for parcel in batch.parcels} == {"plc"}


STRANGERS: dict[str, tuple[str, str, str]] = {
    "no key at all": ("", "daemon", "protocol"),
    "a key that nobody knows": ("stranger", "daemon", "unauthorised"),
    "the key of another daemon": ("plc", "another-daemon", "protocol"),
    "a key that may only watch": ("desk", "daemon", "unauthorised"),
    "the daemon's own key": ("daemon", "daemon", "unauthorised"),
}


@pytest.mark.parametrize("case", STRANGERS)
def test_fault_25_who_has_no_right_is_refused_and_counted(harness: Harness, case: str) -> None:
    """Nothing of what it sends arrives; who has the right is let in meanwhile."""
    name, server, reason = STRANGERS[case]
    stranger = harness.peer(zmq.DEALER, "ingest router", name, server)
    stranger.send(sample("boiler"))
    # A peer that finds out first goes away first.
    harness.until(lambda: {reason, "incomplete"} & set(harness.failed()))
    assert set(harness.failed()) <= {reason, "incomplete"}
    friend = harness.peer(zmq.DEALER, "ingest router", "plc")
    friend.send(sample("pump"))
    assert harness.batch(1).series == ["pump"]
    assert harness.inbox.refused == {}, "a stranger's handshake is no sample"
    assert harness.transport.strangers() == 0


@pytest.mark.parametrize(("name", "let_in"), [("desk", True), ("plc", False), ("stranger", False), ("", False)])
def test_forecasts_are_read_with_a_key_that_may_watch_alone(harness: Harness, name: str, let_in: bool) -> None:
    """A subscription arrives, or a failed handshake does."""
    subscriber = harness.peer(zmq.SUB, "publish", name)
    subscriber.subscribe("boiler")
    harness.until(lambda: harness.transport.publish.prefixes or harness.failed())
    assert bool(harness.transport.publish.prefixes) is let_in


def test_the_daemon_itself_watches_with_its_own_key(harness: Harness) -> None:
    """Its web process does; nobody else reads the scoreboard."""
    house = house_curve(harness.keys.pair("daemon")[1])
    desk = Curve(harness.keys.pair("desk")[1].encode(), harness.keys.public("daemon").encode())
    for curve, where, let_in in ((house, "board", True), (house, "publish", True), (desk, "board", False)):
        subscriber = Subscriber(harness.address[where], "x", curve=curve)
        try:
            socket = harness.transport.board if where == "board" else harness.transport.publish
            harness.until(lambda s=subscriber, p=socket: b"x" in p.prefixes or s.barred())
            assert subscriber.barred() is not let_in
        finally:
            subscriber.close()
            harness.until(lambda p=socket: b"x" not in p.prefixes)


# ---- what it may send


def test_fault_13_a_key_is_good_for_its_own_name_and_no_other(harness: Harness) -> None:
    """A sample in another's name is refused, told, counted, and its number is not spent: nothing reaches the ledger."""
    peer = harness.peer(zmq.DEALER, "ingest router", "other")
    for frame in (
        sample("boiler", producer="plc", seq=7),
        b'{"series":"boiler","producer":"plc","seq":8}',  # malformed besides
        b'[{"series":"boiler","value":1,"producer":"plc","seq":9}]',
    ):
        peer.send(frame)
    peer.send_multipart([b'{"columns":1,"series":["a","b"],"producer":"plc","seq":10}', struct.pack("<2d", 1, 2)])
    harness.until(lambda: sum(harness.inbox.refused.values()) >= 5)
    assert [(reply.refused, reply.seq) for reply in harness.inbox.told] == [("unauthorised", n) for n in (7, 8, 9, 10)]
    for reply in harness.inbox.told:
        assert reply.peer
    batch = harness.inbox.take()
    assert batch.refused == {"unauthorised": 4, "malformed": 1}
    assert batch.parcels == []


def test_fault_13_two_of_one_identity_take_turns_and_are_counted(harness: Harness) -> None:
    """The later connection has it, whatever is left of the other; and each is still bound to its own name."""
    first = harness.peer(zmq.DEALER, "ingest router", "plc", identity=b"same")
    first.send(sample("boiler", seq=1))
    assert harness.batch(1).parcels[0].producer == "plc"
    second = harness.peer(zmq.DEALER, "ingest router", "other", identity=b"same")
    second.send(sample("boiler", seq=1))
    assert harness.batch(1).parcels[0].producer == "other"
    assert harness.transport.told()["takeovers"] == 1


def test_a_series_outside_the_patterns_is_refused_and_its_number_dealt_with(harness: Harness) -> None:
    """One of an array, a topic, or columns as a whole."""
    peer = harness.peer(zmq.DEALER, "ingest router", "plc")
    peer.send(
        b'[{"series":"boiler.2","value":1,"seq":1},{"series":"valve","value":1,"seq":2},'
        b'{"series":"pump","value":1,"seq":3}]'
    )
    peer.send_multipart([b"pumps", b"1"])
    peer.send_multipart([b'{"columns":1,"series":["boiler","valve"],"seq":4}', struct.pack("<2d", 1, 2)])
    peer.send_multipart([b'{"columns":1,"series":["boiler","pump"],"seq":6}', struct.pack("<2d", 1, 2)])
    batch = harness.batch(4)
    assert batch.series == ["boiler.2", "pump", "boiler", "pump"]
    assert batch.refused == {"unauthorised": 4}
    assert [(p.seq, p.size, p.refused) for p in batch.parcels] == [
        (1, 1, ""),
        (2, 1, "unauthorised"),
        (3, 1, ""),
        (4, 2, "unauthorised"),
        (6, 2, ""),
    ]


def test_a_key_that_is_taken_away_is_refused_on_the_connection_that_stands(harness: Harness) -> None:
    """And let in no more; the others go on."""
    plc, other = harness.peer(zmq.DEALER, "ingest router", "plc"), harness.peer(zmq.PUSH, "ingest pull", "other")
    plc.send(sample("boiler"))
    other.send(sample("boiler"))
    harness.batch(2)
    harness.transport.allow(harness.entries[1:])
    plc.send(sample("boiler"))
    harness.until(lambda: harness.inbox.refused)
    other.send(sample("pump"))
    batch = harness.batch(1)
    assert (batch.series, batch.refused) == (["pump"], {"unauthorised": 1})
    again = harness.peer(zmq.DEALER, "ingest router", "plc")
    again.send(sample("boiler"))
    harness.until(lambda: "unauthorised" in harness.failed())


# ---- the doorkeeper


def test_fault_26_while_nobody_answers_nobody_is_let_in(harness: Harness) -> None:
    """A doorkeeper that is asked and says nothing; those inside go on. Once it answers, who knocks again is let in."""
    inside = harness.peer(zmq.DEALER, "ingest router", "plc")
    inside.send(sample("boiler"))
    harness.batch(1)
    outside = harness.peer(zmq.DEALER, "ingest router", "other")
    outside.send(sample("pump"))
    for _ in range(60):
        harness.turn(answering=False)
    assert harness.inbox.size == 0
    inside.send(sample("boiler.2"))
    until(lambda: (harness.turn(answering=False), harness.inbox.size)[1])
    assert harness.inbox.take().series == ["boiler.2"]
    assert harness.batch(1).series == ["pump"]


def test_fault_26_a_doorkeeper_that_is_gone_lets_nobody_in_and_is_replaced(harness: Harness) -> None:
    """ZeroMQ by itself would let everybody in."""
    harness.transport.dismiss()
    assert harness.transport.told()["doorkeeper_away"]
    peers = [harness.peer(zmq.DEALER, "ingest router", "plc"), harness.peer(zmq.DEALER, "ingest router", "stranger")]
    for peer in peers:
        peer.send(sample("boiler"))
    doors = harness.transport.doors
    harness.until(lambda: ([door.look() for door in doors], sum(door.failed.total() for door in doors) >= 4)[1])
    assert harness.inbox.size == 0
    harness.transport.look()
    told = harness.transport.told()
    assert (told["doorkeeper_away"], told["doorkeeper_restarts"]) == (0, 1)
    assert len(harness.batch(1)) == 1, "the one that may, and not the other"


def test_fault_26_a_doorkeeper_that_fails_is_sent_away(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception leaves the loop."""
    doorkeeper = harness.transport.doorkeeper
    assert doorkeeper
    with monkeypatch.context() as patched:
        patched.setattr(doorkeeper, "_judge", lambda question: [b"\0", 1])
        peer = harness.peer(zmq.DEALER, "ingest router", "plc")
        peer.send(sample("boiler"))
        harness.until(lambda: doorkeeper.socket is None)
    harness.transport.look()
    assert harness.batch(1).series == ["boiler"]
