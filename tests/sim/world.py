"""The fault simulation: one seed is one world, with its own clock, disk, network, producers, engine and trainer.

All that decides is the daemon's own code: wire, engine, pipeline, journal, recovery; and the producers' outbox. What
is simulated is what surrounds it. Nothing runs beside anything else, so that a seed that fails, fails again.
"""

from __future__ import annotations

import heapq
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from forecastd.daemon import engine as engine_module
from forecastd.daemon import journal as journal_module
from forecastd.daemon.batch import Batch, Effects
from forecastd.daemon.disk import Failed, Full
from forecastd.daemon.engine import Engine
from forecastd.daemon.journal import Journal
from forecastd.daemon.keeper import Keeper
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Limits, Settings
from forecastd.daemon.snapshot import capture, restore
from forecastd.models import frozen as frozen_module
from forecastd.models.checkpoint import Checkpoint
from forecastd.models.weights import Weights, digest
from forecastd.tests.feed import model, state
from forecastd.tests.sim.disk import Crash, Disk, Folder
from forecastd.tests.sim.faults import Faults
from forecastd.tests.sim.peers import Dealer, Network, Pusher
from forecastd.tests.sim.tutor import Tutor, change

EXPERTS = ("naive", "ses", "ar10", "rnn")
MODELS = tuple(model(seed, units=6) for seed in range(3))
#: Seconds of trouble, and how long everything may then take to be acknowledged.
TROUBLE_S, PEACE_S = 3.0, 60.0
WAITING_BYTES = 6_000


class Broken(BaseException):
    """An invariant does not hold; the message says which, when, and in which world. No `except Exception` of the
    engine may swallow it.
    """


class Clock:
    """What the engine takes for the module `time`: each look at the stopwatch costs something, so that steps take
    time.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.looks = 0

    def time(self) -> float:
        return 1.7e9 + self.world.now + self.world.skew

    def monotonic(self) -> float:
        return self.world.now

    def perf_counter(self) -> float:
        self.looks += 1
        return self.world.now + self.looks * 0.04


class Parent:
    """A supervisor that has nothing to say."""

    def fileno(self) -> int:
        return -2

    def report(self, **fields: Any) -> None:
        """Nobody listens."""


class Inline:
    """In place of the threads: the world says when the disk gets its turn."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def join(self, timeout_s: float) -> bool:
        return True


class Life(NamedTuple):
    """What a run of the engine was made with."""

    settings: Settings
    model: Checkpoint

    def pipeline(self, before: Pipeline | None) -> Pipeline:
        """`before` itself where it was made so too, else one that takes its state over."""
        weights = self.model.weights
        if before is not None and before.settings == self.settings and before.weights is weights:  # type: ignore[attr-defined]
            return before
        pipeline = Pipeline(self.settings, weights)
        pipeline.weights = weights  # type: ignore[attr-defined]
        if before is not None:
            restore(pipeline, capture(before, 0))
            change(pipeline, dict(copies_of(before)))
        return pipeline


def copies_of(pipeline: Pipeline) -> dict[int, Weights]:
    """The copies in service, by row."""
    return pipeline.recurrent.copies.weights if pipeline.recurrent else {}


def digests_of(pipeline: Pipeline) -> dict[int, str]:
    """The same, as they can be compared."""
    return {row: digest(weights) for row, weights in copies_of(pipeline).items()}


class Taken(NamedTuple):
    """A step, which samples of it were taken, and by which run."""

    batch: Batch
    now: float
    mask: np.ndarray
    life: Life
    #: the copies that changed before it
    copies: dict[int, Weights | None]


class World:
    """`run` makes the whole of it; `log` is what happened, a line each."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = np.random.default_rng(seed)
        self.now, self.skew = 0.0, 0.0
        self.quiet = False
        self.life = 0
        self.log: list[str] = []
        self.seen: Counter[str] = Counter()
        self.engine: Engine | None = None
        self.keeper: Keeper | None = None
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers, self._values = count(), count(1)
        self.disk = Disk(self.random)
        self.network = Network(self)
        self.clock = Clock(self)
        self.faults = Faults(self)
        self.dealers: dict[str, Dealer] = {}
        #: the highest acknowledgement said, by producer and epoch
        self.acked: dict[tuple[str, int], int] = {}
        #: the steps as they were taken, and the pipeline of a run that nothing ever interrupts
        self.history: list[Taken] = []
        self.unbroken: Pipeline | None = None
        self.unbroken_step = 0
        self.model: Checkpoint = MODELS[0]

    # ---- time

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (time, next(self._numbers), what))

    def later(self, mean_s: float, what: Callable[[], None]) -> None:
        self.at(self.now + float(self.random.exponential(mean_s)), what)

    def value(self) -> float:
        """Each sample has a value of its own, so that it can be told from all others."""
        return float(next(self._values))

    # ---- the whole

    def run(self) -> World:
        with self._patched():
            for name in ("one", "two")[: 1 + int(self.random.integers(0, 2))]:
                self.dealers[name] = Dealer(self, name)
            Pusher(self)
            self.start()
            self.later(0.02, self.turn)
            self.later(0.02, self.write)
            for _ in range(int(self.random.integers(1, 7))):
                self.at(float(self.random.uniform(0.1, TROUBLE_S)), self.faults.any())
            self._until(lambda: self.now >= TROUBLE_S, math.inf)
            self.heal()
            if not self._until(self._all_acknowledged, self.now + PEACE_S):
                self.fail("not everything is acknowledged, long after the last fault")
            self.end("killed at the end")
            self.start()
            self.audit()
            self.end("done")
        return self

    def _all_acknowledged(self) -> bool:
        return self.engine is not None and not any(one.outbox.window.waiting for one in self.dealers.values())

    def _until(self, reached: Callable[[], bool], deadline: float) -> bool:
        while not reached():
            time, _, what = heapq.heappop(self._agenda)
            if time > deadline:
                return False
            self.now = time
            try:
                what()
            except Crash:
                self.end("killed in the middle of a write")
                self.later(0.1, self.start)
            except Failed as failure:
                self.end(f"stopped: {failure}")
                self.later(0.1, self.start)
        return True

    @contextmanager
    def _patched(self) -> Iterator[None]:
        before = engine_module.time, engine_module._signals, journal_module.WAITING_MAX, frozen_module.PIECE
        try:
            engine_module.time, engine_module._signals = self.clock, lambda stop: -1  # type: ignore[assignment]
            journal_module.WAITING_MAX = WAITING_BYTES
            frozen_module.PIECE = 1
            yield
        finally:
            engine_module.time, engine_module._signals, journal_module.WAITING_MAX, frozen_module.PIECE = before
            self._close()

    # ---- a life of the engine

    def start(self) -> None:
        """Recover, compare with the run that was never interrupted, go on."""
        if self.engine is not None:
            return
        if self.random.random() < 0.3:
            # the trainer has made another one
            self.model = MODELS[int(self.random.integers(0, len(MODELS)))]
        horizon = 2 if self.random.random() < 0.1 else 1
        limits = Limits(series=8, journal_bytes=60_000)
        settings = Settings(experts=EXPERTS, horizon=horizon, levels=(), limits=limits)
        try:
            folder = Folder(self.disk)
            keeper = Keeper.begin(folder, settings, self.model, self.clock.time(), Inline, self.clock.monotonic)
        except (Full, Failed) as error:
            self.note(f"cannot start: {error}")
            if isinstance(error, Failed):
                Folder(self.disk).mark(suspect=True)
            self.later(0.3, self.start)
            return
        self.keeper = keeper
        self.check(keeper, settings)
        self.life += 1
        self.engine = Engine(settings, self.network, keeper, Parent())  # type: ignore[arg-type]
        self.engine.learning = Tutor(self, keeper.pipeline)  # type: ignore[assignment]
        self._watch(keeper, Life(settings, self.model))
        self.note(f"started at step {keeper._journal.step}")
        for dealer in self.dealers.values():
            self.later(0.05, dealer.connect)

    def end(self, how: str) -> None:
        if self.keeper is not None:
            self.note(how)
            self.seen["snapshots"] += self.keeper._journal.figures.snapshots
            self.seen["skipped"] += self.keeper._journal.figures.skipped
        self._close()
        self.engine = self.keeper = None
        self.network.arrived.clear()

    def _close(self) -> None:
        if self.keeper is not None and self.keeper._journal._wakeup:
            for end in self.keeper._journal._wakeup:
                os.close(end)
            self.keeper._journal._wakeup = None

    def turn(self) -> None:
        self.later(0.02, self.turn)
        if self.engine is not None:
            self.engine.turn()
            self.engine.hear([self.engine._written])
            self.engine.tick()
            if self.engine.failures:
                self.fail("a step failed")

    def write(self) -> None:
        self.later(0.02, self.write)
        if self.keeper is not None:
            journal = self.keeper._journal
            if self.random.random() < 0.7:
                journal.commit()
            else:
                journal.write()
            if journal._weight > WAITING_BYTES + 10_000:
                self.fail("what waits for the disk is not bounded")

    def _watch(self, keeper: Keeper, life: Life) -> None:
        step = keeper.pipeline.step

        def watched(batch: Batch, now: float) -> Effects:
            effects = step(batch, now)
            self.history.append(Taken(batch, now, effects.taken, life, {}))
            for forecasts in effects.forecasts:
                for column in (forecasts.mean, forecasts.lower, forecasts.upper):
                    if not np.isfinite(column[forecasts.ready]).all():
                        self.fail("a forecast is not finite")
            return effects

        keeper.pipeline.step = watched  # type: ignore[method-assign, assignment]

    def said(self, name: str, epoch: int, told: dict[str, Any]) -> None:
        if "ack" in told:
            self.acked[name, epoch] = max(self.acked.get((name, epoch), 0), told["ack"])

    # ---- what must hold

    def check(self, keeper: Keeper, settings: Settings) -> None:
        """What was acknowledged is there, and all that is there is as if nothing had happened."""
        step = keeper._journal.step
        if step > len(self.history):
            self.fail(f"step {step} was recovered, and {len(self.history)} were taken")
        del self.history[step:]
        accounts = keeper.pipeline.admission.ledger.accounts
        for (name, epoch), number in self.acked.items():
            account = accounts.get(name)
            if number and (account is None or (account.epoch, account.seq) < (epoch, number)):
                self.fail(f"{name} was told that {number} of epoch {epoch} is safe; there is {account}")
        for taken in self.history[self.unbroken_step :]:
            self.unbroken = taken.life.pipeline(self.unbroken)
            change(self.unbroken, taken.copies)
            self.unbroken.step(taken.batch, taken.now)
        self.unbroken_step = step
        now = Life(settings, self.model).pipeline(self.unbroken)
        if keeper._store.reports:
            # A repair makes a snapshot. Else a life that takes no step leaves no trace of what it was set to.
            self.unbroken = now
        if state(now) != state(keeper.pipeline):
            self.fail(f"at step {step} the state is not that of a run without interruption")
        if digests_of(now) != digests_of(keeper.pipeline):
            self.fail(f"at step {step} the copies are not those of a run without interruption")
        self.seen["recoveries"] += 1

    def audit(self) -> None:
        """Each number of a producer was taken once; none that was acknowledged is missing."""
        taken: Counter[tuple[str, int, int]] = Counter()
        values: set[float] = set()
        for batch, _, mask, *_ in self.history:
            for parcel in batch.parcels:
                for place in range(parcel.start, parcel.stop):
                    if mask[place] and parcel.seq:
                        taken[parcel.producer, parcel.epoch, parcel.seq + place - parcel.start] += 1
            kept = batch.value[mask].tolist()
            if values & set(kept) or len(set(kept)) < len(kept):
                self.fail("a sample was applied twice")
            values.update(kept)
        if taken and max(taken.values()) > 1:
            self.fail(f"{taken.most_common(1)[0][0]} was applied twice")
        for (name, epoch), number in self.acked.items():
            missing = [seq for seq in range(1, number + 1) if not taken[name, epoch, seq]]
            if missing:
                self.fail(f"{name} was told that {number} of epoch {epoch} is safe; {missing[:5]} are missing")
        self.seen["samples"] += len(values)
        self.seen["acked"] += sum(self.acked.values())

    def heal(self) -> None:
        self.quiet = True
        self.faults.end()
        self.later(0.1, self.start)
        self.note("no more faults")

    # ---- telling

    def note(self, what: str) -> None:
        self.log.append(f"{self.now:8.3f} {what}")
        self.seen[what.split(" at ", maxsplit=1)[0].split(":", maxsplit=1)[0]] += 1

    def fail(self, what: str) -> None:
        story = "\n".join(self.log[-40:])
        raise Broken(
            f"world {self.seed} at {self.now:.3f} s: {what}\n{story}\nagain: python -m forecastd.tests.sim {self.seed}"
        )
