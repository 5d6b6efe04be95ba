"""Drift: seen soon where errors have grown, hardly ever where they have not."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models.drift import Drift

ROWS = np.arange(400)


def settled(random: np.random.Generator, samples: int = 300) -> Drift:
    drift = Drift()
    for _ in range(samples):
        drift.take(ROWS, random.normal(size=len(ROWS)))
    return drift


@pytest.mark.parametrize("kind", ["normal", "laplace", "student"])
def test_errors_that_stay_as_they_are_hardly_ever_raise_the_alarm(kind: str) -> None:
    """Fewer than one in 50,000, whatever their law."""
    random = np.random.default_rng(1)
    draw = {
        "normal": lambda: random.normal(size=len(ROWS)),
        "laplace": lambda: random.laplace(size=len(ROWS)),
        "student": lambda: random.standard_t(3, len(ROWS)),
    }[kind]
    drift = Drift()
    alarms = sum(len(drift.take(ROWS, draw())) for _ in range(1000))
    assert alarms < 400 * 1000 / 50_000


@pytest.mark.parametrize("factor, within", [(2.0, 80), (10.0, 10)])
def test_errors_that_have_grown_raise_it_soon(factor: float, within: int) -> None:
    """In nine of ten series; the more they have grown, the sooner."""
    random = np.random.default_rng(2)
    drift, found = settled(random), set()
    for _ in range(within):
        found.update(drift.take(ROWS, factor * random.normal(size=len(ROWS))).tolist())
    assert len(found) > 0.9 * len(ROWS)


def test_a_single_spike_does_not_raise_it() -> None:
    """However large; nor does it change what is usual."""
    random = np.random.default_rng(3)
    drift = settled(random)
    assert len(drift.take(ROWS, np.full(len(ROWS), 1e9))) == 0
    found: set[int] = set()
    for _ in range(60):
        found.update(drift.take(ROWS, 3.0 * random.normal(size=len(ROWS))).tolist())
    assert len(found) > 0.9 * len(ROWS)


def test_after_an_alarm_it_begins_anew() -> None:
    """What follows a change is measured by what is usual since then."""
    random = np.random.default_rng(4)
    drift = settled(random)
    alarms = [len(drift.take(ROWS, 10.0 * random.normal(size=len(ROWS)))) for _ in range(500)]
    assert sum(alarms[:10]) > 0.9 * len(ROWS)
    assert sum(alarms[20:]) < 0.01 * len(ROWS)


def test_what_was_not_forecast_counts_for_nothing() -> None:
    """NaN errors change nothing, and neither unit nor order of the rows matters."""
    random = np.random.default_rng(5)
    plain, other = Drift(), Drift()
    order = random.permutation(ROWS)
    for k in range(200):
        error = random.normal(size=len(ROWS)) * (1.0 if k < 150 else 5.0)
        other.take(ROWS, np.full(len(ROWS), np.nan))
        assert set(plain.take(ROWS, error)) == set(other.take(order, 1e-6 * error[order]))


def test_errors_that_are_all_zero_raise_nothing() -> None:
    """A constant series is forecast without error; its first real one is no drift."""
    drift = Drift()
    for _ in range(200):
        assert len(drift.take(ROWS, np.zeros(len(ROWS)))) == 0
    assert len(drift.take(ROWS, np.ones(len(ROWS)))) == 0
