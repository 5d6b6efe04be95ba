"""Every ZeroMQ socket of the daemon: samples in, forecasts and replies out, the scoreboard to the web process.

A socket belongs to the one thread that made it. What a message means is the wire's business; the transport bounds what
it takes in, finds the way back to a sender, and never blocks except in `Transport.wait`.
"""

from __future__ import annotations

import logging
import math
import select
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

import zmq

from .clients import Clients, Entry
from .door import FAILED
from .endpoint import parse
from .ingest import Ingest
from .publisher import Publisher
from .settings import Limits, Settings
from .sockets import Lock
from .wire import Inbox
from .zap import Doorkeeper

log = logging.getLogger("forecastd.engine")


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
