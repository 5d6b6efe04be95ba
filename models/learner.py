"""Who is fine-tuned when, and whether what comes out may serve: the trainer's whole judgement, without its process.

Fed with lessons, asked who is due, told to tune them. The trainer runs it beside the daemon, `backtest --finetune`
inline: the same decisions from the same lessons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .challenger import Challenge, challenge
from .kernel import Kernel
from .lessons import Lesson, Lessons, Windows
from .readout import refit
from .table import Array
from .weights import CHANNELS, Weights

if TYPE_CHECKING:
    from .tuning import Tuner

#: Samples a series must have taught before its first fine-tune.
FIRST = 128
#: Windows for the readout; and the newest, on which a tuned copy is judged and which it does not see.
READOUT = 2048
HELD = 32
#: How much worse than before a tuned copy may be on them, as a share: so few windows cannot tell less.
TOLERANCE = 0.05
#: After so many samples, and so many reports of what it gains, a copy must have gained this share of the shared model's
#: loss, averaged over as many reports; if not, it is taken back, and the series rests for so many samples.
TRIAL = 1024
REPORTS = 16
GAIN = 0.002
REST = 4 * TRIAL
#: The share of the copies that may be on trial while other series wait for one.
ON_TRIAL = 1.0 / 8.0


class Tune(NamedTuple):
    """One fine-tune: the series' row, the outcome (`tuned`, `rejected`: worse on the held-out windows, `nonfinite`),
    the weights where they may serve, and the mean loss on the held-out windows before and after."""

    row: int
    outcome: str
    weights: Weights | None
    before: float
    after: float


class Learner:
    """The copies of one shared model, `anchor`, one that `teaches` says yes to."""

    def __init__(self, anchor: Weights, every: int, copies: int, series: int) -> None:
        self.anchor = anchor
        self.every = every
        self.budget = copies
        self.lessons = Lessons(anchor.window, series)
        self.copies: dict[int, Weights] = {}
        #: the same before their readouts were fitted: the fit is to start from there, or it would drift
        self._models: dict[int, Weights] = {}
        #: of each row: how many samples it had taught when it was tuned, when it got its copy, and until when it rests
        self._tuned: dict[int, int] = {}
        self._given: dict[int, int] = {}
        self._resting: dict[int, int] = {}
        self._gains: dict[int, float] = {}
        #: how often it was reported what the copy of a row gains
        self._reports: dict[int, int] = {}
        #: whether a series waited for room when it was last asked who is due
        self._crowded = False
        self._tuner: Tuner | None = None

    @staticmethod
    def teaches(weights: Weights) -> bool:
        """Whether copies of this model can be tuned: it takes the four channels and gives a linear residual."""
        return weights.channels == CHANNELS and weights.output == "residual" and weights.activation == "linear"

    def take(self, lesson: Lesson) -> None:
        """Keep a round."""
        self.lessons.take(lesson)

    def hold(self, row: int, weights: Weights) -> None:
        """Go on with a copy that `row` has already, of a learner that is no more."""
        self.copies[row] = self._models[row] = weights
        self._tuned[row] = self._given[row] = 0

    def hear(self, gains: Mapping[int, float]) -> None:
        """Take in what copies gain live: of each row the share by which what is served loses less than the shared
        model."""
        for row, gain in gains.items():
            if row in self.copies:
                before = self._gains.get(row, gain)
                self._gains[row] = before + (gain - before) / REPORTS
                self._reports[row] = self._reports.get(row, 0) + 1

    def due(self, asked: Iterable[int] = ()) -> list[int]:
        """The rows to be tuned now: those `asked` for, and those with `every` new samples, longest overdue first; of
        series without a copy no more than the budget has room for."""
        rows = self.lessons.rows
        count = dict(zip(rows.tolist(), self.lessons.count(rows).tolist(), strict=True))
        urgent = [row for row in asked if count.get(row, 0) >= FIRST]
        waits = {row: n - self._tuned.get(row, 0) for row, n in count.items() if n >= max(FIRST, self._rests(row))}
        overdue = sorted((row for row, wait in waits.items() if wait >= self.every), key=lambda row: -waits[row])
        due, room = [], self.budget - len(self.copies)
        self._crowded = False
        for row in dict.fromkeys([*urgent, *overdue]):
            if row not in self.copies:
                if room <= 0:
                    self._crowded = True
                    continue
                room -= 1
            due.append(row)
        return due

    def tune(self, rows: list[int]) -> list[Tune]:
        """Fine-tune the copies of `rows`, a few together; a row's first copy begins as the shared model. The first call
        imports TensorFlow."""
        tuner = self._tensorflow()
        known = [self.lessons.windows(row, READOUT + HELD) for row in rows]
        for row in rows:
            self._tuned[row] = int(self.lessons.count(np.array([row]))[0])
        usable = [(row, windows) for row, windows in zip(rows, known, strict=True) if len(windows.targets) > 2 * HELD]
        tunes = []
        for start in range(0, len(usable), GROUP):
            tunes += self._tune(tuner, usable[start : start + GROUP])
        for tune in tunes:
            if tune.weights is not None:
                self._given.setdefault(tune.row, self._tuned[tune.row])
                self.copies[tune.row] = tune.weights
        return tunes

    def challenge(self) -> Challenge | None:
        """A challenger of the anchor, tuned on what all series have taught; None where it would not be better."""
        return challenge(self._tensorflow(), self.anchor, self.lessons, seed=self.lessons.taken)

    def retired(self) -> list[int]:
        """The rows whose copies have not been worth having, and, while others wait for room, the one that gains least:
        they are taken back here, and rest for a while. So that copies go where they gain most, no more than a share of
        them is on trial at a time."""
        tried = [row for row in self.copies if self._tried(row)]
        idle = [row for row in tried if self._gains[row] < GAIN]
        if not idle and tried and self._crowded and len(self.copies) - len(tried) < self.budget * ON_TRIAL:
            idle = [min(tried, key=lambda row: self._gains[row])]
        for row in idle:
            self.drop(row)
        return idle

    def drop(self, row: int) -> None:
        """Take the copy of `row` back; the series rests."""
        if self.copies.pop(row, None) is not None:
            self._gains.pop(row, None)
            self._reports.pop(row, None)
            self._given.pop(row)
            self._models.pop(row)
            self._resting[row] = self._tuned[row] + REST

    def _tensorflow(self) -> Tuner:
        if self._tuner is None:
            from .tuning import Tuner

            self._tuner = Tuner(self.anchor)
        return self._tuner

    def _tried(self, row: int) -> bool:
        # Of a fast series more samples than a trial may have been on their way when its copy was given: they tell
        # nothing of it, the reports do.
        return self._tuned[row] - self._given[row] >= TRIAL and self._reports.get(row, 0) >= REPORTS

    def _rests(self, row: int) -> int:
        return self._resting.get(row, 0)

    def _tune(self, tuner: Tuner, group: list[tuple[int, Windows]]) -> list[Tune]:
        models = [self._models.get(row, self.anchor) for row, _ in group]
        seen = [Windows(inputs[:-HELD], targets[:-HELD]) for _, (inputs, targets) in group]
        tuned = tuner.tune(models, *_stacked(seen))
        tunes = []
        for (row, windows), model, part in zip(group, tuned, seen, strict=True):
            before, after = self.copies.get(row, self.anchor), _refitted(model, part)
            tune = _judged(row, before, after, Windows(windows.inputs[-HELD:], windows.targets[-HELD:]))
            if tune.weights is not None:
                self._models[row] = model
            tunes.append(tune)
        return tunes


#: Copies tuned together, at most.
GROUP = 16


def _stacked(parts: list[Windows]) -> tuple[Array, Array]:
    """The newest windows of each series, as many as a fine-tune takes; where there are fewer they come repeatedly."""
    from .tuning import WINDOWS

    places = [np.resize(np.arange(len(part.targets))[-WINDOWS:][::-1], WINDOWS)[::-1] for part in parts]
    inputs, targets = (np.stack([part[k][place] for part, place in zip(parts, places, strict=True)]) for k in range(2))
    return inputs, targets


def _refitted(weights: Weights, windows: Windows) -> Weights:
    """The weights with the readout that is best for these windows."""
    hidden = _hidden(Kernel(weights), windows.inputs)
    if not np.isfinite(hidden).all():
        return weights
    readout, bias = refit(hidden, windows.targets, weights.readout, float(weights.readout_bias))
    return replace(weights, readout=readout, readout_bias=np.asarray(bias, np.float32))


def _hidden(kernel: Kernel, inputs: Array) -> Array:
    """The last hidden state of each window, shape (n, units); n at most two chunks of the kernel."""
    half = (len(inputs) + 1) // 2
    parts = [kernel.hidden(part).T.copy() for part in (inputs[:half], inputs[half:]) if len(part)]
    return np.concatenate(parts)


def _judged(row: int, before: Weights, after: Weights, held: Windows) -> Tune:
    was, now = _loss(before, held), _loss(after, held)
    if not all(np.isfinite(array).all() for array in after.arrays.values()) or not np.isfinite(now):
        return Tune(row, "nonfinite", None, was, now)
    if now > was * (1.0 + TOLERANCE):
        return Tune(row, "rejected", None, was, now)
    return Tune(row, "tuned", after, was, now)


def _loss(weights: Weights, windows: Windows) -> float:
    """The mean absolute error of the windows, in units of s."""
    return float(np.abs(Kernel(weights).forward(windows.inputs) - windows.targets).mean())
