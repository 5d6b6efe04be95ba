"""How much goes into a step, so that it lasts neither long nor for nothing.

What a sample costs is not known beforehand: beside samples of other series a few microseconds, and where it has to
wait for the one before it in its series a hundred.
"""

from __future__ import annotations

#: Samples of a step at first, at least and at most; and how many of them may be of one series.
SAMPLES, SAMPLES_MIN, SAMPLES_MAX = 2_000, 128, 20_000
ROUNDS, ROUNDS_MIN, ROUNDS_MAX = 40, 2, 1_000
#: Seconds that rounds of few samples may take: to do more of them at once gains nothing.
THIN_S = 0.004
#: Rounds of fewer samples than this are what a step is long by.
THIN = 30
#: A step that took long for reasons of its own must not be the measure of all: how far down one goes at once.
FALL = 4


class Pace:
    """`samples` and `rounds` of the next step, learnt from those before: it should last `step_s` seconds at most."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.samples = SAMPLES
        self.rounds = ROUNDS

    def learn(self, samples: int, rounds: int, seconds: float) -> None:
        """Takes in that a step of so many samples in so many rounds took `seconds`."""
        if samples < THIN * rounds and seconds > THIN_S:
            self.rounds = max(min(self.rounds, int(rounds * THIN_S / seconds)), self.rounds // FALL, ROUNDS_MIN)
        elif seconds < THIN_S / 2 and 2 * rounds > self.rounds:
            self.rounds = min(2 * self.rounds, ROUNDS_MAX)
        if seconds > self.step_s:
            fitting = int(samples * self.step_s / seconds)
            self.samples = max(min(self.samples, fitting), self.samples // FALL, SAMPLES_MIN)
        elif seconds < self.step_s / 2 and 2 * samples > self.samples:
            self.samples = min(2 * self.samples, SAMPLES_MAX)
