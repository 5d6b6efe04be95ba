"""Promises that every expert keeps, run against each of them; a new expert gets these without asking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecastd.models import channels, ensemble
from forecastd.models.expert import Expert
from forecastd.models.table import Array, Column, Table
from forecastd.models.weights import Decoder, Weights

HORIZON = 5


def weights(seed: int = 0) -> Weights:
    """Random weights that neither die nor blow up."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> Array:
        return random.normal(0.0, 0.1, shape).astype(np.float32)

    decoder = Decoder(draw(2, 20), draw(20, 20), draw(20), draw(20), np.asarray(draw(), np.float32), HORIZON)
    return Weights(draw(4, 20), draw(20, 20), draw(20), draw(20), np.asarray(draw(), np.float32), decoder=decoder)


class Alone:
    """One expert over a table of its own."""

    def __init__(self, expert: Expert, rows: int) -> None:
        self.expert = expert
        extra = {"row": Column(dtype=np.intp), "fresh": Column(dtype=np.int64), "bridged": Column()}
        self.table = Table({**extra, **channels.COLUMNS, **expert.columns})
        self.table.append(rows)
        self.table.arrays["row"][:rows] = np.arange(rows)

    def step(self, x: Array, rows: slice | None = None) -> Array:
        state = self.table.take(rows or slice(0, self.table.length))
        moment = channels.update(state, x)
        state["fresh"] += 1
        self.expert.update(state, moment)
        return self.expert.forecast(state, moment, HORIZON)


def make(name: str) -> Expert:
    return ensemble.EXPERTS[name](weights())


@pytest.fixture(params=list(ensemble.EXPERTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def signals(rows: int, steps: int = 400) -> Array:
    t = np.arange(steps)[:, None]
    noise = np.random.default_rng(7).normal(0, 0.1, (steps, rows))
    return np.sin(2 * np.pi * t / (12 + np.arange(rows))) + np.arange(rows) + noise


def test_a_forecast_has_a_row_for_each_sample_and_a_column_for_each_step(name: str) -> None:
    alone = Alone(make(name), 6)
    for x in signals(6, 60):
        assert alone.step(x).shape == (6, HORIZON)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("offset", [0.0, 1e12])
def test_whatever_the_level_and_scale_the_forecasts_are_finite_or_absent(
    name: str, scale: float, offset: float
) -> None:
    alone = Alone(make(name), 4)
    for x in signals(4) * scale + offset:
        assert not np.isinf(alone.step(x)).any()


def test_a_constant_series_is_forecast_to_stay(name: str) -> None:
    """The RNN with a head of zero, which is how training starts: that is the naive forecast."""
    plain = weights()
    headless = replace(plain, readout=np.zeros_like(plain.readout), readout_bias=np.zeros_like(plain.readout_bias))
    alone = Alone(ensemble.EXPERTS[name](headless), 1)
    for _ in range(100):
        forecast = alone.step(np.array([3.25]))
    assert np.isnan(forecast).all() or (forecast == 3.25).all()


def test_the_same_samples_give_the_same_forecasts(name: str) -> None:
    one, two = Alone(make(name), 3), Alone(make(name), 3)
    for x in signals(3, 120):
        np.testing.assert_array_equal(one.step(x), two.step(x))


def test_the_sample_itself_is_left_alone(name: str) -> None:
    alone = Alone(make(name), 3)
    x = np.array([1.0, 2.0, 3.0])
    alone.step(x)
    np.testing.assert_array_equal(x, [1.0, 2.0, 3.0])


def test_many_series_at_once_are_forecast_as_each_by_itself(name: str) -> None:
    together = Alone(make(name), 7)
    single = Alone(make(name), 7)
    for x in signals(7):
        both = together.step(x)
        apart = np.concatenate([single.step(x[k : k + 1], slice(k, k + 1)) for k in range(7)])
        # the RNN's two forms differ in the order of their sums
        np.testing.assert_allclose(both, apart, rtol=1e-6, atol=1e-6)


def test_a_table_copied_to_another_expert_of_the_kind_goes_on_alike(name: str) -> None:
    values = signals(3)
    first = Alone(make(name), 3)
    for x in values[:300]:
        first.step(x)
    second = Alone(make(name), 3)
    for column, array in first.table.arrays.items():
        second.table.arrays[column][...] = array
    for x in values[300:]:
        np.testing.assert_array_equal(first.step(x), second.step(x))


def test_unknown_experts_are_named() -> None:
    with pytest.raises(ValueError, match="'oracle'"):
        ensemble.experts(["naive", "oracle"], None)


def test_the_rnn_without_a_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="model"):
        ensemble.experts(["rnn"], None)


def test_naive_always_takes_part_and_comes_first() -> None:
    assert [expert.name for expert in ensemble.experts(["ar", "ses"], None)] == ["naive", "ses", "ar"]


def test_the_path_takes_part_only_where_there_is_a_way_ahead_and_a_model_that_knows_it() -> None:
    knowing = weights()
    plain = replace(knowing, decoder=None)
    beside = replace(plain, ahead=knowing)

    def names(model: Weights | None, horizon: int) -> list[str]:
        return [expert.name for expert in ensemble.experts(["path", "ar"], model, horizon)]

    assert names(knowing, 2) == names(beside, 2) == ["naive", "ar", "path"]
    assert names(knowing, 1) == names(plain, 2) == names(None, 2) == ["naive", "ar"]
