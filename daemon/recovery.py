"""From what is on the disk to the pipeline as it was: the newest sound snapshot, and the journal after it through
`Pipeline.step`.

The batches are the same and so are their boundaries, and the RNN says what it said then: so the state is the same to
the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ..models.weights import Weights
from . import copied, record, snapshot
from .database import Commit, Life
from .pipeline import Pipeline
from .record import Damaged, Entry
from .settings import Settings
from .snapshot import State


class Shelf(Protocol):
    """What of `store.Store` is read at the start; the simulation has another one."""

    def snapshots(self) -> list[int]: ...
    def load(self, step: int) -> bytes: ...
    def names(self) -> list[str]: ...
    def lives(self) -> dict[int, Life]: ...
    def commits(self, after: int) -> Iterator[Commit]: ...


#: Weights by their SHA-256, None for an empty one. Damaged where they cannot be had.
Models = Callable[[str], Weights | None]


@dataclass
class Recovery:
    """What came out: the pipeline after `step` steps, and what was found damaged on the way."""

    pipeline: Pipeline
    step: int = 0
    #: the step of the snapshot it began with, and the samples of the journal that were then gone through
    base: int = 0
    replayed: int = 0
    #: how many names the journal has
    named: int = 0
    #: whether the journal was followed to its end; a line for each thing damaged; the snapshots that are
    whole: bool = True
    reports: list[str] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    #: copies of series that the snapshot has and the journal has not, `copied.GONE` for one that was taken back
    copies: dict[int, bytes] = field(default_factory=dict)


def recover(shelf: Shelf, settings: Settings, weights: Weights | None, models: Models) -> Recovery:
    """The pipeline as the disk has it, made for `settings` and `weights`. Foreign where a newer forecastd wrote what
    is there.

    Damage never raises: the newest state that can be had without what is damaged is used, and the result tells of it.
    """
    damaged, reports, state = _newest(shelf)
    copies = copied.detach(state)
    replay = Replay(state, models)
    named = 0
    try:
        names, lives = shelf.names(), shelf.lives()
        named = len(names)
        for commit in shelf.commits(replay.step):
            if commit.life not in lives:
                raise Damaged(f"the settings of run {commit.life} cannot be read")
            replay.live(lives[commit.life])
            for entry in record.decode(commit.body, commit.step, names):
                replay.step_on(entry)
    except Damaged as damage:
        reports.append(str(damage))
    whole = len(reports) == len(damaged)
    pipeline = replay.turn(settings, weights)
    base = state.step if state else 0
    # the first commit after such a snapshot has them, too
    copies = copies if replay.step == base else {}
    return Recovery(pipeline, replay.step, base, replay.samples, named, whole, reports, damaged, copies)


def _newest(shelf: Shelf) -> tuple[list[int], list[str], State | None]:
    """The snapshots that are damaged, what is wrong with each, and the newest sound one."""
    damaged: list[int] = []
    reports: list[str] = []
    for step in shelf.snapshots():
        try:
            state = snapshot.decode(shelf.load(step))
            if state.step != step:
                raise Damaged(f"it is of step {state.step}")
            return damaged, reports, state
        except Damaged as damage:
            damaged.append(step)
            reports.append(f"the snapshot of step {step} is damaged: {damage}")
    return damaged, reports, None


class Replay:
    """A pipeline that goes through a journal, from run to run of the daemon."""

    def __init__(self, state: State | None, models: Models) -> None:
        self.step = state.step if state else 0
        self.samples = 0
        self._models = models
        self._state = state
        self._pipeline: Pipeline | None = None
        self._life: Life | None = None

    def live(self, life: Life) -> None:
        """The steps that follow were taken with these settings and this model. Damaged where those cannot be had."""
        if self._life != life:
            try:
                settings = snapshot.settings_of(life.settings)
            except ValueError as error:
                raise Damaged(f"the settings of a run cannot be read: {error}") from None
            self.turn(settings, self._models(life.model))
            self._life = life

    def turn(self, settings: Settings, weights: Weights | None) -> Pipeline:
        """The same state in a pipeline of these settings and weights."""
        if self._pipeline is not None:
            self._state = snapshot.capture(self._pipeline, self.step)
        self._pipeline = Pipeline(settings, weights)
        if self._state is not None:
            snapshot.restore(self._pipeline, self._state)
            self._state = None
        return self._pipeline

    def step_on(self, entry: Entry) -> None:
        """Take one step again; one that the snapshot already has is passed over. Damaged where it is not the next
        one.
        """
        if entry.step <= self.step:
            return
        if entry.step != self.step + 1:
            raise Damaged(f"the journal lacks the steps {self.step + 1} to {entry.step - 1}")
        pipeline = self._pipeline
        assert pipeline is not None
        effects = pipeline.step(entry.batch, entry.now, entry.recorded)
        if pipeline.forecaster.replayed or len(effects.recorded) != len(entry.recorded):
            raise Damaged(f"step {entry.step} asks the RNN otherwise than it did")
        self.step = entry.step
        self.samples += len(entry.batch)
