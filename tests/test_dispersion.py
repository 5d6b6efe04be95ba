"""How large the next error will be is learnt from what is known when the forecast is made."""

from __future__ import annotations

import numpy as np

from forecastd.models import conformal, dispersion
from forecastd.models.table import Array, Table

STEPS = 3000


def learnt(deviation: Array, spread: Array, last: Array, mean: Array) -> tuple[Array, dict[str, Array]]:
    """S below and above zero forecasts, shape (T, 2), whose values are normal with that deviation and mean, all of
    shape (T,); a second expert is `spread` off, the last value was `last`."""
    random = np.random.default_rng(0)
    table = Table(conformal.columns(1, 1) | dispersion.columns(1))
    state = table.take(table.append(1))
    one, said = np.ones((1, 1)), []
    for t in range(len(deviation)):
        ways = np.array([[[last[t], spread[t], -spread[t]]]])
        unit = conformal.unit(state)
        found = dispersion.features(state, unit, ways, 0.0 * one, np.ones((1, 1, 3)), np.zeros(1))
        size = dispersion.sizes(state, unit, found)
        said.append(size[0, 0])
        error = -one * random.normal(mean[t], deviation[t])
        conformal.update(state, error, np.ones((1, 1, 2, 1)), one, np.full(1, 0.1), np.ones(1))
        dispersion.update(state, error, found, size, one)
    return np.array(said), state


def test_larger_errors_are_expected_where_the_experts_disagree() -> None:
    loud = np.arange(STEPS) % 3 == 0
    size, _ = learnt(np.where(loud, 5.0, 1.0), np.where(loud, 4.0, 0.5), np.zeros(STEPS), np.zeros(STEPS))
    loud_size, quiet = size[-300:][loud[-300:]].mean(), size[-300:][~loud[-300:]].mean()
    assert 3.0 < loud_size / quiet < 7.0


def test_more_is_expected_on_the_side_to_which_values_fall() -> None:
    side = np.where(np.arange(STEPS) % 2, 1.0, -1.0)
    size, _ = learnt(np.ones(STEPS), np.zeros(STEPS), side, side)
    towards = np.where(side > 0.0, size[:, 1], size[:, 0])
    away = np.where(side > 0.0, size[:, 0], size[:, 1])
    assert towards[-300:].mean() > 1.5 * away[-300:].mean()


def test_of_plain_noise_the_mean_size_is_expected() -> None:
    size, _ = learnt(np.full(STEPS, 2.0), np.ones(STEPS), np.zeros(STEPS), np.zeros(STEPS))
    assert abs(size[-1000:].mean() / (2.0 * np.sqrt(2.0 / np.pi)) - 1.0) < 0.1


def test_one_huge_error_moves_what_was_learnt_by_little() -> None:
    calm = np.ones(STEPS)
    struck = calm.copy()
    struck[2000] = 1e4
    zero = np.zeros(STEPS)
    size, state = learnt(struck, calm, zero, zero)
    assert np.isfinite(state["dispersion"]).all()
    assert size[2500:].max() < 3.0


def test_a_row_without_a_due_forecast_stays_as_it_is() -> None:
    table = Table(conformal.columns(1, 1) | dispersion.columns(1))
    state = table.take(table.append(2))
    made = np.array([[1.0], [0.0]])
    dispersion.update(state, np.full((2, 1), 3.0), np.ones((2, 1, dispersion.SIZE)), np.ones((2, 1, 2)), made)
    assert (state["dispersion"][0] != 0.0).all()
    assert (state["dispersion"][1] == 0.0).all()
    assert (state["information"][1] == dispersion.INFORMATION).all()
