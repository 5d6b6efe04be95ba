"""Whether another model forecasts better than the one in service: a test that may be looked at after every sample.

Round t compares the errors of both on the same n samples, in units of each series: a_i of the one in service, b_i of
the other. With a margin m the round's difference is

    d_t = mean over i of (1 - m) a_i - b_i,        D_t = clip(d_t / c_t, -1, 1)

where c_t, three times the root mean square of the differences so far, is known before the round. The hypothesis to be
refuted is that the other is not better by more than the margin: E[D_t | all before t] ≤ 0 for every t. Against it one
bets a share λ of what one has on every round, for several λ at once:

    E_t = (1/K) Σ_k Π_{i ≤ t} (1 + λ_k D_i)

Under the hypothesis E is a nonnegative supermartingale that starts at 1, so the chance that it ever reaches 1/α is at
most α (Ville's inequality): it may be looked at after every round, and ended whenever one likes. Betting on bounded
means: Waudby-Smith and Ramdas, JRSS B 86 (2024); for comparing forecasters: Choe and Ramdas, Operations Research 72
(2024). Rounds may depend on each other in any way, and so may the samples of one round, which is why they enter as one
mean. The clipping is part of the hypothesis: one round counts for no more than any other, however far off a spike is.
"""

from __future__ import annotations

from math import exp, log, log1p, sqrt
from typing import NamedTuple

from .table import Array

#: Shares that are bet: the best one for an advantage of δ root mean squares a round is about 3 δ / (1 + δ²).
SHARES = (0.95, 0.6, 0.3, 0.15, 0.075)
#: Rounds without a bet, from which the scale is known; then it forgets at that rate.
FIRST = 10
RATE = 1.0 / 200.0
CLIP = 3.0
#: In the scale a difference counts for no more than so many root mean squares.
FAR = 5.0


class Evidence:
    """E above, in plain floats: a round costs some microseconds."""

    def __init__(self) -> None:
        self.rounds = 0
        self._wealth = [0.0] * len(SHARES)  # log of each product
        self._square = 0.0

    def take(self, d: float) -> None:
        """The next round's difference, finite."""
        square = d * d
        if self.rounds >= FIRST and self._square > 0.0:
            bounded = min(max(d / (CLIP * sqrt(self._square)), -1.0), 1.0)
            self._wealth = [w + log1p(share * bounded) for w, share in zip(self._wealth, SHARES, strict=True)]
            square = min(square, FAR * FAR * self._square)
        self.rounds += 1
        self._square += max(RATE, 1.0 / self.rounds) * (square - self._square)

    @property
    def log(self) -> float:
        """ln E."""
        top = max(self._wealth)
        return top + log(sum(exp(w - top) for w in self._wealth) / len(SHARES))


class Verdict(NamedTuple):
    """`won`: the other is better; `lost`: the one in service is; `gave_up`: it took too long to tell."""

    outcome: str
    figures: dict[str, float]


class Trial:
    """The other model against the one in service, until it is decided: with a chance of at most `alpha` that the other
    one wins though it is not better by more than `margin`. It loses as soon as the same can be said of the one in
    service, and the trial ends after `rounds_max`."""

    def __init__(self, alpha: float, margin: float, rounds_max: int) -> None:
        self.margin, self.rounds_max = margin, rounds_max
        self._bound = -log(alpha)
        self._better, self._worse = Evidence(), Evidence()
        self._samples = 0
        self._ours = self._theirs = 0.0

    @property
    def rounds(self) -> int:
        return self._better.rounds

    def take(self, ours: Array, theirs: Array) -> Verdict | None:
        """A round: the absolute errors of the one in service and of the other, shape (n,), n ≥ 1, finite, each in the
        unit of its series. What is decided, None while nothing is."""
        n, a, b = len(ours), float(ours.mean()), float(theirs.mean())
        self._samples += n
        self._ours += n * a
        self._theirs += n * b
        self._better.take((1.0 - self.margin) * a - b)
        self._worse.take((1.0 - self.margin) * b - a)
        if self._better.log >= self._bound:
            return Verdict("won", self.figures)
        if self._worse.log >= self._bound:
            return Verdict("lost", self.figures)
        return Verdict("gave_up", self.figures) if self.rounds >= self.rounds_max else None

    @property
    def figures(self) -> dict[str, float]:
        """How it stands: `evidence` is E, `gain` the share by which the other's mean error is lower, over `samples` in
        `rounds`."""
        return {
            "evidence": exp(min(self._better.log, 700.0)),
            "gain": 1.0 - self._theirs / self._ours if self._ours > 0.0 else 0.0,
            "rounds": self.rounds,
            "samples": self._samples,
        }


class Guard:
    """The predecessor against the champion that took its place, for as long as that one serves: with a chance of at
    most `alpha`, over all that time, that the predecessor comes back though the champion is not worse by more than
    `margin`.

    What a champion has earned must not hide for long that it is worse now, so the trial begins anew every `rounds_max`;
    the k-th one has the share alpha / (k (k + 1)) of the chance, and these add up to alpha."""

    def __init__(self, alpha: float, margin: float, rounds_max: int) -> None:
        self.alpha, self.margin, self.rounds_max = alpha, margin, rounds_max
        self.runs = 0
        self._begin()

    def _begin(self) -> None:
        self.runs += 1
        self._trial = Trial(self.alpha / (self.runs * (self.runs + 1)), self.margin, self.rounds_max)

    def take(self, ours: Array, theirs: Array) -> Verdict | None:
        """A round, as `Trial.take` has it; the only outcome is `won`: the predecessor is to come back."""
        verdict = self._trial.take(ours, theirs)
        if verdict is not None and verdict.outcome == "won":
            return verdict
        if self._trial.rounds >= self.rounds_max:
            self._begin()
        return None

    @property
    def figures(self) -> dict[str, float]:
        """How the present run stands."""
        return self._trial.figures
