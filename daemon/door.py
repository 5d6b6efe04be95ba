"""Who comes and goes at a socket that is bound, by the events of its monitor."""

from __future__ import annotations

import struct
from collections import Counter

import zmq

#: Handshakes that failed, by why: the peer does not speak CURVE, or not to this daemon's key; its own key is not
#: authorised; or it went away before, or said nothing in time.
FAILED = {
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "protocol",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "unauthorised",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "incomplete",
}


class Door:
    """The connections of one socket. `failed` counts handshakes, `strangers` connections that ended without one."""

    EVENTS = sum((*FAILED, zmq.Event.ACCEPTED, zmq.Event.HANDSHAKE_SUCCEEDED, zmq.Event.DISCONNECTED))

    def __init__(self, context: zmq.SyncContext, socket: zmq.SyncSocket, where: str) -> None:
        socket.monitor(where, self.EVENTS)
        self.events = context.socket(zmq.PAIR)
        # Unbounded, because ZeroMQ's own thread would wait for us at a full one.
        self.events.rcvhwm = 0
        self.events.connect(where)
        self.open: set[int] = set()
        self.failed: Counter[str] = Counter()
        self.strangers = 0
        self._new: dict[int, None] = {}

    def look(self) -> None:
        """Takes in what has happened since; never waits."""
        while self.events.poll(0):
            event, number = struct.unpack("=hi", self.events.recv_multipart()[0])
            if event == zmq.Event.ACCEPTED:
                self._new[number] = None
                self.open.add(number)
            elif event == zmq.Event.DISCONNECTED:
                self.strangers += number in self._new
                self._new.pop(number, None)
                self.open.discard(number)
            elif event in FAILED:
                self.failed[FAILED[event]] += 1
            elif self._new:
                # The event does not say whose handshake it was; the one that waited longest is the best guess, and a
                # wrong one only counts a stranger later.
                del self._new[next(iter(self._new))]

    def close(self) -> None:
        self.events.close(0)
