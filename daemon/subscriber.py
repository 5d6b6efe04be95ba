"""The other end of the engine's feed and scoreboard: what the processes that show forecasts subscribe with."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import zmq

from ..producers.key import Curve
from .endpoint import Endpoint, parse, reachable
from .errors import Misuse
from .sockets import PUBLISH_MESSAGES_MAX, open_socket

#: A daemon did not let us in.
BARRED = zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_PROTOCOL


class Subscriber:
    """A SUB socket for the processes that show forecasts; of one thread. A subscriber that is too slow loses
    messages."""

    def __init__(self, endpoint: str, *prefixes: str | bytes, curve: Curve | None = None) -> None:
        try:
            address = reachable(parse(endpoint, ("publish",)).address)
        except ValueError as error:
            raise Misuse(str(error)) from None
        self._context: zmq.SyncContext = zmq.Context()
        self._socket = open_socket(self._context, Endpoint("sub", address, connect=True))
        self._socket.rcvhwm = PUBLISH_MESSAGES_MAX
        if curve:
            self._socket.curve_secretkey, self._socket.curve_serverkey = curve.secret, curve.server
            self._socket.curve_publickey = zmq.curve_public(curve.secret)
        self._monitor = self._socket.get_monitor_socket(BARRED | zmq.Event.HANDSHAKE_SUCCEEDED)
        self._monitor.rcvhwm = 0
        self._barred = False
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

    def barred(self) -> bool:
        """Whether the daemon did not let us in when we last tried: it does not know our key, or is not who we think."""
        while self._monitor.poll(0):
            self._barred = bool(struct.unpack("=H", self._monitor.recv_multipart()[0][:2])[0] & BARRED)
        return self._barred

    def fileno(self) -> int:
        """A descriptor for an event loop. It is edge-triggered: after each wake-up, receive until there is no more."""
        return int(self._socket.get(zmq.FD))

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)
        self._context.term()


def _bytes(prefix: str | bytes) -> bytes:
    return prefix.encode() if isinstance(prefix, str) else prefix
