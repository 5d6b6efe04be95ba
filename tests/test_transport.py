"""The daemon's sockets, against real peers: what arrives, what is bounded, what finds its way back."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import zmq

from forecastd.daemon.batch import Batch
from forecastd.daemon.ledger import PASSING
from forecastd.daemon.settings import Limits, Settings
from forecastd.daemon.sockets import EndpointError
from forecastd.daemon.transport import Transport
from forecastd.daemon.wire import Inbox

from .patience import until

LIMITS = Limits(frame_bytes=4096, frames=4, batch_samples=100)
JUNK = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 64, bytes(range(256)) * 40, b"\x00" * 100]
ANY = "tcp://127.0.0.1:0"


class Harness:
    """A transport with one socket of each kind, an inbox, and peers that end with it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        ingest = (ANY, f"pull+{ANY}", f"sub+{ANY}")
        self.transport = Transport(Settings(ingest=ingest, publish=ANY, limits=limits))
        self.inbox = Inbox(limits)
        self.marks: list[tuple[float, int]] = []
        self.address = dict(line.rsplit(" ", 1) for line in self.transport.bound)
        self.context: zmq.SyncContext = zmq.Context()
        self.peers: list[zmq.SyncSocket] = []

    def peer(self, kind: int, where: str, identity: bytes = b"") -> zmq.SyncSocket:
        peer = self.context.socket(kind)
        self.peers.append(peer)
        peer.linger, peer.rcvtimeo, peer.sndtimeo = 0, 20_000, 20_000
        if identity:
            peer.identity = identity
        peer.connect(self.address[where])
        return peer

    def receive(self) -> None:
        self.transport.receive(self.inbox, self.marks, self.transport.wait(0.01))

    def batch(self, samples: int = 1, **refused: int) -> Batch:
        """The batch once it has so many samples and refusals."""

        def there() -> bool:
            self.receive()
            return self.inbox.size >= samples and self.inbox.refused == refused

        until(there, f"{samples} samples, refused {refused}: {self.inbox.size}, {self.inbox.refused}")
        self.marks.clear()
        return self.inbox.take()

    def close(self) -> None:
        self.context.destroy(0)
        self.transport.close()


@pytest.fixture
def harness() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


# ---- in


def test_each_socket_is_named_with_the_address_really_bound(harness: Harness) -> None:
    """In the order of the configuration, with the port ZeroMQ chose."""
    lines = harness.transport.bound
    assert [line.rsplit(" ", 1)[0] for line in lines] == [
        "ingest router",
        "ingest pull",
        "ingest sub",
        "publish",
        "board",
    ]
    assert all(int(line.rpartition(":")[2]) > 0 for line in lines)


@pytest.mark.parametrize(
    ("kind", "where"), [(zmq.DEALER, "ingest router"), (zmq.PUSH, "ingest pull"), (zmq.PUB, "ingest sub")]
)
def test_every_kind_of_socket_takes_every_payload(harness: Harness, kind: int, where: str) -> None:
    """Objects, arrays, topic and number, columns."""
    peer = harness.peer(kind, where)
    if kind == zmq.PUB:
        until(lambda: (peer.send_multipart([b"hello", b"0"]), harness.receive(), harness.inbox.size)[2])
        while harness.transport.wait(0.05):
            harness.receive()
        harness.inbox.take()
    peer.send(b'{"series":"a","value":1}')
    peer.send(b'[{"series":"b","value":2},{"series":"c","value":3}]')
    peer.send_multipart([b"d", b"4"])
    peer.send_multipart([b'{"columns":1,"series":["e","f"]}', struct.pack("<2d", 5, 6)])
    batch = harness.batch(6)
    assert list(zip(batch.series, batch.value.tolist(), strict=True)) == list(zip("abcdef", range(1, 7), strict=True))


def test_a_dealer_is_answered_and_so_is_a_req(harness: Harness) -> None:
    """The way back is in the parcel; a REQ socket gets its empty frame back."""
    dealer, req = harness.peer(zmq.DEALER, "ingest router", b"plc"), harness.peer(zmq.REQ, "ingest router")
    dealer.send(b'{"series":"a","value":1,"seq":1}')
    req.send(b'{"series":"b","value":1,"seq":1}')
    batch = harness.batch(2)
    for parcel in batch.parcels:
        harness.transport.reply(parcel.peer, batch.series[parcel.start].encode())
    assert dealer.recv_multipart() == [b"a"]
    assert req.recv_multipart() == [b"b"]
    assert {parcel.lossless for parcel in batch.parcels} == {True}
    assert "plc" in {parcel.producer for parcel in batch.parcels}


def test_a_peer_that_is_gone_is_not_waited_for(harness: Harness) -> None:
    """Nor does the reply raise."""
    dealer = harness.peer(zmq.DEALER, "ingest router")
    dealer.send(b'{"series":"a","value":1,"seq":1}')
    (parcel,) = harness.batch().parcels
    dealer.close(0)
    harness.transport.reply(parcel.peer, b"{}")
    harness.transport.reply(parcel.peer[:2] + b"nobody", b"{}")


def test_a_peer_that_does_not_read_is_not_waited_for(harness: Harness) -> None:
    """Its replies are dropped when its queue is full."""
    dealer = harness.peer(zmq.DEALER, "ingest router")
    dealer.send(b'{"series":"a","value":1,"seq":1}')
    (parcel,) = harness.batch().parcels
    for _ in range(20_000):
        harness.transport.reply(parcel.peer, b"x" * 1000)


def test_a_parcel_of_a_socket_without_a_way_back_names_the_socket(harness: Harness) -> None:
    """So that numbers without a producer have somebody to belong to."""
    harness.peer(zmq.PUSH, "ingest pull").send(b'{"series":"a","value":1,"seq":1}')
    (parcel,) = harness.batch().parcels
    assert (parcel.peer, parcel.lossless) == (b"", False)
    assert parcel.producer.startswith("pull tcp://")


def test_a_batch_takes_what_it_has_room_for_and_leaves_the_rest(harness: Harness) -> None:
    """Nothing is lost: the next batch goes on there."""
    push = harness.peer(zmq.PUSH, "ingest pull")
    for n in range(250):
        push.send_multipart([b"a", str(n).encode()])
    values = [value for size in (100, 100, 50) for value in harness.batch(size).value.tolist()]
    assert values == list(range(250))


@pytest.mark.parametrize("first", [0, 1])
def test_a_busy_socket_starves_no_other(harness: Harness, first: int) -> None:
    """Whatever one of them sends, the other is heard within a few batches, wherever it stands in the configuration."""
    kinds = [(zmq.DEALER, "ingest router"), (zmq.PUSH, "ingest pull")]
    busy, quiet = harness.peer(*kinds[first]), harness.peer(*kinds[1 - first])
    for _ in range(900):
        busy.send_multipart([b"busy", b"1"])
    harness.batch(100)
    quiet.send_multipart([b"quiet", b"1"])
    until(lambda: harness.transport.ingest[1 - first].socket.poll(0))
    assert "quiet" in [name for _ in range(3) for name in harness.batch(100).series]


def test_after_a_pause_one_message_is_taken_and_more_where_the_pause_was_work(harness: Harness) -> None:
    class Behind(Inbox):
        behind = True  # type: ignore[assignment]

    dealer, ingest = harness.peer(zmq.DEALER, "ingest router"), harness.transport.ingest[0]

    def taken() -> int:
        for _ in range(10):
            dealer.send_multipart([b"a", b"1"])
        until(lambda: ingest.socket.poll(0))
        ingest._heard_at = 0.0
        before = harness.inbox.size
        harness.receive()
        return harness.inbox.size - before

    assert taken() == 1
    harness.inbox = Behind(LIMITS)
    until(lambda: taken() > 1)


def test_an_inbox_that_is_full_holds_back_who_is_alone_on_a_socket_and_nobody_else(harness: Harness) -> None:
    """Several on a PULL are one, for want of a name; of several on a ROUTER the inbox decides what is too much."""

    class Full(Inbox):
        full = True  # type: ignore[assignment]

    plain, harness.inbox = harness.inbox, Full(LIMITS)
    alone, push = harness.peer(zmq.DEALER, "ingest router"), harness.peer(zmq.PUSH, "ingest pull")
    for n in range(3):
        alone.send_multipart([b"alone", str(n).encode()])
        push.send_multipart([b"push", str(n).encode()])
    for ingest in harness.transport.ingest[:2]:
        until(lambda ingest=ingest: ingest.socket.poll(0))  # type: ignore[misc]
    harness.receive()
    assert not harness.inbox
    full, harness.inbox = harness.inbox, plain
    assert harness.batch(6).series.count("alone") == 3
    other = harness.peer(zmq.DEALER, "ingest router")
    other.send_multipart([b"other", b"0"])
    assert harness.batch(1).series == ["other"]
    harness.inbox = full
    push.send_multipart([b"push", b"3"])
    until(lambda: harness.transport.ingest[1].socket.poll(0))
    alone.send_multipart([b"alone", b"3"])
    assert harness.batch(1).series == ["alone"]


def test_when_a_message_came_is_told_with_what_it_brought(harness: Harness) -> None:
    """Times rise, and sizes are those of the batch after each message."""
    push = harness.peer(zmq.PUSH, "ingest pull")
    push.send(b'[{"series":"a","value":1},{"series":"b","value":2}]')
    push.send(b"junk")
    push.send_multipart([b"c", b"3"])
    until(lambda: (harness.receive(), len(harness.marks) == 3)[1])
    assert [size for _, size in harness.marks] == [2, 2, 3]
    assert sorted(harness.marks) == harness.marks


def test_the_daemon_may_connect_to_a_publisher_that_binds() -> None:
    """`sub+connect+tcp://…`."""
    context: zmq.SyncContext = zmq.Context()
    publisher = context.socket(zmq.XPUB)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    transport = Transport(Settings(ingest=(f"sub+connect+tcp://127.0.0.1:{port}",), publish=ANY))
    try:
        assert transport.bound[0] == f"ingest sub tcp://127.0.0.1:{port}"
        assert publisher.poll(20_000)
        publisher.send_multipart([b"a", b"1"])
        inbox = Inbox(LIMITS)
        until(lambda: (transport.receive(inbox, [], transport.wait(0.01)), inbox.size)[1])
    finally:
        context.destroy(0)
        transport.close()


# ---- bounds


@pytest.mark.parametrize(("kind", "where"), [(zmq.DEALER, "ingest router"), (zmq.PUSH, "ingest pull")])
def test_too_many_or_too_large_frames_are_one_refusal_and_the_connection_lives(
    harness: Harness, kind: int, where: str
) -> None:
    """A message over a bound is counted once, whatever its size, and the next one is taken."""
    peer = harness.peer(kind, where)
    peer.send_multipart([b"x"] * 5)
    peer.send_multipart([b"x" * 4000] * 2000)
    peer.send(b"x" * 4097)
    peer.send_multipart([b"a", b"1" * 4097])
    peer.send_multipart([b"a", b"1"])
    assert harness.batch(1, oversize=4).series == ["a"]


def test_a_message_at_the_bounds_is_taken(harness: Harness) -> None:
    """A frame of exactly the size, and exactly as many frames, are not too much."""
    push = harness.peer(zmq.PUSH, "ingest pull")
    sample = b'{"series":"a","value":1}'
    push.send(sample + b" " * (4096 - len(sample)))
    push.send_multipart([b"x"] * 4)
    assert harness.batch(1, malformed=1).series == ["a"]


def test_a_frame_beyond_all_bounds_ends_its_own_connection(harness: Harness) -> None:
    """Before it fills the memory; another peer does not notice."""
    bad, good = harness.peer(zmq.DEALER, "ingest router"), harness.peer(zmq.DEALER, "ingest router")
    with closing(bad.get_monitor_socket(zmq.Event.DISCONNECTED)) as monitor:
        bad.send(b"x" * (4 * 4096 + 1))
        assert monitor.poll(20_000)
        bad.disable_monitor()
    good.send_multipart([b"a", b"1"])
    assert harness.batch(1).series == ["a"]


def test_empty_messages_are_malformed(harness: Harness) -> None:
    """Of no frame after the identity, of an empty frame, of an empty frame after the delimiter."""
    dealer, req = harness.peer(zmq.DEALER, "ingest router"), harness.peer(zmq.REQ, "ingest router")
    dealer.send(b"")
    dealer.send_multipart([b"", b""])
    req.send(b"")
    assert len(harness.batch(0, malformed=3)) == 0


@pytest.mark.parametrize("kind", ["router", "pull", "sub"])
@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
def test_a_connection_that_speaks_no_zeromq_is_counted_and_hurts_nobody(
    harness: Harness, kind: str, junk: bytes
) -> None:
    """Bytes that are no greeting, sent to each kind of socket, are noticed; a real peer is then heard as before."""
    host, _, port = harness.address[f"ingest {kind}"].removeprefix("tcp://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(junk)
        with suppress(OSError):  # it may have been thrown out already
            connection.shutdown(socket.SHUT_WR)

        def noticed() -> int:
            harness.receive()
            return harness.transport.strangers() + harness.inbox.refused.get("malformed", 0)

        until(noticed)
    harness.inbox.take()
    dealer = harness.peer(zmq.DEALER, "ingest router")
    dealer.send_multipart([b"a", b"1"])
    assert harness.batch(1).series == ["a"]


def test_a_thousand_strangers_at_once_are_counted_and_do_not_stop_the_sockets(harness: Harness) -> None:
    """The monitor's queue is not read in the meantime, and holds nobody up; those who do speak ZeroMQ do not count."""
    host, _, port = harness.address["ingest router"].removeprefix("tcp://").partition(":")
    for n in range(1000):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"\xff" + b"\x00" * 8 + b"\x7f" + b"?" * (n % 55))
    dealer = harness.peer(zmq.DEALER, "ingest router")
    dealer.send_multipart([b"a", b"1"])
    assert harness.batch(1).series == ["a"]
    dealer.close(0)
    counted = [0]
    until(lambda: counted.append(counted[-1] + harness.transport.strangers()) or counted[-1] >= 1000)
    assert counted[-1] == 1000


def test_nobody_more_is_let_in_than_there_is_room_for_and_those_inside_go_on(harness: Harness) -> None:
    """Who comes later is shown out at once, and let in when somebody has left."""
    transport = harness.transport
    transport.connections_max = 20
    inside = [harness.peer(zmq.DEALER, "ingest router") for _ in range(20)]

    def look(probe: Callable[[], object]) -> None:
        until(lambda: (transport.wait(0.01), probe())[1])

    look(lambda: transport.connections == 20)
    host, _, port = harness.address["ingest router"].rpartition("//")[2].partition(":")
    for n in range(1, 31):
        with socket.create_connection((host, int(port)), timeout=10) as outside:
            look(lambda n=n: transport.told()["crowded"] == n)
            outside.settimeout(10)
            while outside.recv(64):
                pass
    for n, peer in enumerate(inside):
        peer.send_multipart([b"%d" % n, b"1"])
    assert len(harness.batch(20)) == 20
    late = harness.peer(zmq.DEALER, "ingest router")
    look(lambda: transport.told()["crowded"] > 30)
    inside[0].close(0)
    # what it says on a connection that is then shown out is lost, so it says it again
    look(lambda: (late.send_multipart([b"late", b"1"]), harness.receive(), harness.inbox.size)[2])
    assert set(harness.inbox.take().series) == {"late"}
    assert transport.strangers() == 0
    assert transport.connections == 20


@pytest.mark.parametrize("identity", [b"\0abcd", b"\0"])
def test_a_name_that_zeromq_made_up_is_marked_as_good_for_a_connection(identity: bytes) -> None:
    """So that the ledger may forget it. One that a producer gave its socket is a name."""
    from forecastd.daemon.ingest import _name

    assert _name(identity).startswith(PASSING)
    assert [_name(name) for name in (b"plc", b"\xff\0", b"")] == ["plc", "ff00", ""]


# ---- out


def test_only_what_somebody_subscribed_to_has_a_topic(harness: Harness) -> None:
    """By prefix, as ZeroMQ has it, and no longer than the subscription lasts."""
    publish = harness.transport.publish
    subscriber = harness.peer(zmq.SUB, "publish")
    assert publish.topic("boiler") is None
    subscriber.subscribe("boil")
    until(lambda: (publish.listen(), publish.prefixes == {b"boil"})[1])
    assert [publish.topic(name) for name in ("boiler", "boil", "boi", "pump")] == [b"boiler", b"boil", None, None]
    subscriber.subscribe("")
    until(lambda: (publish.listen(), publish.topic("pump"))[1])
    subscriber.unsubscribe("")
    until(lambda: (publish.listen(), publish.topic("pump") is None)[1])
    subscriber.close(0)
    until(lambda: (publish.listen(), not publish.prefixes)[1])
    assert publish.topic("boiler") is None


def test_two_subscribers_of_one_prefix_are_one_until_both_are_gone(harness: Harness) -> None:
    """The second one's leaving is what ends it."""
    publish = harness.transport.publish
    first, second = harness.peer(zmq.SUB, "publish"), harness.peer(zmq.SUB, "publish")
    for subscriber in (first, second):
        subscriber.subscribe("a")
    until(lambda: (publish.listen(), publish.topic("a"))[1])
    until(lambda: (publish.send(b"a", b"1"), second.poll(10))[1])
    first.close(0)
    assert second.recv_multipart() == [b"a", b"1"]
    for _ in range(20):
        publish.listen()
        assert publish.topic("a")
        publish.send(b"a", b"2")
        assert second.poll(20_000)
        second.recv_multipart()


def test_what_subscribers_send_besides_is_ignored(harness: Harness) -> None:
    """An XSUB may send anything upstream."""
    publish = harness.transport.publish
    peer = harness.peer(zmq.XSUB, "publish")
    for frames in ([b""], [b"\x02a"], [b"hello", b"world"], [b"\x01a"]):
        peer.send_multipart(frames)
    until(lambda: (publish.listen(), publish.prefixes == {b"a"})[1])


def test_a_slow_subscriber_loses_and_the_daemon_does_not_wait(harness: Harness) -> None:
    """Two hundred thousand messages for one that does not read: all are sent, a part is there."""
    publish = harness.transport.publish
    slow = harness.peer(zmq.SUB, "publish")
    slow.subscribe("a")
    until(lambda: (publish.listen(), publish.topic("a"))[1])
    payload = b"x" * 1000
    for _ in range(200_000):
        publish.send(b"a", payload)
    got = 0
    while slow.poll(500):
        slow.recv_multipart()
        got += 1
    assert 1000 < got < 200_000


# ---- endpoints


def test_an_endpoint_that_is_taken_is_named(harness: Harness) -> None:
    """And nothing of the failed transport stays bound."""
    taken = harness.address["publish"]
    with pytest.raises(EndpointError, match=f"{taken}: address already in use$"):
        Transport(Settings(ingest=(ANY,), publish=taken))


def test_an_ipc_endpoint_works_as_well(tmp_path: Path) -> None:
    """A path instead of a port."""
    path = f"ipc://{tmp_path}/in"
    transport = Transport(Settings(ingest=(f"pull+{path}",), publish=ANY))
    with ExitStack() as stack:
        stack.callback(transport.close)
        context: zmq.SyncContext = zmq.Context()
        stack.callback(context.destroy, 0)
        push = context.socket(zmq.PUSH)
        push.connect(path)
        push.send_multipart([b"a", b"1"])
        inbox = Inbox(LIMITS)
        until(lambda: (transport.receive(inbox, [], transport.wait(0.01)), inbox.size)[1])
        assert transport.bound[0] == f"ingest pull {path}"


def test_a_descriptor_under_watch_ends_the_wait(harness: Harness) -> None:
    """As signals and the supervisor's lines do."""
    reading, writing = os.pipe()
    harness.transport.watch(reading)
    os.write(writing, b"x")
    assert harness.transport.wait(60.0) == [reading]
    os.close(reading)
    os.close(writing)


#: A daemon too busy to receive, and a peer that floods it and goes.
ABANDONED = """
import socket, sys, time, zmq
from forecastd.daemon.settings import Settings
from forecastd.daemon.transport import Transport
transport = Transport(Settings(ingest=("tcp://127.0.0.1:0",), publish="tcp://127.0.0.1:0"))
context = zmq.Context()
peer = context.socket(zmq.DEALER)
peer.sndhwm, peer.linger, peer.sndtimeo = 1000, 0, 500
peer.connect(transport.ingest[0].address)
try:
    while True:
        peer.send(bytes(60_000))
except zmq.Again:
    pass
context.destroy(0)
time.sleep(12)
print("alive")
"""


@pytest.mark.slow
def test_a_peer_that_floods_and_goes_ends_nothing() -> None:
    """ZeroMQ's own heartbeats, sent to one that has gone while its messages still wait, would end the process."""
    said = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout, said.stderr) == (0, "alive\n", "")
