"""Learning, as the engine sees it: what it took in goes to the trainer once nobody waits for it, and what comes back
changes the weights between two batches.

The engine never waits for the trainer. What a trainer that is stuck does not take is kept up to a bound, then dropped
and counted; what it sends back is checked again here, and by the live errors of what it forecasts.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..models.recurrent import Recurrent
from ..models.weights import CHANNELS, Weights, structure
from . import copied, letter
from .batch import Effects
from .child import Parent
from .histogram import Histogram
from .letter import (
    Asked,
    Began,
    Begin,
    Challenge,
    Challenger,
    Done,
    Dropped,
    Gains,
    Hello,
    Letter,
    Resting,
    Told,
)
from .link import Link
from .outgoing import Outgoing
from .pipeline import Pipeline
from .scoreboard import Scoreboard

log = logging.getLogger("forecastd.engine")

#: Samples of one series after which the trainer is worth starting.
WORTH_SAMPLES = 64
#: Events kept for the page, and the seconds after which the same news of the same series is told again.
EVENTS_MAX, SAME_AGAIN_S = 100, 600.0


class Learning:
    """One trainer at most, and what is known of its work. `parent` is the supervisor, `folder` where the link is to be,
    `watch` makes the engine's loop wait for a socket, too."""

    def __init__(
        self,
        pipeline: Pipeline,
        expert: Recurrent,
        parent: Parent,
        folder: str,
        watch: Callable[[Any], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pipeline = pipeline
        self._expert = expert
        #: the shared model that the trainer has
        self._shared: Weights | None = None
        self.parent = parent
        self.outcomes: dict[str, int] = {}
        self.durations = Histogram()
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self.cpu_s = 0.0
        self._address = f"ipc://{folder}/{os.getpid()}"
        self._watch, self._clock = watch, clock
        self._link: Link | None = None
        self._trainer = 0
        self._outgoing = Outgoing()
        self._working: list[int] = []
        self._changed: dict[int, Weights | None] = {}
        self._news: list[dict[str, Any]] = []
        self._told: dict[int, tuple[str, float]] = {}
        #: a challenger of the shared model (None: there is no better one) and what it learnt from, until somebody
        #: takes it
        self.challenger: tuple[Weights | None, Challenger] | None = None
        pipeline.learning = True

    @classmethod
    def of(cls, pipeline: Pipeline, parent: Parent, folder: str, watch: Callable[[Any], None]) -> Learning | None:
        """Learning, where the settings ask for it, there is a place for the link, and the model is one that can."""
        settings, expert = pipeline.settings, pipeline.recurrent
        if not settings.finetune or not folder or expert is None:
            return None
        if not learnable(expert.weights):
            log.warning(
                "the model %r cannot learn: its input or output is not that of the shipped ones", settings.model
            )
            return None
        return cls(pipeline, expert, parent, folder, watch)

    @property
    def shared(self) -> Weights:
        """The shared model."""
        return self._expert.weights

    @property
    def copies(self) -> Mapping[int, Weights]:
        """The copies in service, by row."""
        return self._expert.copies.weights

    @property
    def socket(self) -> Any:
        """What to poll; None while there is nothing to hear."""
        return self._link.socket if self._link else None

    # ---- around a step

    def note(self, effects: Effects) -> None:
        """Have what was changed before this step, and what happened, kept together with it."""
        if self._changed:
            effects.copies, self._changed = self._changed, {}
        if self._news:
            effects.events += self._news
            self._news = []

    def take(self, effects: Effects) -> None:
        """Keep what a step taught for the trainer; worth calling once its forecasts are out."""
        self._outgoing.add(effects)
        if self._outgoing.full:
            self._outgoing.send(self._send)

    # ---- now and then

    def tick(self) -> None:
        """Once a second: send what is kept and what the copies gain, or see whether a trainer is worth it."""
        if self._link is None:
            if self._worth():
                self._link = Link(self._address, bind=True)
                self._watch(self._link.socket)
                self.parent.report(want="trainer", link=self._address)
            return
        if self._trainer and self._shared is not self.shared:
            # another champion serves: copies are pulled towards it from now on
            self.begin()
        self._outgoing.send(self._send)
        if gains := self.pipeline.gains():
            self._send(Gains(gains))

    def hear(self) -> None:
        """Between two batches: take in one letter of the trainer's, with a copy at most, which costs some 0.2 ms. The
        others follow after the next batch, so that no sample waits for many."""
        frames = next(iter(self._link or ()), None)
        if frames is None:
            return
        try:
            said, body = letter.decode(frames)
        except ValueError as error:
            log.warning("the trainer wrote what cannot be read: %s", error)
        else:
            self._take(said, body)

    def told(self, line: dict[str, Any]) -> None:
        """Take in what the supervisor says."""
        if line.get("lost") == "trainer":
            for row in self._working:
                self._tell(row, "timeout" if line.get("hung") else "failed")
            self._working = []
            self._trainer = 0

    def order(self, series: Sequence[str]) -> str:
        """Have the copies of these series (all if empty) tuned as soon as may be; what to say of it. ValueError, in one
        line, where that cannot be."""
        rows = self.pipeline.rows
        if unknown := [name for name in series if name not in rows]:
            raise ValueError(f"no series is called {unknown[0]!r}")
        if not self._send(Asked([rows[name] for name in series] if series else None)):
            raise ValueError("there is no trainer yet: it starts when a series has taught enough; try again later")
        return f"asked the trainer for {len(series) or 'all'} series; /api/v1/models tells what comes of it"

    def dare(self) -> str:
        """Have a challenger of the shared model drawn; what to say of it. ValueError, in one line."""
        if not self._send(Challenge()):
            raise ValueError("there is no trainer yet, or it is busy: try again later")
        return "asked the trainer for a challenger; /api/v1/models tells what comes of it"

    def begin(self) -> None:
        """Have the trainer begin with the shared model and the copies as they are now."""
        shared, copies = self.shared, self.copies
        said = Begin(self._trainer, structure(shared), list(copies))
        if self._send(said, copied.packed(shared), *map(copied.packed, copies.values())):
            self._shared = shared

    def show(self, board: Scoreboard) -> None:
        """What the scoreboard tells of it."""
        board.events = sorted([*board.events, *self.events], key=lambda event: event["time"])[-EVENTS_MAX:]
        board.finetunes = dict(self.outcomes)
        board.finetune_counts, board.finetune_sum = list(self.durations.counts), self.durations.sum
        board.counters["copies"] = len(self.copies)
        board.counters["lessons_dropped"] = self._outgoing.dropped
        board.counters["trainer_cpu_seconds"] = self.cpu_s

    def close(self) -> None:
        """Let go of the link."""
        if self._link:
            self._link.close()

    # ---- within

    def _worth(self) -> bool:
        fresh = self.pipeline.forecaster.table["fresh"]
        return bool(len(fresh)) and int(fresh.max()) >= WORTH_SAMPLES

    def _send(self, said: Letter, *body: bytes) -> bool:
        # A trainer that has not said hello yet would not know what to make of it.
        return bool(self._link and self._trainer and self._link.send(letter.encode(said, *body)))

    def _take(self, said: Letter, body: list[bytes]) -> None:
        if isinstance(said, Hello):
            self._trainer, self._shared = said.trainer, None
            self.begin()
        elif isinstance(said, Began):
            self._working = list(filter(self._known, said.rows))
        elif isinstance(said, Told) and self._known(said.row):
            self._result(said, body)
        elif isinstance(said, Dropped):
            for row in filter(self._known, said.rows):
                self._give(row, None)
                self._tell(row, "dropped")
        elif isinstance(said, Challenger):
            self._challenged(said, body)
        elif isinstance(said, Done):
            self.durations.observe(said.seconds)
            self.cpu_s += said.cpu_s
            self._working = []
        elif isinstance(said, Resting):
            log.info("the trainer has used up its time of today, and goes on in %.0f s", said.seconds)

    def _known(self, row: int) -> bool:
        return 0 <= row < len(self.pipeline.names)

    def _result(self, said: Told, body: list[bytes]) -> None:
        outcome = said.outcome
        if said.row in self._working:
            self._working.remove(said.row)
        if outcome == "tuned":
            try:
                self._give(said.row, copied.unpacked(b"".join(body), structure(copied.bare(self.shared))))
            except copied.Nonfinite:
                outcome = "nonfinite"
            except ValueError as error:
                log.warning("the trainer sent no weights: %s", error)
                outcome = "failed"
        self._tell(said.row, outcome, before=said.before, after=said.after, cause=said.cause)

    def _give(self, row: int, weights: Weights | None) -> None:
        """A copy, or another one, or none. The step that comes next keeps it: until then it has forecast nothing."""
        if weights is None:
            self.pipeline.drop(row)
        else:
            self.pipeline.adopt(row, weights)
        self._changed[row] = weights

    def _challenged(self, said: Challenger, body: list[bytes]) -> None:
        try:
            form = structure(copied.bare(self.shared))
            self.challenger = copied.unpacked(b"".join(body), form) if body else None, said
        except ValueError as error:
            log.warning("the trainer sent no challenger: %s", error)

    def _tell(self, row: int, outcome: str, **numbers: Any) -> None:
        """Count what came of a fine-tune; tell of it unless the same was told of the series lately."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        now = self._clock()
        last, at = self._told.get(row, ("", -1e9))
        if outcome == last and now - at < SAME_AGAIN_S:
            return
        self._told[row] = outcome, now
        event = {"event": "finetune", "series": self.pipeline.names[row], "outcome": outcome, **numbers}
        self.events.append({"time": time.time(), **event})
        self._news.append(event)


def learnable(weights: Weights) -> bool:
    """Whether a learner can tune copies of this model."""
    return (weights.channels, weights.output, weights.activation) == (CHANNELS, "residual", "linear")
