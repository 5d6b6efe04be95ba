"""The line between engine and trainer: whole messages, both ways, over a socket in a folder that is this user's alone.

Nobody ever waits on it but for `Link.wait`: what the other end does not take is the sender's to keep or to drop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import zmq

#: Messages on their way to an end that does not read.
MESSAGES_MAX = 32


class Link:
    """One end, of one thread. The engine binds it, one trainer at a time connects."""

    def __init__(self, address: str, bind: bool) -> None:
        self._context: zmq.SyncContext = zmq.Context()
        self.socket: zmq.SyncSocket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = MESSAGES_MAX
        # To a trainer that is not there yet nothing is sent: the engine keeps it, and knows how much.
        self.socket.immediate = 1
        (self.socket.bind if bind else self.socket.connect)(address)
        self._poller = zmq.Poller()
        self._poller.register(self.socket, zmq.POLLIN)

    def send(self, frames: Sequence[Any]) -> bool:
        """Whether the message is on its way; never waits."""
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def __iter__(self) -> Iterator[list[bytes]]:
        """What has arrived, message by message; never waits."""
        while True:
            try:
                yield self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return

    def watch(self, descriptor: int) -> None:
        """Makes `wait` return when this descriptor can be read, too."""
        self._poller.register(descriptor, zmq.POLLIN)

    def wait(self, timeout_s: float) -> None:
        """Returns when there is something to receive, or after the time."""
        self._poller.poll(max(0, math.ceil(timeout_s * 1000)))

    def close(self) -> None:
        """Ends it; what is on its way is dropped."""
        self.socket.close(0)
        self._context.term()
