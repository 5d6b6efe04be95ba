"""The trainer: the process that learns while the engine serves. It may hang, crash or run out of memory at any time:
the engine goes on with the weights it has.

It is told its settings on stdin (`daemon/child.py`) and the rest by the engine (`daemon/letter.py`): the shared model
first, then each sample as it was taken in. What is due it tunes, a few rows at a time, and says what came of it. Its
heartbeat is beaten between two such jobs, by the loop that does them.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from ..models.learner import Learner
from ..models.weights import Weights, structure
from . import copied, letter
from .agenda import Agenda
from .child import Parent
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
    Taught,
    Told,
)
from .link import Link
from .quota import Quota
from .rounds import Rounds
from .settings import Learning, Settings

log = logging.getLogger("forecastd.trainer")

#: Seconds between heartbeats.
TICK_S = 1.0
#: Rows tuned in one job: as many as cost a fraction of a second, so that what the engine says is heard in between.
JOB_ROWS = 16
#: Seconds between two copies that are sent: sixteen in a row keep the engine and its disk busy while samples wait.
PAUSE_S = 0.005
#: Little priority while TensorFlow is loaded, five seconds of work that a busy machine must not make minutes of; the
#: least once it is: who waits for a forecast must not wait for a slice of this process.
NICE, NICE_LOADED = 10, 19
#: Half of all memory: as if it had that much more than it has.
OOM_SCORE = "500"


def learner_of(anchor: Weights, options: Learning) -> Learner:
    """The learner that these settings ask for."""
    return Learner(anchor, options.every_samples, options.copies, options.series)


class Trainer:
    """The loop around the learner."""

    def __init__(
        self,
        options: Learning,
        link: Link,
        parent: Parent,
        learner: Callable[[Weights, Learning], Learner] = learner_of,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
        loaded: Callable[[], None] = lambda: None,
    ) -> None:
        self.options = options
        self.link = link
        self.parent = parent
        self.learner: Learner | None = None
        self._make, self._clock, self._cpu = learner, clock, cpu
        #: called once, when the first job is done and so all is loaded
        self._loaded: Callable[[], None] | None = loaded
        self._name = os.getpid()
        self._rested = False
        self._worked_at, self._used_s = clock(), cpu()
        self.quota = Quota(options.cpu_share, options.budget_s_day, clock())
        self.agenda = Agenda(options)
        self.rounds = Rounds()
        self._challenged_at = clock()

    def run(self) -> None:
        """Start and loop; ends with the supervisor."""
        self.link.watch(self.parent.fileno())
        self.greet()
        self.parent.report(ready=True, beat=self._clock())
        beat_at, wait_s = self._clock() + TICK_S, TICK_S
        while not self.parent.gone:
            self.link.wait(min(wait_s, max(beat_at - self._clock(), 0.0)))
            self.parent.lines()
            self.hear()
            wait_s = self.work()
            if self._clock() >= beat_at:
                self.parent.report(beat=self._clock())
                beat_at = self._clock() + TICK_S

    def greet(self) -> None:
        """Tells the engine that there is a trainer now."""
        self._say(Hello(self._name))

    def hear(self) -> None:
        """Takes in what the engine wrote."""
        for frames in self.link:
            said, body = letter.decode(frames)
            self._take(said, body)

    def _take(self, said: Letter, body: list[bytes]) -> None:
        if isinstance(said, Begin):
            # Letters to the trainer before this one may still have been on their way.
            if said.trainer == self._name:
                shared, *copies = body
                self.learner = self._make(copied.unpacked(shared, said.structure), self.options)
                form = structure(copied.bare(self.learner.anchor))
                for row, raw in zip(said.rows, copies, strict=True):
                    self.learner.hold(row, copied.unpacked(raw, form))
                self.agenda, self.rounds = Agenda(self.options), Rounds()
                self._challenged_at = self._clock()
        elif self.learner is None:
            return
        elif isinstance(said, Taught):
            for lesson, worse in self.rounds.of(letter.samples(said, body)):
                self.learner.take(lesson)
                self.agenda.ask(worse, "drift")
        elif isinstance(said, Gains):
            self.learner.hear(said.gains)
            if idle := self.learner.retired():
                self._say(Dropped(idle))
        elif isinstance(said, Asked):
            self.agenda.ask(said.rows, "asked")
        elif isinstance(said, Challenge):
            self._challenged_at = -1e9

    def work(self) -> float:
        """Does one job, if one is due and the processor may be used for it; the seconds until there may be another,
        if no news come before."""
        now = self._clock()
        if self.learner is None or (wait_s := self.quota.wait_s(now)):
            self._rest(now)
            return TICK_S if self.learner is None else wait_s
        self._rested = False
        due = self.agenda.due(self.learner, now)[:JOB_ROWS]
        if due:
            self._job(due, now)
        elif self.options.challenge_s and now - self._challenged_at >= self.options.challenge_s:
            self._challenge(now)
        else:
            return TICK_S
        return self.quota.wait_s(self._clock())

    def _job(self, due: list[int], began: float) -> None:
        assert self.learner is not None
        self._say(Began(due))
        for tune in self.learner.tune(due):
            cause = self.agenda.done(tune.row, began)
            told = Told(tune.row, tune.outcome, _known(tune.before), _known(tune.after), cause)
            if tune.weights is None:
                self._say(told)
            else:
                self._say(told, copied.packed(copied.bare(tune.weights)))
                time.sleep(PAUSE_S)
        self._done(began)

    def _challenge(self, began: float) -> None:
        assert self.learner is not None
        self._challenged_at = began
        found = self.learner.challenge()
        if found is None:
            self._say(Challenger())
        else:
            told = Challenger(found.before, found.after, found.series, found.windows)
            self._say(told, copied.packed(copied.bare(found.weights)))
        self._done(began)

    def _done(self, began: float) -> None:
        if self._loaded is not None:
            self._loaded()
            self._loaded = None
        now, used_s = self._clock(), self._cpu()
        cpu_s, self._used_s = used_s - self._used_s, used_s
        self.quota.spend(cpu_s, now - self._worked_at, now)
        self._worked_at = now
        self._say(Done(now - began, cpu_s))
        self.parent.report(done=True, beat=now)

    def _rest(self, now: float) -> None:
        if self.quota.spent and not self._rested:
            self._rested = True
            self._say(Resting(self.quota.wait_s(now)))

    def _say(self, said: Letter, *body: bytes) -> None:
        # The engine is slower than this only when it has ended, and then so will this one.
        while not self.link.send(letter.encode(said, *body)) and not self.parent.gone:
            self.link.wait(0.01)
            self.parent.lines()


def _known(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _go_first() -> None:
    """Where memory runs out, have the kernel take it from this process, and not from the engine."""
    try:
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    except OSError:
        pass


def _stand_back() -> None:
    """Take what is left of the processor, in slices that nobody else wants. Priorities are those of threads."""
    for thread in os.listdir("/proc/self/task"):
        os.setpriority(os.PRIO_PROCESS, int(thread), NICE_LOADED)
        os.sched_setscheduler(int(thread), os.SCHED_BATCH, os.sched_param(0))


def main(learner: Callable[[Weights, Learning], Learner] = learner_of) -> int:
    """The process: exit status 0 when its supervisor is gone, 1 on any error."""
    logging.basicConfig(level=logging.INFO, format="forecastd trainer: %(message)s")
    os.nice(NICE)
    _go_first()
    parent = Parent()
    try:
        hello = parent.hello()
    except EOFError:
        return 1
    settings = msgspec.convert(hello["settings"], Settings)
    link = Link(hello["link"], bind=False)
    try:
        Trainer(settings.learning, link, parent, learner, loaded=_stand_back).run()
    finally:
        link.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
