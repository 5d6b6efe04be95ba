"""The season as an expert: what it repeats, what it does not, and how far it believes it."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import channels, season, seasonal
from forecastd.models.ar import AR
from forecastd.models.seasonal import Seasonal
from forecastd.models.table import Array, Column, Table


class Rows:
    """The expert over a table of its own."""

    def __init__(self, rows: int = 1, period: float = 0.0) -> None:
        self.expert = Seasonal(period)
        extra = {"row": Column(dtype=np.intp), "fresh": Column(dtype=np.int64)}
        self.table = Table({**extra, **channels.COLUMNS, **self.expert.columns})
        self.table.append(rows)
        self.table.arrays["row"][:rows] = np.arange(rows)

    def step(self, x: Array, horizon: int = 1) -> Array:
        state = self.table.take(slice(0, self.table.length))
        moment = channels.update(state, np.atleast_1d(np.asarray(x, float)))
        self.expert.update(state, moment)
        return self.expert.forecast(state, moment, horizon)

    def feed(self, values: Array, horizon: int = 1) -> Array:
        """The forecasts made after each of the values, shape (T, rows, horizon)."""
        return np.array([self.step(x, horizon) for x in values])


def day(length: int, period: int = 24, noise: float = 0.1, seed: int = 0) -> Array:
    """A pattern with edges, which linear prediction from 32 samples cannot learn well, and noise."""
    pattern = np.random.default_rng(9).normal(size=period)
    return np.resize(pattern, length) + noise * np.random.default_rng(seed).normal(size=length)


def rmse(forecasts: Array, values: Array, start: int) -> float:
    return float(np.sqrt(np.mean((forecasts[start:-1, 0, 0] - values[start + 1 :]) ** 2)))


def test_a_season_is_found_in_the_stream_and_forecast() -> None:
    values = day(1500, 50)
    rows = Rows()
    forecasts = rows.feed(values)
    assert rows.table["season"][0] == 50.0
    assert np.isnan(forecasts[60]).all(), "nothing to say before the season is known"
    # noise of 0.1 in the value, and of 0.1 / sqrt(6) in the mean of six seasons
    assert rmse(forecasts, values, 1000) < 1.05 * 0.1 * np.sqrt(1 + 1 / 6)


def test_a_configured_season_needs_no_finding_and_speaks_as_soon_as_it_has_come_once() -> None:
    values = day(80, 24)
    forecasts = Rows(period=24.0).feed(values)
    assert np.isnan(forecasts[:23]).all()
    assert np.isfinite(forecasts[23:]).all()


def test_between_samples_the_season_is_interpolated() -> None:
    period = 30.5
    values = np.sin(2 * np.pi * np.arange(400) / period)
    rows = Rows(period=period)
    rows.feed(values)
    state = rows.table.take(slice(0, 1))
    expected = np.sin(2 * np.pi * np.arange(400, 410) / period)
    np.testing.assert_allclose(seasonal._past(state, np.array([0]), 10)[0], expected, atol=0.01)


@pytest.mark.parametrize("seasons_ago", [1, 2, 3])
def test_a_spike_is_not_replayed_a_season_later(seasons_ago: int) -> None:
    values = day(1000, 24)
    spiked = values.copy()
    spiked[1000 - 24 * seasons_ago] += 1000.0
    calm, shaken = Rows(), Rows()
    calm.feed(values)
    shaken.feed(spiked)
    lent = (rows.table.lend(0) for rows in (calm, shaken))
    before, after = (seasonal._held(row, seasonal._past_one(row, row.season_clock + 1)) for row in lent)
    assert abs(after - before) < shaken.table["season_spread"][0] + 0.2
    assert shaken.table["season_spread"][0] < 5 * calm.table["season_spread"][0]


def test_a_series_above_its_season_is_forecast_to_stay_there_for_a_while() -> None:
    """The level wanders: the season alone is far off, with the level it is not."""
    walk = 0.1 * np.random.default_rng(4).normal(size=1500).cumsum()
    values = day(1500, 24, 0.02) + walk
    rows = Rows()
    forecasts = rows.feed(values)
    alone = np.std(values[1000:] - values[976:-24])
    assert rmse(forecasts, values, 1000) < 0.5 * alone


def test_where_the_season_tells_nothing_the_linear_forecast_is_kept() -> None:
    values = np.zeros(1500)
    noise = np.random.default_rng(6).normal(size=1500)
    for t in range(1, 1500):
        values[t] = 0.9 * values[t - 1] + noise[t]
    rows = Rows(period=24.0)
    made = []
    for x in values:
        forecast = rows.step(x)[0, 0]
        made.append(abs(forecast - rows.table["ar"][0]))
    assert np.mean(made[1000:]) < 0.15


def test_before_anything_is_fitted_the_path_ahead_is_the_linear_one() -> None:
    rows = Rows(period=24.0)
    rows.feed(day(600, 24) + np.linspace(0.0, 5.0, 600))
    state = rows.table.take(slice(0, 1))
    state["season_fit"][...] = 0.0
    moment = channels.Moment(state["last"], np.ones(1), np.ones(1), np.zeros((1, 4)))
    linear = AR("ar", 32).forecast(state, moment, 12)
    np.testing.assert_allclose(rows.expert.forecast(state, moment, 12), linear)


def test_the_path_ahead_follows_the_season() -> None:
    values = day(1224, 24, noise=0.02)
    rows = Rows()
    path = rows.feed(values[:1200], horizon=24)[-1, 0]
    assert np.abs(path - values[1200:]).max() < 0.15


def test_after_a_gap_the_season_goes_on_where_it_would_be() -> None:
    values = day(1200, 24)
    rows = Rows(period=24.0)
    rows.feed(values[:600])
    Seasonal.skip(rows.table.take(slice(0, 1)), np.array([37]))
    after = rows.feed(values[637:900])
    error = np.abs(after[:-1, 0, 0] - values[638:900])
    assert np.isfinite(error).all()
    assert error[5:].mean() < 0.2


def test_a_gap_longer_than_the_memory_leaves_nothing_to_repeat() -> None:
    rows = Rows(period=24.0)
    rows.feed(day(100, 24))
    Seasonal.skip(rows.table.take(slice(0, 1)), np.array([5000]))
    assert np.isnan(rows.step(1.0)).all()
    assert np.isfinite(rows.feed(day(30, 24))[-1]).all()


def test_a_season_is_dropped_when_it_is_gone_and_then_costs_nothing() -> None:
    rows = Rows()
    rows.feed(day(1100, 24))
    assert rows.table["season"][0] == 24.0
    rows.feed(np.random.default_rng(3).normal(size=2600))
    assert rows.table["season"][0] == 0.0
    assert np.isnan(rows.step(0.0)).all()


def test_no_step_has_many_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series that began together are looked at one after the other."""
    looked: list[int] = []
    decide = season.decide

    def counted(x: Array, *state: Array) -> tuple[Array, Array, Array]:
        looked[-1] += len(x)
        return decide(x, *state)

    monkeypatch.setattr(season, "decide", counted)
    rows = Rows(512)
    values = np.random.default_rng(8).normal(size=(1400, 512))
    for x in values:
        looked.append(0)
        rows.step(x)
    assert max(looked[:128]) <= 512 // 32
    assert max(looked[1100:]) <= 512 // 256
    assert min(looked[1100:]) >= 1, "every series is looked at"


def test_the_looks_of_a_series_do_not_depend_on_who_else_is_there() -> None:
    values = np.stack([day(600, 24), day(600, 17)], axis=1)
    together = Rows(2)
    both = together.feed(values)
    single = Rows(2)
    for column in (0, 1):
        state = single.table.take(slice(column, column + 1))
        made = []
        for x in values[:, column]:
            moment = channels.update(state, np.array([x]))
            single.expert.update(state, moment)
            made.append(single.expert.forecast(state, moment, 1)[0, 0])
        np.testing.assert_array_equal(both[:, column, 0], made)


def test_the_weights_solve_the_least_squares_problem() -> None:
    random = np.random.default_rng(0)
    terms = random.normal(size=(400, 2))
    target = terms @ [0.4, 0.7] + 0.01 * random.normal(size=400)
    u, v = terms.T
    sums = [u @ u, u @ v, v @ v, u @ target, v @ target]
    assert seasonal._weights(sums, 0.1) == pytest.approx((0.4, 0.7), abs=0.01)


@pytest.mark.parametrize("values", [np.zeros(300), np.full(300, 1e12), 1e-150 * np.sin(np.arange(300.0))])
def test_a_season_in_nothing_is_no_error(values: Array) -> None:
    forecasts = Rows(period=24.0).feed(np.concatenate([day(200, 24), values]))
    assert np.isfinite(forecasts[-1]).all()
