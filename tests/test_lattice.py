"""The lattice gives the forecasts of recursive least squares, for every order and row at once."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import lattice
from forecastd.models.table import Array, Table


def table(rows: int, energy: float) -> dict[str, Array]:
    made = Table(lattice.COLUMNS, rows)
    state = made.take(made.append(rows))
    state["f_energy"][...] = energy
    state["b_energy"][...] = energy
    return state


def recursive_least_squares(values: Array, order: int, ridge: float) -> Array:
    """The textbook's exponentially weighted RLS: the forecast of each next value, from the last `order` ones."""
    weights, inverse = np.zeros(order), np.eye(order) / ridge
    window, forecasts = np.zeros(order), np.zeros(len(values))
    for t, value in enumerate(values):
        gain = inverse @ window / (lattice.FORGETTING + window @ inverse @ window)
        weights = weights + gain * (value - weights @ window)
        inverse = (inverse - np.outer(gain, window @ inverse)) / lattice.FORGETTING
        window = np.concatenate([[value], window[:-1]])
        forecasts[t] = weights @ window
    return forecasts


@pytest.mark.parametrize("order", [1, 10, 32])
def test_the_forecasts_of_each_order_are_those_of_recursive_least_squares(order: int) -> None:
    random = np.random.default_rng(1)
    t = np.arange(1500)
    signals = np.stack([np.sin(t / 9.0), np.sin(t / 3.0) + np.sin(t / 17.0)], axis=1) + random.normal(0, 0.2, (1500, 2))
    state = table(2, 1e-3)
    ours = np.empty_like(signals)
    for step, y in enumerate(signals):
        lattice.update(state, y)
        ours[step] = -state["prediction"][:, order - 1]
    for row in range(2):
        theirs = recursive_least_squares(signals[:, row], order, 1e-3)
        # the two differ in what they start from, which is forgotten
        assert np.abs(ours[600:, row] - theirs[600:]).max() < 5e-3
        late = slice(600, -1)
        rmse = [np.sqrt(np.mean((f[late] - signals[601:, row]) ** 2)) for f in (ours[:, row], theirs)]
        assert rmse[0] == pytest.approx(rmse[1], rel=1e-3)


def test_one_row_alone_forecasts_as_it_does_among_others() -> None:
    values = np.random.default_rng(2).normal(size=(300, 5)).cumsum(axis=0)
    together, alone = table(5, 1.0), table(1, 1.0)
    for y in values:
        lattice.update(together, y)
        lattice.update(alone, y[3:4])
    np.testing.assert_array_equal(together["prediction"][3], alone["prediction"][0])


def test_the_path_ahead_continues_a_tone() -> None:
    """Twelve steps follow it to the ripple of the coefficients: each is a least-squares fit to the last thousand
    samples by itself, and those hold no whole number of periods, so frozen ones are right to about one in a
    hundred."""
    state = table(1, 1e-9)
    wave = np.sin(np.arange(3000) * 0.3)
    for y in wave[:2900]:
        lattice.update(state, np.array([y]))
    np.testing.assert_allclose(lattice.ahead(state, 10, 12)[0], wave[2900:2912], atol=1e-2)


def test_rolling_a_sample_in_equals_updating_but_for_the_learning() -> None:
    values = np.random.default_rng(3).normal(size=400)
    state = table(1, 1.0)
    for y in values:
        lattice.update(state, np.array([y]))
    b, _ = lattice.roll(*(state[k] for k in ("kf", "kb", "b", "prediction")), np.array([0.7]))
    lattice.update(state, np.array([0.7]))
    np.testing.assert_allclose(b, state["b"], rtol=1e-12)


def test_rows_worked_on_in_parts_are_those_worked_on_alone() -> None:
    """To the bit: which rows stand beside one is no matter."""
    count = lattice.CHUNK + 3
    values = np.random.default_rng(5).normal(size=(80, count)).cumsum(0)

    def fresh(rows: int) -> dict[str, np.ndarray]:
        state = {name: np.full((rows, *column.shape), column.initial) for name, column in lattice.COLUMNS.items()}
        return state | {name: np.ones((rows, lattice.ORDER)) for name in ("f_energy", "b_energy")}

    together = fresh(count)
    for y in values:
        lattice.update(together, y)
    for row in (0, lattice.CHUNK - 1, lattice.CHUNK, count - 1):
        alone = fresh(1)
        for y in values:
            lattice.update(alone, y[row : row + 1])
        for name, column in alone.items():
            np.testing.assert_array_equal(column[0], together[name][row])
