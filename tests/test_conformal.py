"""Intervals cover what they say, whatever the residuals do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from forecastd.models import conformal
from forecastd.models.table import Array, Table

LEVELS = np.array([0.9, 0.5, 0.99])


def cover(residuals: Array) -> tuple[Array, dict[str, Array]]:
    """Which residuals, shape (T,), lay inside the interval of each level, (T, L); and the state in the end."""
    table = Table(conformal.columns(1, len(LEVELS)))
    state = table.take(table.append(1))
    inside = []
    for e in np.abs(residuals):
        width = conformal.half_widths(state, np.ones(1))
        inside.append(e <= width[0, 0])
        conformal.update(state, np.array([[e]]), width, np.ones((1, 1)), 1.0 - LEVELS)
    return np.array(inside), state


def noise(kind: str) -> Array:
    random = np.random.default_rng(4)
    draws: dict[str, Callable[[], Array]] = {
        "normal": lambda: random.normal(size=20_000),
        "heavy": lambda: random.standard_t(2, size=20_000),
        "growing": lambda: random.normal(size=20_000) * np.exp(np.linspace(0, 8, 20_000)),
        "bursts": lambda: random.normal(size=20_000) * np.where(np.arange(20_000) // 500 % 2, 1.0, 30.0),
        "half zero": lambda: random.normal(size=20_000) * (random.random(20_000) < 0.5),
    }
    return draws[kind]()


@pytest.mark.parametrize("kind", ["normal", "heavy", "growing", "bursts", "half zero"])
def test_each_level_covers_its_share(kind: str) -> None:
    inside, _ = cover(noise(kind))
    np.testing.assert_allclose(inside.mean(axis=0), LEVELS, atol=0.01)


def test_the_mean_of_misses_is_what_the_telescoping_sum_says() -> None:
    """mean(miss) - a = (l_T - l_0) / (0.1 T): no assumption about the data, so it holds to rounding."""
    inside, state = cover(noise("heavy"))
    moved = state["log_width"][0, 0] - np.log(2.0)
    np.testing.assert_allclose(
        (~inside).mean(axis=0) - (1.0 - LEVELS), moved / (conformal.STEP * len(inside)), atol=1e-12
    )


def test_a_row_without_a_due_forecast_stays_as_it_is() -> None:
    table = Table(conformal.columns(1, 1))
    state = table.take(table.append(2))
    conformal.update(state, np.ones((2, 1)), np.ones((2, 1, 1)), np.array([[1.0], [0.0]]), np.array([0.1]))
    fresh = Table(conformal.columns(1, 1))
    fresh.append(1)
    for name, column in state.items():
        np.testing.assert_array_equal(column[1], fresh[name][0])
    assert state["residuals"][0, 0] == 1


def test_one_huge_residual_widens_the_next_intervals_only_for_a_while() -> None:
    residuals = np.random.default_rng(5).normal(size=3000)
    residuals[1500] = 1e6
    _, state = cover(residuals)
    assert conformal.half_widths(state, np.ones(1))[0, 0, 0] < 10.0


def test_published_intervals_are_nested_and_the_first_level_keeps_its_own() -> None:
    widths = np.random.default_rng(0).exponential(size=(200, 2, 4))
    levels = np.array([0.9, 0.99, 0.8, 0.95])
    published = conformal.in_order(widths, np.argsort(levels).tolist())
    np.testing.assert_array_equal(published[:, :, 0], widths[:, :, 0])
    assert (np.diff(published[:, :, np.argsort(levels)], axis=2) >= 0.0).all()
    nested = np.sort(widths, axis=2)[:, :, np.argsort(np.argsort(levels))]
    np.testing.assert_array_equal(conformal.in_order(nested, np.argsort(levels).tolist()), nested)
