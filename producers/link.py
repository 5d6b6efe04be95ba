"""A producer's connection: the thread that owns its socket, sends what the outbox has, and tells it what came back.

A connection to a ROUTER is a socket. After a disconnect comes a new one, so that nothing meant for the old connection
can arrive on the next before what has to come first: the oldest sample not acknowledged.
"""

from __future__ import annotations

import os
import re
import select
import struct
import threading
import time as clock
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NamedTuple

import msgspec
import zmq

from .key import Curve
from .outbox import Outbox

#: The daemon's socket, or the producer's own, as it stands in an endpoint; and the socket that the producer opens for
#: it.
KINDS = {
    "router": zmq.DEALER,
    "dealer": zmq.DEALER,
    "pull": zmq.PUSH,
    "push": zmq.PUSH,
    "sub": zmq.XPUB,
    "pub": zmq.XPUB,
}
#: Between two attempts to connect, at first and at most, and how long one may take.
RETRY_S, RETRY_S_MAX, CONNECT_S_MAX = 0.05, 2.0, 5.0
#: Without an acknowledgement what is under way is sent again after `resend_after` seconds, then after twice that, up
#: to this.
RESEND_S_MAX = 30.0
#: A daemon whose kernel does not answer for so long is gone. It is asked after so many seconds of silence. (ZeroMQ's
#: own heartbeats can end a process, see `daemon/transport.py`.)
SILENCE_MS, KEEPALIVE_S, KEEPALIVES = 15_000, 5, 2
#: What was handed to a socket without a way back may take so long to leave it when the producer ends.
LINGER_MS = 5_000

#: Refusals may follow the acknowledgement at which the producer ends, by so much.
LAST_WORDS_MS = 20

ENDED = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
#: The daemon did not let us in, or is not who we think.
BARRED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


class Target(NamedTuple):
    """Where samples go: `[router+|pull+|sub+][bind+]ADDRESS`."""

    kind: int
    bind: bool
    address: str

    @property
    def answers(self) -> bool:
        """Whether the daemon can acknowledge what it gets there."""
        return self.kind == zmq.DEALER

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that `text` names; ValueError says in one line what is wrong with it."""
        kind, address = "router", text
        head, plus, rest = text.partition("+")
        if plus and "://" not in head and head != "bind":
            kind, address = head, rest
        if kind not in KINDS:
            raise ValueError(f"{text!r}: no socket kind {kind!r}; there is router, pull and sub")
        bind = address.startswith("bind+")
        address = address.removeprefix("bind+")
        if not re.fullmatch(r"tcp://[^\s/]+:\d{1,5}|ipc://.+", address):
            raise ValueError(
                f"{text!r} is no endpoint; write tcp://HOST:PORT (pull+tcp://… or sub+tcp://… for such sockets)"
            )
        if bind and KINDS[kind] == zmq.DEALER:
            raise ValueError(f"{text!r}: a producer that is acknowledged connects; bind+ is for pull and sub")
        return cls(KINDS[kind], bind, address)


Number = Annotated[int, msgspec.Meta(ge=0)]


class Answer(msgspec.Struct):
    """What the daemon says to a producer: all up to `ack` are dealt with, or sample `seq` was refused."""

    ack: Number | None = None
    refused: str = ""
    seq: Number = 0


_answer = msgspec.json.Decoder(Answer).decode


class Link(threading.Thread):
    """Runs until `stop`, or until the outbox's spool fails. `connected`, `connections` and `barred` (the daemon did not
    let us in) may be read at any time."""

    def __init__(self, outbox: Outbox, target: Target, resend_after: float, curve: Curve | None = None) -> None:
        super().__init__(name="forecastd-producer", daemon=True)
        self.outbox, self.target, self.resend_after, self.curve = outbox, target, resend_after, curve
        self.connected = self.barred = False
        self.connections = 0
        self.stopping = False
        self.awake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        outbox.wake = self._wake

    def stop(self) -> None:
        """Ends the thread and waits for that."""
        self.stopping = True
        self._wake()
        self.join()
        self.outbox.wake = lambda: None
        os.close(self.awake)
        os.close(self._waker)

    def run(self) -> None:
        context = zmq.Context()
        try:
            if self.target.answers:
                self._keep_connected(context)
            else:
                self._pour(context)
        except Exception as error:
            self.outbox.fail(error)
        finally:
            self.connected = False
            context.term()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._waker, b"x")

    def _pause(self, seconds: float) -> None:
        """Waits, unless told to stop."""
        until = clock.monotonic() + seconds
        while not self.stopping and (left := until - clock.monotonic()) > 0:
            select.select([self.awake], [], [], left)
            self.doze()

    def doze(self) -> None:
        with suppress(BlockingIOError):
            os.read(self.awake, 4096)

    @contextmanager
    def _socket(self, context: zmq.Context[Any]) -> Iterator[tuple[zmq.Socket[Any], zmq.Socket[Any]]]:
        """A socket at the target, and its monitor."""
        with context.socket(self.target.kind) as sock:
            sock.linger = 0
            # No connection, no queue: what is not sent waits in the window, where it can still be dropped or kept.
            sock.immediate = 1
            sock.tcp_keepalive, sock.tcp_keepalive_cnt, sock.tcp_maxrt = 1, KEEPALIVES, SILENCE_MS
            sock.tcp_keepalive_idle = sock.tcp_keepalive_intvl = KEEPALIVE_S
            sock.connect_timeout = sock.handshake_ivl = int(CONNECT_S_MAX * 1000)
            if self.target.answers:
                sock.reconnect_ivl = -1
            if self.target.kind == zmq.XPUB:
                sock.xpub_nodrop = 1
            if self.curve:
                sock.curve_secretkey, sock.curve_serverkey = self.curve.secret, self.curve.server
                sock.curve_publickey = zmq.curve_public(self.curve.secret)
            monitor = sock.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | BARRED | ENDED)
            try:
                if self.target.bind:
                    sock.bind(self.target.address)
                else:
                    sock.connect(self.target.address)
                yield sock, monitor
            finally:
                sock.disable_monitor()
                monitor.close()

    # ---- with acknowledgements

    def _keep_connected(self, context: zmq.Context[Any]) -> None:
        retry = RETRY_S
        while not self.stopping:
            with self._socket(context) as (sock, monitor):
                if self._await_handshake(monitor):
                    self.connected = True
                    self.connections += 1
                    if Session(self, sock, monitor).serve():
                        retry = RETRY_S
                    self.connected = False
            self.outbox.rewind()
            self._pause(retry)
            retry = min(2 * retry, RETRY_S_MAX)

    def _await_handshake(self, monitor: zmq.Socket[Any]) -> bool:
        poller = zmq.Poller()
        poller.register(monitor, zmq.POLLIN)
        poller.register(self.awake, zmq.POLLIN)
        until = clock.monotonic() + CONNECT_S_MAX + 1
        while not self.stopping and (left := until - clock.monotonic()) > 0:
            poller.poll(int(left * 1000) + 1)
            self.doze()
            event = last_event(monitor)
            if event:
                self._judge(event)
                return event == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return False

    def _judge(self, event: int) -> None:
        """Notes whether we were let in. A connection that just ended says nothing about that."""
        if event & (BARRED | zmq.EVENT_HANDSHAKE_SUCCEEDED):
            self.barred = bool(event & BARRED)

    # ---- without

    def _pour(self, context: zmq.Context[Any]) -> None:
        """Hands messages to a socket that has no way back, as long as somebody takes them."""
        readers = 0
        with self._socket(context) as (sock, monitor):
            poller = zmq.Poller()
            for each in (monitor, self.awake):
                poller.register(each, zmq.POLLIN)
            queue: deque[tuple[int, list[bytes]]] = deque()
            while not self.stopping:
                listens = self.target.kind == zmq.XPUB
                poller.register(sock, (zmq.POLLIN if listens else 0) | (zmq.POLLOUT if queue else 0))
                poller.poll(0 if not queue and (readers or not listens) and not self.outbox.nap() else None)
                self.doze()
                self._note(last_event(monitor))
                while listens and sock.poll(0, zmq.POLLIN):
                    readers += 1 if sock.recv()[:1] == b"\x01" else -1
                if not queue and (readers or not listens):
                    queue.extend(self.outbox.messages())
                self._hand_over(sock, queue)
            sock.linger = LINGER_MS

    def _note(self, event: int) -> None:
        self._judge(event)
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connections += 1
        if event:
            self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED

    def _hand_over(self, sock: zmq.Socket[Any], queue: deque[tuple[int, list[bytes]]]) -> None:
        gone = 0
        with suppress(zmq.Again):
            while queue:
                sock.send_multipart(queue[0][1], zmq.NOBLOCK)
                gone += queue.popleft()[0]
        if gone:
            self.outbox.gone(gone)


class Session:
    """One connection to a ROUTER, from its handshake to its end.

    A connection that stands loses nothing, but the daemon may: a message it could not digest, or took for too early. Or
    it is slow. So after `patience` without progress the oldest message is sent once more, and everything only if the
    daemon then answers that there is more to come, and nothing comes. Patience grows with the pauses the daemon makes.
    """

    def __init__(self, link: Link, sock: zmq.Socket[Any], monitor: zmq.Socket[Any]) -> None:
        self.link, self.outbox, self.sock, self.monitor = link, link.outbox, sock, monitor
        self.queue: deque[tuple[int, list[bytes]]] = deque()
        self.answered = False
        self.confirmed = False  # whether the daemon has shown that it knows this epoch
        self.patience = link.resend_after
        self.pause = 0.0  # the longest of late between two answers that moved something on
        self.since = clock.monotonic()  # when something moved, or was done about it
        self.moved = self.since
        self.probed = 0  # what was under way when the oldest was sent once more: up to this number
        self.replied = False  # … and an answer to that fell short of it

    def serve(self) -> bool:
        """Sends and listens until the connection ends or the link stops; returns whether the daemon ever answered."""
        poller = zmq.Poller()
        for each in (self.monitor, self.link.awake):
            poller.register(each, zmq.POLLIN)
        while not self.link.stopping:
            idle = self._send() or self.outbox.nap()
            poller.register(self.sock, zmq.POLLIN | (zmq.POLLOUT if self.queue else 0))
            under_way = self.outbox.window.flying
            left = max(0.0, self.since + self.patience - clock.monotonic())
            poller.poll(0 if not idle else int(left * 1000) + 1 if under_way else None)
            self.link.doze()
            if last_event(self.monitor) & (ENDED | BARRED):
                break
            if self._listen():
                self._progress(clock.monotonic())
            elif not under_way:
                self.since = self.moved = clock.monotonic()
            elif clock.monotonic() - self.since > self.patience:
                self._insist()
        if self.link.stopping and self.sock.poll(LAST_WORDS_MS):
            self._listen()
        return self.answered

    def _progress(self, now: float) -> None:
        self.pause = max(0.8 * self.pause, now - self.moved)
        self.since = self.moved = now
        self.patience = max(self.link.resend_after, min(2 * self.pause, RESEND_S_MAX))

    def _insist(self) -> None:
        """Nothing has moved for too long."""
        if self.replied:
            self.queue.clear()
            self.outbox.rewind()
            self.probed = 0
        elif not self.queue:  # a socket that takes nothing needs no more
            self.probed = self.outbox.window.sent
            self.queue.extend(self.outbox.probe())
        self.replied = False
        self.since = clock.monotonic()
        self.patience = max(self.link.resend_after, min(2 * self.patience, RESEND_S_MAX))

    def _send(self) -> bool:
        """Sends what can be sent; True when the rest has to wait for the socket."""
        if not self.queue:
            self.queue.extend(self.outbox.messages())
        try:
            while self.queue:
                self.sock.send_multipart(self.queue[0][1], zmq.NOBLOCK)
                self.queue.popleft()
        except zmq.Again:
            return True
        return False

    def _listen(self) -> int:
        """Takes all answers that are there; returns how many samples they settle."""
        acked, refusals = -1, []
        try:
            while True:
                answer = _read(self.sock.recv_multipart(zmq.NOBLOCK)[-1])
                if answer.ack is not None:
                    self.answered = True
                    self.replied = answer.ack < self.probed
                    self._place(answer.ack)
                    acked = max(acked, answer.ack)
                elif answer.refused:
                    refusals.append((answer.refused, answer.seq))
        except zmq.Again:
            pass
        return self.outbox.heard(acked, refusals) if acked >= 0 or refusals else 0

    def _place(self, ack: int) -> None:
        """A daemon whose first word on a connection falls short of what was acknowledged before has lost its place."""
        if not self.confirmed and self.outbox.lost(ack):
            self.queue.clear()
            self.probed = 0
            self.outbox.renumber()
        self.confirmed = True


def last_event(monitor: zmq.Socket[Any]) -> int:
    """The last of the events that a monitor has, 0 if it has none; an end outlasts what came before it, and not being
    let in outlasts the end that follows."""
    event = 0
    while monitor.poll(0):
        (next_one,) = struct.unpack("=H", monitor.recv_multipart()[0][:2])  # zmq.utils.monitor would import asyncio
        event = event if event & BARRED and next_one & ENDED else next_one
    return event


def _read(frame: bytes) -> Answer:
    try:
        return _answer(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Answer()  # nothing a producer could act on; the samples are sent again if need be
