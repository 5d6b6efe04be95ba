"""The step of a series is found from the times of its samples, and gaps are told from jitter."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.daemon import cadence
from forecastd.models.table import Array, Table


class Clock:
    """One series' cadence."""

    def __init__(self) -> None:
        self.table = Table(cadence.COLUMNS)
        self.state = self.table.take(self.table.append(1))

    def tick(self, time: float, timed: bool = True) -> int:
        """Take in a sample's time; how many steps were missed before it."""
        at, given = np.array([time]), np.array([timed])
        missed = int(cadence.missed(self.state, at, given)[0])
        cadence.update(self.state, at, given)
        return missed

    @property
    def step(self) -> float:
        return float(cadence.step(self.state)[0])


def times(step: float, count: int, jitter: float = 0.0, start: float = 1.7e9) -> Array:
    return start + step * (np.arange(count) + np.random.default_rng(0).uniform(-jitter, jitter, count))


def test_before_the_second_sample_the_step_is_unknown() -> None:
    clock = Clock()
    clock.tick(1.7e9)
    assert np.isnan(clock.step)


@pytest.mark.parametrize("step", [0.001, 1.0, 300.0, 604800.0])
def test_the_step_is_the_usual_difference_in_spite_of_jitter_and_gaps(step: float) -> None:
    clock = Clock()
    at = times(step, 500, jitter=0.05)
    at[200:] += 50 * step
    for time in at:
        clock.tick(time)
    assert clock.step == pytest.approx(step, rel=0.05)


def test_missed_steps_are_counted_once_the_step_is_known() -> None:
    clock = Clock()
    for time in times(60.0, 20):
        assert clock.tick(time) == 0
    assert clock.tick(1.7e9 + 60.0 * 23) == 3
    assert clock.tick(1.7e9 + 60.0 * 24) == 0


def test_an_irregular_series_has_no_gaps() -> None:
    clock = Clock()
    at = 1.7e9 + np.random.default_rng(1).exponential(10.0, 400).cumsum()
    assert sum(clock.tick(time) for time in at) == 0


def test_times_of_arrival_make_no_gaps() -> None:
    clock = Clock()
    for time in times(1.0, 50):
        clock.tick(time, timed=False)
    assert clock.tick(1.7e9 + 1000.0, timed=False) == 0


def test_a_new_step_is_learnt() -> None:
    clock = Clock()
    for time in times(1.0, 100):
        clock.tick(time)
    for time in times(5.0, 400, start=1.7e9 + 200.0):
        clock.tick(time)
    assert clock.step == pytest.approx(5.0, rel=0.05)


def test_an_outage_of_years_does_not_overflow() -> None:
    clock = Clock()
    for time in times(0.001, 50):
        clock.tick(time)
    assert clock.tick(1e300) > 0
    assert np.isfinite(clock.step)


@pytest.mark.parametrize("timed", [True, False])
def test_one_sample_in_plain_floats_is_as_many_in_arrays(timed: bool) -> None:
    clock, plain = Clock(), Clock()
    at = times(2.0, 300, jitter=0.2)
    at[150:] += 7.0
    at[200] = at[199]
    for time in at:
        row = plain.table.lend(0)
        assert clock.tick(time, timed) == cadence.missed_one(row, time, timed)
        assert clock.step == pytest.approx(cadence.update_one(row, time, timed), nan_ok=True)
        for name, column in clock.state.items():
            np.testing.assert_allclose(plain.table[name], column, rtol=1e-12, err_msg=name)
