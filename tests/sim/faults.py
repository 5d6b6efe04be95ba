"""What befalls a world."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from forecastd.daemon.disk import Failed, Full
from forecastd.tests.sim.disk import Crash

if TYPE_CHECKING:
    from .world import World


class Faults:
    """Each fault is a method; `any` gives one of them, `end` ends those that last."""

    def __init__(self, world: World) -> None:
        self.world = world

    def end(self) -> None:
        self.world.disk.fault = lambda operation: None
        self.make_room()

    def any(self) -> Callable[[], None]:
        faults = (self.kill, self.cut_power, self.kill_at_operation, self.fill, self.fail_sync, self.cut_connection)
        faults += (self.restart_producer, self.jump, self.flip, self.hang)
        return faults[int(self.world.random.integers(0, len(faults)))]

    def kill(self) -> None:
        self.world.end("killed")
        self.world.later(0.1, self.world.start)

    def cut_power(self) -> None:
        self.world.end("power lost")
        self.world.disk.lose_power()
        self.world.later(0.1, self.world.start)

    def kill_at_operation(self) -> None:
        """At one of the next operations on the disk; half of the time the power goes with it."""
        power = self.world.random.random() < 0.5
        moment = self.world.disk.operations + int(self.world.random.integers(1, 40))

        def fault(operation: str) -> None:
            if self.world.disk.operations >= moment:
                self.world.disk.fault = lambda operation: None
                self.world.note(f"{'power lost' if power else 'killed'} at {operation}")
                if power:
                    self.world.disk.lose_power()
                raise Crash

        self.world.disk.fault = fault

    def fill(self) -> None:
        self.world.disk.room = self.world.disk.used + int(self.world.random.integers(0, 5_000))
        self.world.note("the disk is nearly full")
        self.world.later(0.7, self.make_room)

    def make_room(self) -> None:
        self.world.disk.room = 1 << 40

    def fail_sync(self) -> None:
        """One sync fails, and all later ones succeed. Now and then the power goes a little later, which tells what
        the disk really had."""
        if self.world.random.random() < 0.4:
            self.world.later(0.4, self.cut_power)

        def fault(operation: str) -> None:
            if operation == "sync":
                self.world.disk.fault = lambda operation: None
                raise Failed("Input/output error")

        self.world.disk.fault = fault

    def hang(self) -> None:
        """For a while the disk takes nothing, as one does that is far too slow."""

        def fault(operation: str) -> None:
            if operation in ("write", "sync"):
                raise Full("busy")

        def recover() -> None:
            if self.world.disk.fault is fault:
                self.world.disk.fault = lambda operation: None

        self.world.disk.fault = fault
        self.world.later(0.7, recover)

    def cut_connection(self) -> None:
        for dealer in self.world.dealers.values():
            dealer.connect()

    def restart_producer(self) -> None:
        for dealer in self.world.dealers.values():
            dealer.restart()
            dealer.connect()

    def jump(self) -> None:
        self.world.skew += float(self.world.random.normal(0.0, 1e4))

    def flip(self) -> None:
        """A bit of the newest snapshot turns over, and the daemon starts anew: the one before and the journal must
        do.
        """
        if self.world.keeper is None:
            return
        folder = self.world.keeper._store
        newest, older = [*folder.snapshots(), 0, 0][:2]
        steps = [step for commit in folder.commits() for step in range(commit.step, commit.step + commit.steps)]
        if not newest or not set(range(older + 1, newest + 1)) <= set(steps):
            return  # the way from the one before is not there: after a repair, or where a full disk left a hole
        self.world.disk.spoil(f"snapshot-{newest}")
        self.world.end("a snapshot was damaged")
        self.world.later(0.1, self.world.start)
