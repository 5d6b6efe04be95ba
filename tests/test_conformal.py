"""Intervals cover what they say, whatever the residuals do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from forecastd.models import conformal
from forecastd.models.table import Array, Table

LEVELS = np.array([0.9, 0.5, 0.99])
MISS_RATES = 1.0 - LEVELS
PLACES = np.argsort(LEVELS).tolist()
STARTS, GAINS = conformal.starts(MISS_RATES), conformal.gains(MISS_RATES)


def widths(state: dict[str, Array]) -> Array:
    """As published around the forecast made now, shape (2, L), both sides being expected to miss by as much."""
    size = np.repeat(conformal.unit(state)[:, :, None], 2, axis=2)
    return conformal.half_widths(state, size, np.ones(1), STARTS, PLACES)[0, 0]


def cover(errors: Array) -> tuple[Array, Array, dict[str, Array]]:
    """Which errors y_pred - y, shape (T,), lay inside the interval of each level, (T, L); how far each l was from its
    start then, (T, L); and the state in the end."""
    table = Table(conformal.columns(1, len(LEVELS)))
    state = table.take(table.append(1))
    inside, path = [], []
    for e in errors:
        width = widths(state)
        inside.append((e <= width[0]) & (-e <= width[1]))
        conformal.update(state, np.array([[e]]), width[None, None], np.ones((1, 1)), MISS_RATES, GAINS)
        path.append(state["log_quantile"][0, 0].copy())
    return np.array(inside), np.array(path), state


def noise(kind: str) -> Array:
    random = np.random.default_rng(4)
    draws: dict[str, Callable[[], Array]] = {
        "normal": lambda: random.normal(size=20_000),
        "heavy": lambda: random.standard_t(2, size=20_000),
        "skewed": lambda: random.lognormal(size=20_000) - 1.5,
        "growing": lambda: random.normal(size=20_000) * np.exp(np.linspace(0, 8, 20_000)),
        "bursts": lambda: random.normal(size=20_000) * np.where(np.arange(20_000) // 500 % 2, 1.0, 30.0),
        "half zero": lambda: random.normal(size=20_000) * (random.random(20_000) < 0.5),
    }
    return draws[kind]()


@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed", "growing", "bursts", "half zero"])
def test_each_level_covers_its_share(kind: str) -> None:
    inside, _, _ = cover(noise(kind))
    np.testing.assert_allclose(inside.mean(axis=0), LEVELS, atol=0.01)


@pytest.mark.parametrize("kind", ["heavy", "half zero"])
def test_misses_are_as_many_as_the_bound_says(kind: str) -> None:
    """The steps of l, each divided by its length, add up to the misses: no assumption about the data, so to rounding.
    And what that is bounded by is the way l went over the length of the last step."""
    inside, path, _ = cover(noise(kind))
    t = np.arange(len(inside))[:, None]
    length = GAINS * (conformal.STEP + conformal.STEP_EXTRA * conformal.STEP_AGE / (conformal.STEP_AGE + t))
    off = (~inside).mean(axis=0) - MISS_RATES
    steps = np.diff(path, axis=0, prepend=0.0) / length
    np.testing.assert_allclose(off, steps.mean(axis=0), atol=1e-12)
    way = np.maximum(path.max(axis=0), 0.0) - np.minimum(path.min(axis=0), 0.0)
    assert (np.abs(off) <= way / (length[-1] * len(inside))).all()


def test_misses_are_shared_out_to_both_sides() -> None:
    errors = noise("skewed")
    _, _, state = cover(errors)
    below, above = widths(state)[:, 0]
    assert np.mean(errors > below) == pytest.approx(0.05, abs=0.02)
    assert np.mean(-errors > above) == pytest.approx(0.05, abs=0.02)


def test_a_row_without_a_due_forecast_stays_as_it_is() -> None:
    table = Table(conformal.columns(1, 1))
    state = table.take(table.append(2))
    made, one = np.array([[1.0], [0.0]]), np.ones(1)
    conformal.update(state, np.full((2, 1), 2.0), np.ones((2, 1, 2, 1)), made, 0.1 * one, one)
    fresh = Table(conformal.columns(1, 1))
    fresh.append(1)
    for name, column in state.items():
        np.testing.assert_array_equal(column[1], fresh[name][0])
        assert (column[0] != fresh[name][0]).any()


@pytest.mark.parametrize("size", [1e6, 1e12])
def test_one_huge_residual_widens_the_next_intervals_only_for_a_while(size: float) -> None:
    errors = np.random.default_rng(5).normal(size=1700)
    errors[1500] = size
    _, _, state = cover(errors)
    assert widths(state)[:, 0].max() < 10.0


def test_a_series_that_was_flat_is_covered_soon_after_it_moves() -> None:
    """Forecasts that were right to the bit do not make intervals ever narrower, and the first errors are believed."""
    moving = np.random.default_rng(6).normal(size=300)
    inside, path, _ = cover(np.concatenate([np.zeros(1_500), moving]))
    assert inside[:1_500].all() and (path[:1_500] == path[0]).all()
    assert (inside[1_510:1_700].mean(axis=0) > LEVELS - 0.1).all()


def test_published_intervals_are_nested_and_the_first_level_keeps_its_own() -> None:
    widths = np.random.default_rng(0).exponential(size=(4, 200, 2))
    places = np.argsort([0.9, 0.99, 0.8, 0.95]).tolist()
    published = conformal.in_order(widths.copy(), places)
    np.testing.assert_array_equal(published[0], widths[0])
    assert (np.diff(published[places], axis=0) >= 0.0).all()
    np.testing.assert_array_equal(conformal.in_order(published.copy(), places), published)
