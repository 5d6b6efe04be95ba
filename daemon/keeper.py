"""The engine's state: where it comes from at the start, and where it goes to while it runs.

`Keeper` has a folder, `Ephemeral` has none; the engine treats them alike.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol

from ..models import checkpoint
from ..models.checkpoint import Checkpoint, CheckpointError
from ..models.weights import Weights, digest
from . import copied, snapshot
from .batch import Batch, Effects, Reply
from .champion import Champions
from .database import Life
from .disk import Failed, Full
from .journal import Journal
from .lineage import Lineage
from .pipeline import Pipeline
from .record import Damaged, Foreign
from .recovery import Recovery, recover
from .settings import Settings
from .snapshot import State
from .store import Locked, Store
from .writer import Writer

log = logging.getLogger("forecastd.engine")

#: Seconds given to a daemon that is just ending to let go of the folder.
LOCK_WAIT_S = 1.5
#: Seconds given to the disk when the engine ends.
CLOSE_S = 5.0


class CannotOpen(Exception):
    """The state folder cannot be used; the message is one line that says why, and what to do."""


class Ephemeral:
    """No state: what is admitted is acknowledged at once, and nothing survives."""

    def __init__(self, settings: Settings, model: Checkpoint | None, groups: Sequence[Checkpoint] = ()) -> None:
        self.pipeline = Pipeline(settings, model.weights if model else None)
        self.champions = _champions(settings, model, groups, Lineage(), {})
        for number, champions in enumerate(self.champions):
            champions.start(time.time(), 0)
            self.pipeline.serve(champions.weights, champions.number, number)

    def append(self, batch: Batch, now: float, effects: Effects, replies: list[Reply], spent_s: float) -> list[Reply]:
        return replies

    @property
    def step(self) -> int:
        return 0

    def lose(self) -> None:
        """Nothing to do: nothing is kept."""

    def fileno(self) -> int | None:
        return None

    def durable(self) -> list[Reply]:
        return []

    def turn(self) -> bool:
        """Nothing to do: nothing is kept."""
        return False

    def told(self) -> dict[str, float]:
        return {}

    def close(self) -> list[Reply]:
        return []


class Keeper:
    """A state folder in use. All but the writing itself is done in the engine's loop, and never waits."""

    def __init__(
        self,
        store: Store,
        found: Recovery,
        life: int,
        settings: Settings,
        writer: Callable[[Journal], Writer],
        clock: Callable[[], float],
        spent_s: float,
        champions: Sequence[Champions] = (),
        owed: Mapping[int, Weights | None] = MappingProxyType({}),
    ) -> None:
        self.pipeline = found.pipeline
        self.champions = list(champions)
        self._store = store
        older = [0, *sorted(step for step in store.snapshots() if step <= found.step)][-2:]
        self._journal = Journal(
            store,
            found.pipeline.names,
            found.pipeline.rows,
            step=found.step,
            life=life,
            named=found.named,
            durable=settings.acks == "durable",
            kept=(older[0], older[-1]),
            bytes_max=settings.limits.journal_bytes,
            age_s=settings.limits.journal_s,
            spent_s=spent_s,
            clock=clock,
            owed=owed,
        )
        #: what is being copied for a snapshot
        self._state: State | None = None
        self._journal.figures.damaged = len(found.reports)
        self._journal.fileno()
        self._writer = writer(self._journal)

    @classmethod
    def open(
        cls, settings: Settings, model: Checkpoint | None, now: float, groups: Sequence[Checkpoint] = ()
    ) -> Keeper:
        """The state as the folder `settings.state` has it. CannotOpen, in one line, where it cannot be used."""
        try:
            store = Store.open(settings.state, LOCK_WAIT_S)
            try:
                return cls.begin(store, settings, model, now, groups=groups)
            except BaseException as error:
                if isinstance(error, Failed):
                    store.mark(suspect=True)
                store.close()
                raise
        except (Locked, Foreign, Failed) as error:
            raise CannotOpen(f"{error}; --state gives another folder") from None
        except Full:
            raise CannotOpen(f"no room on the disk of the state folder {settings.state}") from None

    @classmethod
    def begin(
        cls,
        store: Store,
        settings: Settings,
        model: Checkpoint | None,
        now: float,
        writer: Callable[[Journal], Writer] = Writer,
        clock: Callable[[], float] = time.monotonic,
        groups: Sequence[Checkpoint] = (),
    ) -> Keeper:
        """A run of the daemon on an open folder; `groups` are the models of `[[model]]`. Foreign, Full, Failed."""
        began = clock()
        lineage, bodies = _stored(store)
        champions = _champions(settings, model, groups, lineage, bodies)
        if model and champions:
            model = checkpoint.seal(replace(champions[0].model, weights=champions[0].weights))
        weights = model.weights if model else None
        found, owed = recovered(store, settings, weights)
        # A daemon that is killed again and again must not have more to replay each time.
        spent_s = clock() - began
        if found.step:
            log.info("state of step %d, %d samples replayed, in %.2f s", found.step, found.replayed, spent_s)
        life = Life(snapshot.shaping(settings), digest(weights) if weights else "")
        file = checkpoint.encode(model) if model else b""
        # a journal that was set aside took with it what was known of the models
        lost = bool(lineage.champions) and not store.lineage().champions
        changes = []
        for group, one in enumerate(champions):
            changes += one.start(now, found.step, rewrite=lost and not group)
            found.pipeline.serve(one.weights, one.number, group)
        number = store.enter(life, now, file, changes)
        return cls(store, found, number, settings, writer, clock, spent_s, champions, owed)

    def append(self, batch: Batch, now: float, effects: Effects, replies: list[Reply], spent_s: float) -> list[Reply]:
        """Take in a step that took the pipeline `spent_s` seconds; returns what of `replies` may be said at once."""
        return self._journal.append(batch, now, effects, replies, spent_s)

    @property
    def step(self) -> int:
        """How many steps the journal has been given."""
        return self._journal.step

    def lose(self) -> None:
        """Take in that a step failed halfway."""
        self._journal.lose()

    def fileno(self) -> int | None:
        """The descriptor to poll: readable when `durable` has something to say."""
        return self._journal.fileno()

    def durable(self) -> list[Reply]:
        """What may be said now, the disk having what it depends on. Failed when the disk failed."""
        return self._journal.durable()

    def turn(self) -> bool:
        """Copy a piece of the state for a snapshot, if it is time for one: call it when nobody waits for a forecast.
        Whether there is more to copy."""
        if self._state is not None:
            self._state.advance()
        elif self._journal.due():
            self._state = snapshot.freeze(self.pipeline, self._journal.step)
            self._journal.keep(self._state)
        if self._state is not None and self._state.whole:
            self._state = None
            self._journal.whole()
        return self._state is not None

    def told(self) -> dict[str, float]:
        """The journal's figures, as counters of the scoreboard."""
        return self._journal.told()

    def close(self) -> list[Reply]:
        """Have what is waiting written, for `CLOSE_S` at most; returns what may be said at the very end."""
        while self._state is not None:
            self.turn()
        self._journal.close(CLOSE_S)
        replies = self._journal.durable()
        if self._writer.join(0.1):
            self._store.close()
        return replies


class Kept(Protocol):
    """What the engine knows of either."""

    pipeline: Pipeline
    champions: list[Champions]

    @property
    def step(self) -> int: ...
    def append(
        self, batch: Batch, now: float, effects: Effects, replies: list[Reply], spent_s: float
    ) -> list[Reply]: ...
    def lose(self) -> None: ...
    def fileno(self) -> int | None: ...
    def durable(self) -> list[Reply]: ...
    def turn(self) -> bool: ...
    def told(self) -> dict[str, float]: ...
    def close(self) -> list[Reply]: ...


def _champions(
    settings: Settings,
    model: Checkpoint | None,
    groups: Sequence[Checkpoint],
    lineage: Lineage,
    bodies: dict[str, bytes],
) -> list[Champions]:
    """Those of all series, and of each group; none where no RNN forecasts."""
    if model is None or "rnn" not in settings.experts:
        return []
    slots = zip(groups, (group.match for group in settings.models), strict=True)
    return [Champions(model, lineage, bodies), *(Champions(root, lineage, bodies, slot) for root, slot in slots)]


def _stored(store: Store) -> tuple[Lineage, dict[str, bytes]]:
    """The lineage and the files of all models; none where they cannot be read, which recovery will tell of."""
    try:
        return store.lineage(), store.models()
    except Damaged:
        return Lineage(), {}


def models_of(store: Store) -> dict[str, Weights | None]:
    """The weights of all runs by SHA-256, and None for runs without any; what cannot be read is left out."""
    weights: dict[str, Weights | None] = {"": None}
    try:
        for sha256, file in store.models().items():
            weights[sha256] = checkpoint.decode(file).weights
    except (Damaged, CheckpointError):
        pass
    return weights


def _copies(store: Store) -> tuple[dict[int, bytes], list[int]]:
    """The copies of series by row, and the rows of those that are not as they were written."""
    try:
        return store.copies()
    except Damaged:
        return {}, []


def _restored(found: Recovery, copies: dict[int, bytes], spoilt: list[int]) -> dict[int, Weights | None]:
    """Gives the series their copies; which of them the journal does not have, or is to forget."""
    bodies = {row: body for row, body in (copies | found.copies).items() if body != copied.GONE}
    lost = copied.restore(found.pipeline, bodies) + [row for row in spoilt if row not in found.copies]
    if lost:
        log.warning("%d copies are damaged or of another model: dropped", len(lost))
    held = found.pipeline.recurrent.copies.weights if found.pipeline.recurrent else {}
    return {row: held.get(row) for row in [*found.copies, *lost]}


def recovered(store: Store, settings: Settings, weights: Weights | None) -> tuple[Recovery, dict[int, Weights | None]]:
    """What the folder has, and the copies that its journal is still to be told of, None for those it is to forget.
    What is damaged is set aside, and a snapshot made that does not depend on it."""
    known = models_of(store)

    def models(sha256: str) -> Weights | None:
        if sha256 not in known:
            raise Damaged(f"the model {sha256[:12]} of an earlier run cannot be read")
        return known[sha256]

    copies, spoilt = _copies(store)
    found = recover(store, settings, weights, models)
    owed = _restored(found, copies, spoilt)
    for step in found.damaged:
        store.discard(step)
    # Earlier versions let names reach the disk before the steps that brought them; such rows would be given twice.
    if store.suspect or not found.whole or found.named > len(found.pipeline.names):
        # This order: until the snapshot is there, what was acknowledged is in the old journal alone.
        state = snapshot.capture(found.pipeline, found.step)
        if found.pipeline.recurrent:
            # the new journal lacks them all
            owed = dict(found.pipeline.recurrent.copies.weights)
            copied.attach(state, owed)
        store.save(found.step, snapshot.encode(state))
        store.set_aside(found.reports[-1] if found.reports else "the disk had failed")
        store.mark(suspect=False)
        found.named = 0
    found.reports += store.reports
    for report in found.reports:
        log.warning("%s", report)
    return found, owed
