"""A trainer in a simulated world: as far as engine and journal can tell, copies come and go at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forecastd.daemon.batch import Effects
from forecastd.daemon.pipeline import Pipeline
from forecastd.models.weights import Weights
from forecastd.tests.feed import model

if TYPE_CHECKING:
    from forecastd.tests.sim.world import World

#: How often something changes after a batch, and how often it is that a copy goes.
CHANCE, GONE = 0.2, 0.3
COPIES = tuple(model(seed, units=6).weights for seed in range(10, 16))


class Tutor:
    """In place of `daemon.learning.Learning`: what the trainer would send is drawn by lot."""

    socket = None

    def __init__(self, world: World, pipeline: Pipeline) -> None:
        self.world = world
        self.pipeline = pipeline
        self._changed: dict[int, Weights | None] = {}

    def note(self, effects: Effects) -> None:
        effects.copies, self._changed = self._changed, {}
        self.world.history[-1].copies.update(effects.copies)
        self.world.seen["copies"] += len(effects.copies)

    def take(self, effects: Effects) -> None:
        """It knows without being taught; what it knows changes between this step and the next, or before a crash."""
        random, rows = self.world.random, len(self.pipeline.names)
        if rows and random.random() < CHANCE:
            gone = random.random() < GONE
            weights = None if gone else COPIES[int(random.integers(0, len(COPIES)))]
            changed = {int(random.integers(0, rows)): weights}
            change(self.pipeline, changed)
            self._changed |= changed

    def tick(self) -> None:
        """Time means nothing to it."""

    def show(self, board: Any) -> None:
        """Nor fame."""

    challenger = None


def change(pipeline: Pipeline, copies: dict[int, Weights | None]) -> None:
    """Give series these copies, or take theirs away, as the engine does between two batches."""
    for row, weights in copies.items():
        if weights is None:
            pipeline.drop(row)
        else:
            pipeline.adopt(row, weights)
