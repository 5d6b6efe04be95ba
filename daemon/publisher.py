"""The sockets that the engine speaks on: forecasts and events to subscribers, the scoreboard to the web process."""

from __future__ import annotations

import zmq

from .door import Door
from .endpoint import Endpoint
from .sockets import PUBLISH_MESSAGES_MAX, Lock, attach, open_socket

# pyzmq's own enumerations are slow to combine
_NOW, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)


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
        self.address = attach(self.socket, endpoint)

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
        self.socket.close()
