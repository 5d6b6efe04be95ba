"""What sends samples in the simulation, and the network in between: everything a network may do to a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from forecastd.daemon.door import FAILED
from forecastd.daemon.wire import Inbox, Origin
from forecastd.producers.outbox import Outbox, WindowFull

if TYPE_CHECKING:
    from .world import World

RESEND_S = 0.8
Frames = list[bytes]


class Network:
    """The engine's transport. What arrives while no engine runs is lost, and so are answers to connections that
    are gone.
    """

    class Feed:
        """A publisher that nobody listens to."""

        socket: object = None
        prefixes: tuple[bytes, ...] = ()

        def listen(self) -> bool:
            return False

    def __init__(self, world: World) -> None:
        self.world = world
        self.arrived: list[tuple[Frames, Origin]] = []
        self.publish = self.board = self.Feed()

    def send(self, frames: Frames, origin: Origin, orderly: dict[str, float]) -> None:
        """`orderly` holds when the last message of this connection arrives: the next one comes later, as a rule."""
        random, world = self.world.random, self.world
        kind = random.random()
        if kind < 0.02:
            return
        arrival = max(world.now, orderly.get("last", 0.0)) + float(random.exponential(0.01))
        if kind > 0.04:
            orderly["last"] = arrival
        life = world.life
        for _ in range(2 if kind > 0.97 else 1):
            world.at(arrival, lambda: self.arrive(life, frames, origin))
            arrival += float(random.exponential(0.05))

    def arrive(self, life: int, frames: Frames, origin: Origin) -> None:
        if self.world.engine is not None and (life == self.world.life or not origin.lossless):
            self.arrived.append((frames, origin))

    # ---- what the engine calls

    def watch(self, descriptor: int) -> None:
        """Nothing to poll."""

    def admit(self, ready: object) -> None:
        """Everybody is let in."""

    def told(self) -> dict[str, float]:
        return {f"handshakes_{why}": 0.0 for why in FAILED.values()}

    def receive(self, inbox: Inbox, marks: list[tuple[float, int]], ready: object = None) -> None:
        while self.arrived and inbox.room > 0:
            inbox.add(*self.arrived.pop(0))
            marks.append((self.world.now, inbox.size))

    def reply(self, peer: bytes, payload: bytes) -> None:
        """From here on it counts as said, whether it arrives or not."""
        name, _, connection = peer.decode().partition("/")
        sender = self.world.dealers[name]
        if int(connection) >= sender.first:
            # what is said to an earlier life of a producer nobody hears
            self.world.said(name, sender.epoch, msgspec.json.decode(payload))
        self.world.later(0.01, lambda: sender.hear(int(connection), payload))

    def strangers(self) -> int:
        return 0


class Dealer:
    """A producer that is acknowledged: the client's own outbox, behind a connection as `producers.link` keeps it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.connection = 0
        self.epoch = 0
        self.restart()
        self.connect()
        self.produce()
        self.look()

    def restart(self) -> None:
        """A new life: what had not been acknowledged is forgotten, the numbers begin again."""
        self.epoch += 1
        self.outbox = Outbox(int(self.world.random.integers(4, 80)), "raise", self.name, self.epoch, None)
        self.outbox.head = msgspec.structs.replace(self.outbox.head, epoch=self.epoch)
        self.connection += 1
        #: the first connection of this life
        self.first = self.connection

    def connect(self) -> None:
        self.connection += 1
        self.orderly: dict[str, float] = {}
        self.confirmed = False
        self.progress_at = self.world.now
        self.outbox.rewind()
        self.send()

    def produce(self) -> None:
        world = self.world
        if world.quiet:
            return
        for _ in range(int(world.random.integers(1, 7))):
            try:
                self.outbox.add(f"series-{int(world.random.integers(0, 5))}", world.value(), float("nan"))
            except WindowFull:
                break
        self.send()
        world.later(0.05, self.produce)

    def send(self) -> None:
        origin = Origin(f"{self.name}/{self.connection}".encode(), True, self.name)
        for _, frames in self.outbox.messages():
            self.world.network.send([bytes(frame) for frame in frames], origin, self.orderly)

    def hear(self, connection: int, payload: bytes) -> None:
        if connection != self.connection:
            return
        told = msgspec.json.decode(payload)
        refusals = [(told["refused"], told["seq"])] if "refused" in told else []
        if "ack" in told:
            if not self.confirmed and self.outbox.lost(told["ack"]):
                self.world.fail(f"{self.name} was told that its place is lost: {told}")
            self.confirmed = True
        if self.outbox.heard(told.get("ack", -1), refusals):
            self.progress_at = self.world.now
            self.send()

    def look(self) -> None:
        """What nobody answers is sent again."""
        if self.outbox.window.flying and self.world.now - self.progress_at > RESEND_S:
            self.connect() if self.world.random.random() < 0.5 else self.outbox.rewind()
            self.progress_at = self.world.now
        self.send()
        self.world.later(0.2, self.look)


class Pusher:
    """A producer on a socket without a way back, that numbers its samples; and now and then sends what is no sample."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seq = 0
        self.produce()

    def produce(self) -> None:
        world = self.world
        if world.quiet:
            return
        self.seq += 1
        sample = {"series": f"pushed-{self.seq % 3}", "value": world.value(), "producer": "pusher", "seq": self.seq}
        payload = msgspec.json.encode(sample)
        if world.random.random() < 0.1:
            payload = payload[: int(world.random.integers(0, len(payload)))]
        world.network.send([payload], Origin(name="pull"), {})
        world.later(0.08, self.produce)
