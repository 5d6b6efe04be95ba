"""A step's length is learnt from the steps before."""

from __future__ import annotations

from forecastd.daemon.pace import FALL, ROUNDS_MAX, ROUNDS_MIN, SAMPLES_MAX, SAMPLES_MIN, THIN_S, Pace

STEP_S = 0.02


def test_a_long_step_makes_the_next_ones_shorter_and_short_ones_make_them_longer_again() -> None:
    """By the samples where there are many in a round, by the rounds where there are few."""
    pace = Pace(STEP_S)
    samples, rounds = pace.samples, pace.rounds
    pace.learn(samples, 1, 2 * STEP_S)
    assert (pace.samples, pace.rounds) == (samples // 2, rounds)
    pace.learn(rounds, rounds, 2 * THIN_S)
    assert (pace.samples, pace.rounds) == (samples // 2, rounds // 2)
    pace.learn(pace.samples, pace.rounds, THIN_S / 4)
    assert (pace.samples, pace.rounds) == (samples, rounds)


def test_what_did_not_fill_a_step_tells_nothing_of_longer_ones() -> None:
    """Nor does one of a good length change anything."""
    pace = Pace(STEP_S)
    before = pace.samples, pace.rounds
    pace.learn(1, 1, THIN_S / 100)
    pace.learn(pace.samples, 1, 0.9 * STEP_S)
    pace.learn(pace.rounds, pace.rounds, 0.9 * THIN_S)
    assert (pace.samples, pace.rounds) == before


def test_one_step_that_was_held_up_is_not_the_measure_of_all() -> None:
    """However long it took; and there are bounds both ways."""
    pace = Pace(STEP_S)
    before = pace.samples
    pace.learn(pace.samples, 1, 1_000.0)
    assert pace.samples == before // FALL
    for _ in range(20):
        pace.learn(pace.samples, 1, 1_000.0)
        pace.learn(pace.rounds, pace.rounds, 1_000.0)
    assert (pace.samples, pace.rounds) == (SAMPLES_MIN, ROUNDS_MIN)
    for _ in range(20):
        pace.learn(pace.samples, 1, 0.0)
        pace.learn(pace.rounds, pace.rounds, 0.0)
    assert (pace.samples, pace.rounds) == (SAMPLES_MAX, ROUNDS_MAX)
