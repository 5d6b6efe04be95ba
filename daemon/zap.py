"""Who is let in: ZeroMQ asks (ZAP, RFC 27) before it lets a connection through, and this answers out of the clients.

The engine's own loop answers, so whoever does not answer does not forecast either, and is replaced. While nobody
answers nobody new is let in: the sockets enforce their domains.
"""

from __future__ import annotations

import zmq
from zmq.utils import z85

from .clients import Clients

ENDPOINT = "inproc://zeromq.zap.01"
#: Handshakes answered in one turn of the loop, so that a crowd at the door does not hold up those inside.
ANSWERS_MAX = 100
VERSION = b"1.0"


class Doorkeeper:
    """The socket that ZeroMQ asks at. Closed, nobody new is let in; `open` opens it (again)."""

    def __init__(self, context: zmq.SyncContext, clients: Clients) -> None:
        self.clients = clients
        self._context = context
        self.socket: zmq.SyncSocket | None = None
        self.open()

    def open(self) -> None:
        self.socket = self._context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ENDPOINT)

    def answer(self) -> None:
        """Answers who has asked since; never waits."""
        for _ in range(ANSWERS_MAX):
            if self.socket is None:
                return
            try:
                question = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._judge(question), zmq.NOBLOCK)

    def _judge(self, question: list[bytes]) -> list[bytes]:
        request = question[1] if len(question) > 1 else b""
        if len(question) == 7 and question[0] == VERSION and question[5] == b"CURVE" and len(question[6]) == 32:
            key = z85.encode(question[6])
            if self.clients.may_enter(key.decode(), question[2].decode()):
                # The name goes with each message of the connection; the transport looks up whose key it is by then.
                return [VERSION, request, b"200", b"", key, b""]
        return [VERSION, request, b"400", b"this key is not authorised", b"", b""]

    def close(self) -> None:
        if self.socket is not None:
            # To close alone would free the name only some time later.
            self.socket.unbind(ENDPOINT)
            self.socket.close(0)
            self.socket = None
