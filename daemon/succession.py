"""The succession: which version of the shared model is to serve, decided on live samples while the daemon runs.

A challenger forecasts in the shadow of the champion until a trial decides (`models/trial.py`). A champion that took
another's place, by trial or by hand, has that predecessor in its own shadow from then on; it comes back by itself when
the champion turns out worse. The engine feeds what its rounds have taught, lets this work when nobody waits for a
forecast, and puts what was decided into a step of the journal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..models.checkpoint import Checkpoint, CheckpointError, seal
from ..models.kernel import Kernel
from ..models.lessons import Lesson
from ..models.shadow import Shadow
from ..models.trial import Guard, Trial, Verdict
from ..models.weights import Weights
from .champion import Champions, Done, bare
from .lineage import Change
from .pipeline import Pipeline

if TYPE_CHECKING:
    from .control import Order

log = logging.getLogger("forecastd.engine")

#: A challenger that is not better by 1 % is promoted once in a hundred trials at most; one that cannot be told from the
#: champion in so many rounds gives up.
CHALLENGE = (0.01, 0.01, 20_000)
#: A champion that is not worse by half a percent is rolled back with a chance of 10 % at most, over all its life: the
#: predecessor was good enough before, so that it may come back on less.
GUARD = (0.1, 0.005, 500)
#: Rounds looked at together: a product with ten windows costs hardly more than one with a single one.
TOGETHER = 16
#: Share of the time that shadows may take, and the seconds saved up for a burst.
SHARE, SAVED_S = 0.1, 0.2


class Rival(NamedTuple):
    """A model in the shadow: `number` is 0 for a challenger, which gets one when it wins."""

    number: int
    model: Checkpoint
    kernel: Kernel
    trial: Trial | Guard


class Succession:
    """Shadows, trials, and the orders that users give by hand, for the series of one group. Of the engine's loop alone.

    `news` are events and `changes` what is to be written, both since somebody took them."""

    def __init__(
        self, pipeline: Pipeline, champions: Champions, clock: Callable[[], float], group: int = 0, share: float = SHARE
    ) -> None:
        self.pipeline = pipeline
        self.champions = champions
        self.group = group
        self.news: list[dict[str, Any]] = []
        self.changes: list[Change] = []
        self.promotions = self.rollbacks = 0
        self._clock, self._share = clock, share
        self._shadow = Shadow(champions.model.weights)
        self._kernel = Kernel(champions.model.weights)
        self._challenger: Rival | None = None
        self._guarding: Rival | None = None
        self._budget_s, self._at = SAVED_S, clock()
        champion = champions.lineage.champion()
        if champion is not None and champion.reason in ("promoted", "by_hand"):
            self._guard(champions.lineage.predecessor(champions.slot))

    @property
    def watching(self) -> bool:
        """Whether somebody is in the shadow, so that lessons are wanted."""
        return self._challenger is not None or self._guarding is not None

    # ---- around a step

    def take(self, lessons: Sequence[Lesson]) -> None:
        """Keep what a step taught, as far as there is time for it; worth calling once its forecasts are out."""
        if self._earn():
            for lesson in lessons:
                mine = self.pipeline.only(lesson, self.group)
                if mine is not None:
                    self._shadow.take(mine)
                if not self._spend():
                    break

    def turn(self, now: float, step: int, whole: bool = False) -> bool:
        """Look at what was kept, all of it with `whole`, and decide what can be decided; whether there is news. `now`
        is in seconds since the epoch, `step` the number of the next one."""
        if self.watching and self._shadow.waiting >= (1 if whole else TOGETHER):
            self._earn()
            self._look(now, step)
            self._spend()
        return bool(self.news or self.changes)

    def challenge(self, weights: Weights, data: Mapping[str, Any], scores: Mapping[str, Any]) -> bool:
        """Have a model that was tuned from the champion forecast in its shadow; false while another one does. `data`
        and `scores` are what it learnt from and how it did. ValueError for one that cannot take the champion's place.
        """
        if self._challenger is not None:
            return False
        champion = self.champions.model
        manifest = {
            "name": f"{self.champions.root.name}-tuned",
            "recipe": "tuned on what arrived",
            "parent": {"name": champion.name, "sha256": champion.sha256},
            "data": dict(data),
            "scores": dict(scores),
        }
        model = seal(bare(Checkpoint(weights, manifest)))
        self.champions.fitting(model.weights)
        self._challenger = Rival(0, model, Kernel(model.weights), Trial(*CHALLENGE))
        self._tell("challenger", outcome="on_trial", name=model.name, sha256=model.sha256)
        return True

    def spare(self) -> None:
        """Take in that nothing better than the champion came out of what has arrived, so that there is no trial."""
        self._tell("challenger", outcome="none_better", name=f"{self.champions.root.name}-tuned")

    def obey(self, order: Order, body: bytes, now: float, step: int) -> Done:
        """Do what was ordered by hand. ValueError, in one line, where it cannot be done."""
        before = self.champions.number
        done = self.champions.obey(order, body, now, step)
        self.changes += done.changes
        if self.champions.number != before:
            self.promotions += 1
            self._install(before, "promoted", cause="by_hand")
        return done

    def told(self) -> list[dict[str, Any]]:
        """The models, as the scoreboard tells of them."""
        champion = self.champions.model
        told: list[dict[str, Any]] = [self._line("champion", self.champions.number, champion, {})]
        for role, rival in (("predecessor", self._guarding), ("challenger", self._challenger)):
            if rival is not None:
                told.append(self._line(role, rival.number, rival.model, rival.trial.figures))
        return told

    def taken(self) -> tuple[list[dict[str, Any]], list[Change]]:
        """News and changes, which then are nobody's any more."""
        news, changes = self.news, self.changes
        self.news, self.changes = [], []
        return news, changes

    # ---- deciding

    def _look(self, now: float, step: int) -> None:
        rivals = [rival for rival in (self._guarding, self._challenger) if rival is not None]
        for ours, *theirs in self._shadow.losses([self._kernel, *(rival.kernel for rival in rivals)]):
            for rival, errors in zip(rivals, theirs, strict=True):
                verdict = rival.trial.take(ours, errors)
                if verdict is not None:
                    # what is left of these rounds was about the champion there was
                    self._decide(rival, verdict, now, step)
                    return

    def _decide(self, rival: Rival, verdict: Verdict, now: float, step: int) -> None:
        before, figures = self.champions.number, verdict.figures
        if rival is self._guarding:
            self.changes.append(self.champions.crown(rival.number, "rolled_back", now, step, **figures))
            self.rollbacks += 1
            self._install(before, "rolled_back", cause="worse", **figures)
            return
        self._challenger = None
        self._tell("challenger", outcome=verdict.outcome, name=rival.model.name, sha256=rival.model.sha256, **figures)
        if verdict.outcome == "won":
            number, changes = self.champions.enter(rival.model, now, "tuned")
            self.changes += [*changes, self.champions.crown(number, "promoted", now, step, **figures)]
            self.promotions += 1
            self._install(before, "promoted", cause="trial", **figures)

    def _install(self, before: int, event: str, **figures: Any) -> None:
        """Have the new champion forecast from the next sample on, the one before in its shadow unless that one lost."""
        self._kernel = Kernel(self.champions.model.weights)
        self._challenger = self._guarding = None
        if event != "rolled_back":
            self._guard(before)
        self.pipeline.serve(self.champions.weights, self.champions.number, self.group)
        self._tell(event, number=self.champions.number, before=before, **figures)

    def _guard(self, number: int | None) -> None:
        try:
            if number is not None:
                model = self.champions.version(number)
                self._guarding = Rival(number, model, Kernel(model.weights), Guard(*GUARD))
        except CheckpointError as error:
            log.warning("version %d cannot watch the champion: %s", number, error)

    def _tell(self, event: str, **figures: Any) -> None:
        if self.champions.slot:
            figures["match"] = self.champions.slot
        self.news.append({"event": event, **figures})
        log.info("model: %s, %s", event, ", ".join(f"{name} {_text(value)}" for name, value in figures.items()))

    def _line(self, role: str, number: int, model: Checkpoint, figures: Mapping[str, Any]) -> dict[str, Any]:
        found = {"name": model.name, "version": number, "sha256": model.sha256, "status": role}
        if self.champions.slot:
            found["match"] = self.champions.slot
        return {**found, "recipe": model.manifest.get("recipe"), **figures}

    # ---- the time that is left

    def _earn(self) -> bool:
        """Count the time that has passed; whether somebody is in the shadow and there is time for it."""
        now = self._clock()
        self._budget_s, self._at = min(self._budget_s + self._share * (now - self._at), SAVED_S), now
        return self.watching and self._budget_s > 0.0

    def _spend(self) -> bool:
        """Count the time that was taken; whether there is more."""
        now = self._clock()
        self._budget_s, self._at = self._budget_s - (now - self._at), now
        return self._budget_s > 0.0


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
