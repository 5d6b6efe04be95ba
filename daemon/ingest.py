"""A socket that samples arrive at: what it takes in at a time, and the way back to who sent it."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Any

import zmq

from .clients import Client, Clients
from .door import Door
from .endpoint import Endpoint
from .ledger import PASSING
from .settings import Limits
from .sockets import Lock, attach, open_socket
from .wire import Inbox, Origin

#: Messages kept for one connection before the sender is held back (ROUTER, PULL) or loses some (SUB).
RECEIVE_MESSAGES_MAX = 1_000
#: Senders whose way back is kept ready.
ORIGINS_MAX = 4_096

#: After so many seconds without a message the next one is taken to be alone. Whether there are more is asked only when
#: it has been dealt with: the question costs as much as receiving it.
QUIET_S = 0.001

#: Seconds after which what has arrived by then is taken through the pipeline, though there is more: a flood of what is
#: dear to read must not hold up the others; one of what is no sample at all even less.
RECEIVE_S, REFUSE_S = 0.005, 0.001

# pyzmq's own enumerations are slow to combine
_NOW, _EVENTS, _READABLE = int(zmq.NOBLOCK), int(zmq.EVENTS), int(zmq.POLLIN)


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
        self.address = attach(self.socket, endpoint)

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
            quiet, self._heard_at = now - self._heard_at > QUIET_S and not inbox.behind, now
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
        self.socket.close()


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
