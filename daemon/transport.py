"""Every ZeroMQ socket of the daemon: samples in, forecasts and replies out, the scoreboard to the web process.

A socket belongs to the one thread that made it. What a message means is the wire's business; the transport bounds what
it takes in, finds the way back to a sender, and never blocks except in `Transport.wait`.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable, Container, Iterator
from typing import Any

import zmq

from .endpoint import Endpoint, parse, reachable
from .settings import Limits, Settings
from .wire import Inbox, Origin

#: Messages kept for one connection before the sender is held back (ROUTER, PULL) or loses some (SUB).
RECEIVE_MESSAGES_MAX = 1_000
#: Forecasts kept for one subscriber; a slower one loses some, and nobody else does. More than two full batches.
PUBLISH_MESSAGES_MAX = 50_000
#: How long a connection may stay silent: a heartbeat goes out after the first, and without an answer in the second it
#: is cut.
HEARTBEAT_MS, SILENCE_MS = 5_000, 15_000
HANDSHAKE_MS = 5_000
#: How long what was sent may stay on its way when the daemon ends.
LINGER_MS = 1_000
#: Senders whose way back is kept ready.
ORIGINS_MAX = 4_096

#: After so many seconds without a message the next one is taken to be alone. Whether there are more is asked only when
#: it has been dealt with: the question costs as much as receiving it.
QUIET_S = 0.001

# pyzmq's own enumerations are slow to combine
_NOW, _MORE, _EVENTS, _READABLE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.EVENTS), int(zmq.POLLIN)

_KINDS = {"router": zmq.ROUTER, "pull": zmq.PULL, "sub": zmq.SUB, "publish": zmq.XPUB, "board": zmq.XPUB}


class EndpointError(Exception):
    """An endpoint cannot be bound; the text names it and says why."""


class Door:
    """Who comes and goes at a socket that is bound, by the events of its monitor."""

    EVENTS = zmq.Event.ACCEPTED | zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED

    def __init__(self, context: zmq.SyncContext, socket: zmq.SyncSocket, where: str) -> None:
        socket.monitor(where, self.EVENTS)
        self._events = context.socket(zmq.PAIR)
        # Unbounded, because ZeroMQ's own thread would wait for us at a full one.
        self._events.rcvhwm = 0
        self._events.connect(where)
        self._new: dict[int, None] = {}

    def strangers(self) -> int:
        """Connections that ended since the last call without having spoken ZeroMQ."""
        count = 0
        while self._events.poll(0):
            event, descriptor = struct.unpack("=hi", self._events.recv_multipart()[0])
            if event == zmq.Event.ACCEPTED:
                self._new[descriptor] = None
            elif event == zmq.Event.DISCONNECTED:
                count += descriptor in self._new
                self._new.pop(descriptor, None)
            elif self._new:
                # The event does not say whose handshake it was; the one that waited longest is the best guess, and a
                # wrong one only counts a stranger later.
                del self._new[next(iter(self._new))]
        return count

    def close(self) -> None:
        self._events.close(0)


class Ingest:
    """A socket that samples arrive at."""

    def __init__(self, context: zmq.SyncContext, endpoint: Endpoint, index: int, limits: Limits) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.socket = _open(context, endpoint)
        self.socket.rcvhwm = RECEIVE_MESSAGES_MAX
        # The bound of a frame is ours to check, so that its sender's other messages live; this one cuts the
        # connection.
        self.socket.maxmsgsize = limits.frame_bytes * limits.frames
        if endpoint.kind == "sub":
            self.socket.subscribe(b"")
        self._index = bytes([index])
        self._origin = Origin(name=endpoint.label)
        self._origins: dict[tuple[bytes, bool], Origin] = {}
        self._heard_at = 0.0
        self.door = Door(context, self.socket, f"inproc://door-{index}")
        self.address = _attach(self.socket, endpoint)

    def receive(self, inbox: Inbox, marks: list[tuple[float, int]]) -> None:
        """Takes what has arrived, as far as the batch has room, or one message if none came lately; `marks` gets when,
        and how many samples the batch then had."""
        receive, clock = self.socket.recv, time.perf_counter
        get: Callable[[int], Any] = self.socket.get
        take = self._routed if self.endpoint.kind == "router" else self._plain
        first = True
        while inbox.room > 0:
            try:
                frame = receive(_NOW, False)
            except zmq.Again:
                return
            now = clock()
            take(frame, inbox)
            marks.append((now, inbox.size))
            quiet, self._heard_at = now - self._heard_at > QUIET_S, now
            # To ask once is cheaper than to run into the exception.
            if first and (quiet or not get(_EVENTS) & _READABLE):
                return
            first = False

    def _plain(self, frame: zmq.Frame, inbox: Inbox) -> None:
        if frame.more:
            frames = self._rest([frame])
            if frames is None:
                inbox.refuse("oversize")
            else:
                inbox.add(frames, self._origin)
        elif len(frame) > self.limits.frame_bytes:
            inbox.refuse("oversize")
        else:
            inbox.add((frame.bytes,), self._origin)

    def _routed(self, identity: zmq.Frame, inbox: Inbox) -> None:
        frames = self._rest([]) if identity.more else []
        if frames is None:
            return inbox.refuse("oversize")
        # A REQ socket puts an empty frame before what it says, and wants it back.
        delimited = len(frames) > 1 and not frames[0]
        if delimited:
            frames = frames[1:]
        if not frames:
            return inbox.refuse("malformed")
        return inbox.add(frames, self._origin_of(identity.bytes, delimited))

    def _rest(self, first: list[zmq.Frame]) -> list[bytes] | None:
        """The frames of the message up to its end; None when they are too many or too large. All are taken off the
        socket."""
        frames, whole, more = first, True, True
        while more:
            frame = self.socket.recv(_NOW, False)
            more = frame.more
            if len(frames) < self.limits.frames and whole:
                frames.append(frame)
            else:
                whole = False
        if not whole or any(len(frame) > self.limits.frame_bytes for frame in frames):
            return None
        return [frame.bytes for frame in frames]

    def _origin_of(self, identity: bytes, delimited: bool) -> Origin:
        origin = self._origins.get((identity, delimited))
        if origin is None:
            if len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            origin = Origin(self._index + (b"\1" if delimited else b"\0") + identity, True, _name(identity))
            self._origins[identity, delimited] = origin
        return origin

    def reply(self, peer: bytes, payload: bytes) -> None:
        """Sends to a peer as `Origin.peer` names it. ZeroMQ drops what is for one that is gone or does not read: it
        will send again what it was not told of."""
        self.socket.send_multipart([peer[2:], b"", payload] if peer[1] else [peer[2:], payload], zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.disable_monitor()
        self.door.close()
        self.socket.close(LINGER_MS)


class Publisher:
    """An XPUB socket, and what its subscribers asked for."""

    def __init__(self, context: zmq.SyncContext, endpoint: Endpoint) -> None:
        self.socket = _open(context, endpoint)
        self.socket.sndhwm = PUBLISH_MESSAGES_MAX
        self.prefixes: set[bytes] = set()
        self._lengths: list[int] = []
        self._wanted: dict[str, bytes | None] = {}
        self.address = _attach(self.socket, endpoint)

    def listen(self) -> bool:
        """Takes in new and ended subscriptions; true if there was a new one."""
        added = False
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return added
            verb, prefix = frames[0][:1], frames[0][1:]
            if verb == b"\1":
                self.prefixes.add(prefix)
                added = True
            elif verb == b"\0":
                self.prefixes.discard(prefix)
            self._lengths = sorted({len(prefix) for prefix in self.prefixes})
            self._wanted.clear()

    def topic(self, series: str) -> bytes | None:
        """The topic frame of a series somebody subscribed to, None for one that nobody wants."""
        if series not in self._wanted:
            name = series.encode()
            wanted = any(name[:length] in self.prefixes for length in self._lengths)
            self._wanted[series] = name if wanted else None
        return self._wanted[series]

    def send(self, topic: bytes, payload: bytes) -> None:
        self.socket.send(topic, _MORE)
        self.socket.send(payload, _NOW)

    def close(self) -> None:
        self.socket.close(LINGER_MS)


class Transport:
    """The engine's sockets. `EndpointError` when one cannot be bound."""

    def __init__(self, settings: Settings, board: str = "tcp://127.0.0.1:*") -> None:
        self.context: zmq.SyncContext = zmq.Context()
        try:
            self.ingest = [
                Ingest(self.context, parse(text), index, settings.limits) for index, text in enumerate(settings.ingest)
            ]
            self.publish = Publisher(self.context, parse(settings.publish, ("publish",)))
            self.board = Publisher(self.context, parse(board, ("board",)))
        except BaseException:
            self.context.destroy(0)
            raise
        # The web process wants a scoreboard at once, and every subscription to be heard of.
        self.board.socket.xpub_verbose = 1
        self._turn = 0
        self._poller = zmq.Poller()
        for socket in (*(ingest.socket for ingest in self.ingest), self.publish.socket, self.board.socket):
            self._poller.register(socket, zmq.POLLIN)

    @property
    def bound(self) -> list[str]:
        """A line for each socket with the address really bound."""
        ingest = [f"ingest {one.endpoint.kind} {one.address}" for one in self.ingest]
        return [*ingest, f"publish {self.publish.address}", f"board {self.board.address}"]

    def watch(self, descriptor: int) -> None:
        """Makes `wait` return when this descriptor can be read, too."""
        self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, timeout_s: float) -> list[Any]:
        """What can be read now: sockets, and descriptors under watch. Returns at the latest after `timeout_s`
        seconds."""
        return [ready for ready, _ in self._poller.poll(max(0, math.ceil(timeout_s * 1000)))]

    def receive(self, inbox: Inbox, marks: list[tuple[float, int]], ready: Container[Any] | None = None) -> None:
        """Fills the batch from the sockets that are ready (None: from all); each call another one is first, so that a
        busy one starves nobody."""
        count = len(self.ingest)
        for offset in range(count):
            ingest = self.ingest[(self._turn + offset) % count]
            if ready is None or ingest.socket in ready:
                ingest.receive(inbox, marks)
        self._turn += 1

    def reply(self, peer: bytes, payload: bytes) -> None:
        self.ingest[peer[0]].reply(peer, payload)

    def strangers(self) -> int:
        """Connections that ended since the last call without having spoken ZeroMQ."""
        return sum(ingest.door.strangers() for ingest in self.ingest)

    def close(self) -> None:
        """Ends all sockets; what was sent has `LINGER_MS` to leave."""
        for ingest in self.ingest:
            ingest.close()
        self.publish.close()
        self.board.close()
        self.context.term()


class Subscriber:
    """A SUB socket for the processes that show forecasts; of one thread. A subscriber that is too slow loses
    messages."""

    def __init__(self, endpoint: str, *prefixes: str | bytes) -> None:
        try:
            address = reachable(parse(endpoint, ("publish",)).address)
        except ValueError as error:
            from .errors import Misuse

            raise Misuse(str(error)) from None
        self._context: zmq.SyncContext = zmq.Context()
        self._socket = _open(self._context, Endpoint("sub", address, connect=True))
        self._socket.rcvhwm = PUBLISH_MESSAGES_MAX
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        for prefix in prefixes:
            self.subscribe(prefix)
        self._socket.connect(address)

    def subscribe(self, prefix: str | bytes) -> None:
        self._socket.subscribe(_bytes(prefix))

    def unsubscribe(self, prefix: str | bytes) -> None:
        self._socket.unsubscribe(_bytes(prefix))

    def receive(self) -> list[bytes] | None:
        """The frames of the next message, None when there is none; never waits."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def wait(self, timeout_s: float) -> bool:
        """Whether there is something to receive within the time."""
        return bool(self._poller.poll(max(0, math.ceil(timeout_s * 1000))))

    def __iter__(self) -> Iterator[list[bytes]]:
        """What has arrived, until there is no more."""
        while (frames := self.receive()) is not None:
            yield frames

    def fileno(self) -> int:
        """A descriptor for an event loop. It is edge-triggered: after each wake-up, receive until there is no more."""
        return int(self._socket.get(zmq.FD))

    def close(self) -> None:
        self._socket.close(0)
        self._context.term()


def _open(context: zmq.SyncContext, endpoint: Endpoint) -> zmq.SyncSocket:
    socket = context.socket(_KINDS[endpoint.kind])
    socket.linger = LINGER_MS
    socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT_MS, SILENCE_MS
    socket.handshake_ivl = HANDSHAKE_MS
    socket.backlog = 1_024
    if "[" in endpoint.address:
        socket.ipv6 = 1
    return socket


def _attach(socket: zmq.SyncSocket, endpoint: Endpoint) -> str:
    """Binds or connects the socket; the address really bound."""
    try:
        (socket.connect if endpoint.connect else socket.bind)(endpoint.address)
    except zmq.ZMQError as error:
        raise EndpointError(f"{endpoint.address}: {zmq.strerror(error.errno or 0).lower()}") from None
    return endpoint.address if endpoint.connect else socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _name(identity: bytes) -> str:
    """What a producer is called that does not say: its socket's identity, in hexadecimal where it is not text."""
    try:
        text = identity.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text else identity.hex()


def _bytes(prefix: str | bytes) -> bytes:
    return prefix.encode() if isinstance(prefix, str) else prefix
