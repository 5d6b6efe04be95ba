"""Every ZeroMQ socket of the daemon: samples in, forecasts and replies out, the scoreboard to the web process.

A socket belongs to the one thread that made it. What a message means is the wire's business; the transport bounds what
it takes in, finds the way back to a sender, and never blocks except in `Transport.wait`.
"""

from __future__ import annotations

import logging
import math
import select
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from math import inf
from typing import Any, NamedTuple

import zmq

from ..producers.key import Curve
from .clients import Client, Clients, Entry
from .door import FAILED, Door
from .endpoint import Endpoint, parse
from .ledger import PASSING
from .settings import Limits, Settings
from .wire import Inbox, Origin
from .zap import Doorkeeper

#: Messages kept for one connection before the sender is held back (ROUTER, PULL) or loses some (SUB).
RECEIVE_MESSAGES_MAX = 1_000
#: Forecasts kept for one subscriber; a slower one loses some, and nobody else does. More than two full batches.
PUBLISH_MESSAGES_MAX = 50_000
#: How long a connection may stay silent before the peer's kernel is asked whether it is there, how often it is asked,
#: and how long its answers, or those to what was sent, may take in all. ZeroMQ's own heartbeats end the process
#: (zeromq/libzmq#4364) when one is due for a peer that has gone while its messages still wait.
KEEPALIVE_S, KEEPALIVES, SILENCE_MS = 5, 2, 15_000
HANDSHAKE_MS = 5_000
#: How long what was sent may stay on its way when the daemon ends.
LINGER_MS = 1_000
#: Senders whose way back is kept ready.
ORIGINS_MAX = 4_096

#: After so many seconds without a message the next one is taken to be alone. Whether there are more is asked only when
#: it has been dealt with: the question costs as much as receiving it.
QUIET_S = 0.001

#: Seconds after which what has arrived by then is taken through the pipeline, though there is more: a flood of what is
#: dear to read must not hold up the others; one of what is no sample at all even less.
RECEIVE_S, REFUSE_S = 0.005, 0.001

# pyzmq's own enumerations are slow to combine
_NOW, _MORE, _EVENTS, _READABLE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.EVENTS), int(zmq.POLLIN)
log = logging.getLogger("forecastd.engine")

_KINDS = {"router": zmq.ROUTER, "pull": zmq.PULL, "sub": zmq.SUB, "publish": zmq.XPUB, "board": zmq.XPUB}


class EndpointError(Exception):
    """An endpoint cannot be bound; the text names it and says why."""


class Lock(NamedTuple):
    """What makes a socket let in authorised keys alone: the daemon's secret key, and who is asked."""

    secret: bytes
    doorkeeper: Doorkeeper

    def on(self, socket: zmq.SyncSocket, domain: str) -> None:
        socket.curve_server = True
        socket.curve_secretkey = self.secret
        socket.zap_domain = domain.encode()
        # Without this, everybody is let in while the doorkeeper is away.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


class Ingest:
    """A socket that samples arrive at."""

    def __init__(
        self, context: zmq.SyncContext, endpoint: Endpoint, index: int, limits: Limits, lock: Lock | None
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.socket = open_socket(context, endpoint)
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
        # A socket that connects has nobody to let in; `options.exposed` has it that this was asked for.
        self._clients = lock.doorkeeper.clients if lock and not endpoint.connect else None
        #: How often a producer's identity was taken over by the owner of another key.
        self.takeovers = 0
        if lock and not endpoint.connect:
            lock.on(self.socket, "ingest")
            if endpoint.kind == "router":
                # Whoever comes back is not shut out by what is left of the connection before. Without keys anybody
                # could take the place of another so.
                self.socket.router_handover = 1
        self.door = Door(context, self.socket, f"inproc://door-{index}")
        self.address = _attach(self.socket, endpoint)

    def receive(self, inbox: Inbox, marks: list[tuple[float, int]]) -> None:
        """Takes what has arrived, as far as the batch has room, or one message if none came lately; `marks` gets when,
        and how many samples the batch then had."""
        receive, clock = self.socket.recv, time.perf_counter
        get: Callable[[int], Any] = self.socket.get
        take = self._routed if self.endpoint.kind == "router" else self._plain
        first, until = True, inf
        while inbox.room > 0 and not (inbox.full and self._alone):
            try:
                frame = receive(_NOW, False)
            except zmq.Again:
                return
            now = clock()
            take(frame, inbox)
            marks.append((now, inbox.size))
            quiet, self._heard_at = now - self._heard_at > QUIET_S, now
            if first:
                # To ask once is cheaper than to run into the exception.
                if quiet or not get(_EVENTS) & _READABLE:
                    return
                first, until = False, now + RECEIVE_S
            elif now > until or (inbox.refused and now > until - RECEIVE_S + REFUSE_S):
                return

    @property
    def _alone(self) -> bool:
        """Whether nobody else is held back when this socket is not read: one sender alone has spoken, or there is no
        telling them apart."""
        return self.endpoint.kind != "router" or len(self._origins) < 2

    def allow(self, clients: Clients) -> None:
        """From now on these may send; the others' connections stand, but what they say is refused."""
        if self._clients is not None:
            self._clients = clients
            self._origins.clear()

    def _plain(self, frame: zmq.Frame, inbox: Inbox) -> None:
        origin = self._origin if self._clients is None else self._owner(frame)
        frames = self._rest(frame)
        if frames is None:
            inbox.refuse("oversize")
        elif origin is None:
            inbox.refuse("unauthorised")
        else:
            inbox.add(frames, origin)

    def _routed(self, identity: zmq.Frame, inbox: Inbox) -> None:
        frames = self._rest() if identity.more else []
        if frames is None:
            return inbox.refuse("oversize")
        # A REQ socket puts an empty frame before what it says, and wants it back.
        delimited = len(frames) > 1 and not frames[0]
        if delimited:
            frames = frames[1:]
        if not frames:
            return inbox.refuse("malformed")
        client = None
        if self._clients is not None:
            client = self._client(identity)
            if client is None:
                return inbox.refuse("unauthorised")
        return inbox.add(frames, self._origin_of(identity.bytes, delimited, client))

    def _client(self, frame: zmq.Frame) -> Client | None:
        """Whose connection this came by, None for a key that is authorised no more."""
        return self._clients.get(str(frame.get("User-Id"))) if self._clients is not None else None

    def _owner(self, frame: zmq.Frame) -> Origin | None:
        client = self._client(frame)
        return self._origin_of(client.key.encode(), False, client) if client else None

    def _rest(self, first: zmq.Frame | None = None) -> list[bytes] | None:
        """The frames of the message up to its end; None when they are too many or too large. All are taken off the
        socket."""
        frames: list[bytes] = []
        limits, whole = self.limits, True
        frame = self.socket.recv(_NOW, False) if first is None else first
        while True:
            whole = whole and len(frames) < limits.frames and len(frame) <= limits.frame_bytes
            if whole:
                frames.append(frame.bytes)
            if not frame.more:
                return frames if whole else None
            frame = self.socket.recv(_NOW, False)

    def _origin_of(self, identity: bytes, delimited: bool, client: Client | None) -> Origin:
        origin = self._origins.get((identity, delimited))
        if origin is None or origin.client is not client:
            if origin is not None:
                self.takeovers += 1
            elif len(self._origins) >= ORIGINS_MAX:
                self._origins.clear()
            routed = self.endpoint.kind == "router"
            peer = self._index + (b"\1" if delimited else b"\0") + identity if routed else b""
            origin = Origin(peer, routed, client.producer if client else _name(identity), client)
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

    def __init__(self, context: zmq.SyncContext, endpoint: Endpoint, lock: Lock | None) -> None:
        self.socket = open_socket(context, endpoint)
        self.socket.sndhwm = PUBLISH_MESSAGES_MAX
        if lock:
            lock.on(self.socket, endpoint.kind)
        self.door = Door(context, self.socket, f"inproc://door-{endpoint.kind}")
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
        self.socket.disable_monitor()
        self.door.close()
        self.socket.close(LINGER_MS)


class Transport:
    """The engine's sockets. `EndpointError` when one cannot be bound.

    With a `secret`, the daemon's CURVE key, whoever connects is one of `clients`.
    """

    def __init__(
        self,
        settings: Settings,
        board: str = "tcp://127.0.0.1:*",
        secret: str = "",
        clients: Sequence[Entry] = (),
    ) -> None:
        self.context: zmq.SyncContext = zmq.Context()
        self._house = zmq.curve_public(secret.encode()).decode() if secret else ""
        self.doorkeeper = Doorkeeper(self.context, Clients(clients, self._house)) if secret else None
        lock = Lock(secret.encode(), self.doorkeeper) if self.doorkeeper else None
        try:
            self.ingest = [
                Ingest(self.context, parse(text), index, settings.limits, lock)
                for index, text in enumerate(settings.ingest)
            ]
            self.publish = Publisher(self.context, parse(settings.publish, ("publish",)), lock)
            self.board = Publisher(self.context, parse(board, ("board",)), lock)
        except BaseException:
            self.context.destroy(0)
            raise
        self.doors = [*(ingest.door for ingest in self.ingest), self.publish.door, self.board.door]
        # The web process wants a scoreboard at once, and every subscription to be heard of.
        self.board.socket.xpub_verbose = 1
        self._turn = 0
        self._poller = zmq.Poller()
        for socket in (*(ingest.socket for ingest in self.ingest), self.publish.socket, self.board.socket):
            self._poller.register(socket, zmq.POLLIN)
        self.doorkeeper_restarts = 0
        self._seat()
        #: Connections there may be.
        self.connections_max = settings.limits.connections
        # One descriptor for all doors, because each socket in the poller costs every wait a little.
        self._bell = select.epoll()
        for door in self.doors:
            door.look()  # until then it does not ring
            self._bell.register(int(door.events.get(zmq.FD)), select.EPOLLIN)
        self._bell_at = self._bell.fileno()
        self.watch(self._bell_at)

    @property
    def bound(self) -> list[str]:
        """A line for each socket with the address really bound."""
        ingest = [f"ingest {one.endpoint.kind} {one.address}" for one in self.ingest]
        return [*ingest, f"publish {self.publish.address}", f"board {self.board.address}"]

    def watch(self, descriptor: Any) -> None:
        """Makes `wait` return when this descriptor, or socket, can be read, too."""
        self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, timeout_s: float) -> list[Any]:
        """What can be read now: sockets, and descriptors under watch. Returns at the latest after `timeout_s`
        seconds, and may return nothing: after somebody came or went, which is seen to at once."""
        ready = [ready for ready, _ in self._poller.poll(max(0, math.ceil(timeout_s * 1000)))]
        if self._bell_at in ready:
            ready.remove(self._bell_at)
            self._look_at_doors()
        return ready

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

    def allow(self, clients: Sequence[Entry]) -> None:
        """From now on these are let in, and what others say is refused."""
        if self.doorkeeper:
            self.doorkeeper.clients = Clients(clients, self._house)
            for ingest in self.ingest:
                ingest.allow(self.doorkeeper.clients)

    def restrict(self, limits: Limits) -> None:
        """From now on these bounds hold for what is taken in."""
        for ingest in self.ingest:
            ingest.limits = limits

    def admit(self, ready: Container[Any]) -> None:
        """Answers who wants to be let in. A doorkeeper that fails is sent away, and replaced by `look`."""
        if self.doorkeeper is None or self.doorkeeper.socket not in ready:
            return
        try:
            self.doorkeeper.answer()
        except Exception as error:
            log.error("nobody new is let in until the doorkeeper is back: %s", error)
            self.dismiss()

    def dismiss(self) -> None:
        """Closes the doorkeeper's socket. Until `look` opens it again, nobody new is let in."""
        if self.doorkeeper is not None and self.doorkeeper.socket is not None:
            self._poller.unregister(self.doorkeeper.socket)
            self.doorkeeper.close()

    def look(self) -> None:
        """Takes in who came and went, and replaces a doorkeeper that was sent away. For once a second."""
        self._look_at_doors()
        if self.doorkeeper is not None and self.doorkeeper.socket is None:
            self.doorkeeper.open()
            self._seat()
            self.doorkeeper_restarts += 1

    def _look_at_doors(self) -> None:
        for door in self.doors:
            door.look(self.connections_max - self.connections)

    @property
    def connections(self) -> int:
        """How many there are now, of producers, subscribers and the daemon's own processes."""
        return sum(len(door.open) for door in self.doors)

    def _seat(self) -> None:
        if self.doorkeeper is not None and self.doorkeeper.socket is not None:
            self._poller.register(self.doorkeeper.socket, zmq.POLLIN)

    def strangers(self) -> int:
        """Connections to ingest sockets that ended since the last call without having spoken ZeroMQ. Where keys are
        asked for, those are handshakes that failed instead."""
        self.look()
        count = 0
        for ingest in self.ingest:
            count += ingest.door.strangers if self.doorkeeper is None else 0
            ingest.door.strangers = 0
        return count

    def told(self) -> dict[str, float]:
        """What happened at the doors, as counters of the scoreboard."""
        failed: Counter[str] = Counter()
        for door in self.doors:
            failed.update(door.failed)
        told: dict[str, float] = {f"handshakes_{why}": failed[why] for why in FAILED.values()}
        told["connections"] = self.connections
        told["crowded"] = sum(door.crowded for door in self.doors)
        told["takeovers"] = sum(ingest.takeovers for ingest in self.ingest)
        told["doorkeeper_away"] = float(self.doorkeeper is not None and self.doorkeeper.socket is None)
        told["doorkeeper_restarts"] = self.doorkeeper_restarts
        return told

    def close(self) -> None:
        """Ends all sockets; what was sent has `LINGER_MS` to leave."""
        for ingest in self.ingest:
            ingest.close()
        self.publish.close()
        self.board.close()
        if self.doorkeeper is not None:
            self.doorkeeper.close()
        self._bell.close()
        self.context.term()


def open_socket(context: zmq.SyncContext, endpoint: Endpoint) -> zmq.SyncSocket:
    """A socket of the endpoint's kind that notices a peer that has gone; neither bound nor connected."""
    socket = context.socket(_KINDS[endpoint.kind])
    socket.linger = LINGER_MS
    socket.tcp_keepalive, socket.tcp_keepalive_cnt = 1, KEEPALIVES
    socket.tcp_keepalive_idle = socket.tcp_keepalive_intvl = KEEPALIVE_S
    socket.tcp_maxrt = SILENCE_MS
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
    """What a producer is called that does not say: its socket's identity, in hexadecimal where it is not text. One that
    ZeroMQ made up is good for a connection, and marked."""
    if identity[:1] == b"\0":
        return PASSING + identity[1:].hex()
    try:
        text = identity.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text else identity.hex()


def new_pair() -> tuple[str, str]:
    """A new public and secret key."""
    made, secret = zmq.curve_keypair()
    return made.decode(), secret.decode()


def house_curve(secret: str) -> Curve:
    """With what a process of the daemon itself connects to the daemon whose secret key this is."""
    return Curve(secret.encode(), zmq.curve_public(secret.encode()))
