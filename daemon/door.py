"""Who comes and goes at a socket that is bound, by the events of its monitor."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from math import inf

import zmq

#: Handshakes that failed, by why: the peer does not speak CURVE, or not to this daemon's key; its own key is not
#: authorised; or it went away before, or said nothing in time.
FAILED = {
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL: "protocol",
    zmq.Event.HANDSHAKE_FAILED_AUTH: "unauthorised",
    zmq.Event.HANDSHAKE_FAILED_NO_DETAIL: "incomplete",
}


class Door:
    """The connections of one socket. `failed` counts handshakes, `strangers` connections that ended without one,
    `crowded` those that there was no room for."""

    EVENTS = sum((*FAILED, zmq.Event.ACCEPTED, zmq.Event.HANDSHAKE_SUCCEEDED, zmq.Event.DISCONNECTED))

    def __init__(self, context: zmq.SyncContext, bound: zmq.SyncSocket, where: str) -> None:
        bound.monitor(where, self.EVENTS)
        self.events = context.socket(zmq.PAIR)
        # Unbounded, because ZeroMQ's own thread would wait for us at a full one.
        self.events.rcvhwm = 0
        self.events.connect(where)
        self.open: set[int] = set()
        self.failed: Counter[str] = Counter()
        self.strangers = self.crowded = 0
        self._new: dict[int, None] = {}

    def look(self, room: float = inf) -> None:
        """Takes in what has happened since; never waits. There is room for so many connections more; who comes when
        there is none is shown out."""
        while self.events.poll(0):
            event, number = struct.unpack("=hi", self.events.recv_multipart()[0])
            if event == zmq.Event.ACCEPTED and room <= 0:
                self.crowded += 1
                show_out(number)
            elif event == zmq.Event.ACCEPTED:
                self._new[number] = None
                self.open.add(number)
                room -= 1
            elif event == zmq.Event.DISCONNECTED:
                self.strangers += number in self._new
                self._new.pop(number, None)
                room += number in self.open
                self.open.discard(number)
            elif event in FAILED:
                self.failed[FAILED[event]] += 1
            elif self._new:
                # The event does not say whose handshake it was; the one that waited longest is the best guess, and a
                # wrong one only counts a stranger later.
                del self._new[next(iter(self._new))]

    def close(self) -> None:
        self.events.close(0)


def show_out(descriptor: int) -> None:
    """Ends a connection of ZeroMQ's by its descriptor. ZeroMQ has no means for that, and closes the descriptor itself
    once the connection has ended. Where it has done so already, nothing but a connection can be hit, which comes
    again."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return
    try:
        if connection.type == socket.SOCK_STREAM:
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    finally:
        connection.detach()  # it is not ours to close
