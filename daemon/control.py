"""The control socket: how `forecastd models` has a running daemon do something.

It is in the state folder, which is its owner's alone (mode 0700), so whoever may write there may give orders. An order
is a frame of JSON, and the file of a model in a second one; the answer is JSON. The engine takes orders between two
batches and answers when the disk has what came of them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq

from ..models.checkpoint import FILE_BYTES_MAX
from .batch import Reply

NAME = "control"
#: What a path of a local socket may have in bytes.
PATH_BYTES_MAX = 107
#: Where replies to orders go: no peer of an ingest socket is called so.
PEER = b"\xff"
#: Orders that wait for the disk; the oldest are forgotten first, for who gave them has given up by then.
WAITING_MAX = 64
#: Seconds that the daemon has for an answer.
ANSWER_S = 10.0


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What to do. `import`: the model of the second frame becomes a version, and serves with `promote`. `promote`:
    version `number` serves. `rollback`: the predecessor serves. `finetune`: the copies of `series` (all if empty) are
    tuned as soon as may be, or with `shared` a challenger of the shared model is drawn. `slot` is the pattern of the
    `[[model]]` that it is about, empty for the model of all series.
    """

    do: Literal["import", "promote", "rollback", "finetune"]
    slot: str = ""
    number: int = 0
    promote: bool = False
    series: tuple[str, ...] = ()
    shared: bool = False


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer: what is to be said to the user, or why not, in one line. `number`: the version it is about."""

    said: str = ""
    error: str = ""
    number: int = 0


class Unanswered(Exception):
    """The daemon did not answer in time; the message is one line."""


_order, _told = msgspec.json.Decoder(Order), msgspec.json.Decoder(Told)


class Control:
    """The daemon's end. Of the engine's loop alone."""

    def __init__(self, folder: str | Path, context: zmq.SyncContext) -> None:
        """OSError where the socket cannot be had."""
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger, self.socket.maxmsgsize = 1_000, FILE_BYTES_MAX + 1024
        self.socket.sndhwm = self.socket.rcvhwm = WAITING_MAX
        self._waiting: dict[int, tuple[bytes, Told]] = {}
        self._number = 0
        try:
            self.socket.bind(_address(folder, self.folder))
            (Path(folder) / NAME).chmod(0o600)
        except (zmq.ZMQError, OSError) as error:
            self.close()
            raise OSError(f"no orders can be taken in {folder}: {error.strerror}") from None

    def receive(self) -> tuple[bytes, Order, bytes] | None:
        """Who asks, for what, and the file that came with it; None when there is nothing more. What is no order is
        answered here."""
        while True:
            try:
                peer, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            try:
                return peer, _order.decode(frames[0] if frames else b""), frames[1] if len(frames) > 1 else b""
            except ValueError as error:
                self.send(peer, Told(error=f"this is no order: {error}"))

    def later(self, peer: bytes, told: Told) -> Reply:
        """The reply that, when it may leave, is to be given to `answer`."""
        self._number += 1
        while len(self._waiting) >= WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[self._number] = peer, told
        return Reply(PEER, seq=self._number)

    def answer(self, reply: Reply) -> None:
        """Send what `later` was given."""
        if found := self._waiting.pop(reply.seq, None):
            self.send(*found)

    def send(self, peer: bytes, told: Told) -> None:
        """Answer at once. One who has gone gets none."""
        self.socket.send_multipart([peer, msgspec.json.encode(told)], zmq.NOBLOCK)

    def close(self) -> None:
        self.socket.close()
        os.close(self.folder)


def ask(folder: str | Path, order: Order, body: bytes = b"", within_s: float = ANSWER_S) -> Told:
    """What the daemon that uses this folder says to the order. Unanswered."""
    if not (Path(folder) / NAME).exists():
        raise Unanswered(f"whoever uses {folder} takes no orders; if it is a daemon, its log says why")
    with _connected(folder) as socket:
        socket.send_multipart([msgspec.json.encode(order), body])
        if not socket.poll(int(1000 * within_s)):
            raise Unanswered(f"the daemon of {folder} does not answer; its log may say why")
        return _told.decode(socket.recv())


@contextmanager
def _connected(folder: str | Path) -> Any:
    context: zmq.SyncContext = zmq.Context()
    socket, handle = context.socket(zmq.DEALER), os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    socket.linger = 0
    try:
        socket.connect(_address(folder, handle))
        yield socket
    finally:
        socket.close()
        context.term()
        os.close(handle)


def _address(folder: str | Path, handle: int) -> str:
    """Where the socket is. A path too long for one is written by way of the open folder, which Linux allows."""
    path = Path(folder).absolute() / NAME
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        return f"ipc://{path}"
    return f"ipc:///proc/self/fd/{handle}/{NAME}"
