"""`forecastd run` with a trainer that is not to be trusted while a file says so: python untrue.py MANNER FILE OPTION…

`killed` and `stopped` come to it in the middle of a fine-tune; with `memory` it has too little of it; with `worse` its
fine-tunes make a model worse by a tenth, which it sees; `nan` and `mad` are what it says are good weights though they
are nothing of the kind. When the file is gone its fine-tunes are sound, and cost nothing.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from forecastd.daemon import supervisor, trainer
from forecastd.daemon.cli import main as forecastd
from forecastd.daemon.settings import Learning
from forecastd.models import learner
from forecastd.models.learner import Learner, Tune
from forecastd.models.lessons import Windows
from forecastd.models.weights import Weights

MANNER, FILE, *OPTIONS = sys.argv[1:]


class Untrue(Learner):
    """Does what the manner says, and tells the truth about none of it."""

    def tune(self, rows: list[int]) -> list[Tune]:
        if not Path(FILE).exists():
            return [self._told(row, self.anchor) for row in rows]
        if MANNER in ("killed", "stopped"):
            os.kill(os.getpid(), signal.SIGKILL if MANNER == "killed" else signal.SIGSTOP)
        if MANNER == "memory":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
            return super().tune(rows)
        if MANNER == "worse":
            return [self._worsened(row) for row in rows]
        wrong = np.float32(np.nan if MANNER == "nan" else 40.0)
        return [self._told(row, replace(self.anchor, readout_bias=self.anchor.readout_bias + wrong)) for row in rows]

    def _told(self, row: int, weights: Weights) -> Tune:
        self.copies[row] = self._models[row] = weights
        self._tuned[row] = int(self.lessons.count(np.array([row]))[0])
        self._given.setdefault(row, self._tuned[row])
        return Tune(row, "tuned", weights, 1.0, 0.5)

    def _worsened(self, row: int) -> Tune:
        """What the gate says of a model that has 11/10 of the loss."""
        self._tuned[row] = int(self.lessons.count(np.array([row]))[0])
        newest = Windows(*(part[-learner.HELD :] for part in self.lessons.windows(row, learner.HELD)))
        loss, wrong, after = learner._loss(self.anchor, newest), 0.0, self.anchor
        while learner._loss(after, newest) < 1.1 * loss:
            wrong += 0.01
            after = replace(self.anchor, readout_bias=self.anchor.readout_bias + np.float32(wrong))
        return learner._judged(row, self.anchor, after, newest)


def made(anchor: Weights, options: Learning) -> Learner:
    return Untrue(anchor, options.every_samples, options.copies, options.series)


if __name__ == "__main__" and OPTIONS:
    told = supervisor.specs
    command = [sys.executable, __file__, MANNER, FILE]
    supervisor.specs = lambda settings: [
        replace(spec, command=command) if spec.name == "trainer" else spec for spec in told(settings)
    ]
    forecastd(["run", *OPTIONS])
elif __name__ == "__main__":
    sys.exit(trainer.main(made))
