"""The score of a model alone: aligned with the samples, blind to the future, the same as the textbook's formulas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from forecastd.models import channels, rnn
from forecastd.models.evaluation import Score, forecasts, score, summary
from forecastd.models.weights import VALUE, Weights


def last_value(output: str = "residual") -> Weights:
    """A model whose f is 0: the naive forecast, if it is read as last + s·f."""
    weights = rnn.initial(0, units=3)
    return dataclasses.replace(weights, readout=weights.readout * 0, output=output)


def rising(slope: float = 1.0, count: int = 200) -> np.ndarray:
    return np.cumsum(np.random.default_rng(1).normal(slope, 1.0, count))


def test_a_forecast_stands_under_the_sample_it_is_for() -> None:
    """A model that repeats the last value is exactly one sample late; a shift either way would show."""
    values = rising()[:, None]
    made = forecasts(last_value(), values)
    assert np.isnan(made[:10]).all()
    np.testing.assert_array_equal(made[10:], values[9:-1])


def test_a_model_of_the_raw_value_answers_in_its_unit() -> None:
    weights = dataclasses.replace(
        rnn.initial(0, units=3, channels=VALUE), output="value", readout_bias=np.float32(7.0).reshape(())
    )
    made = forecasts(dataclasses.replace(weights, readout=weights.readout * 0), rising()[:, None])
    assert (made[10:] == 7.0).all()


def test_a_later_sample_changes_no_earlier_forecast() -> None:
    values = np.stack([rising(), rising(0.1)], 1)
    changed = values.copy()
    changed[150:, 0] += 1e3
    weights = rnn.initial(2)
    before, after = forecasts(weights, values), forecasts(weights, changed)
    np.testing.assert_array_equal(before[:151], after[:151])
    assert not np.array_equal(before[151:], after[151:])


def test_series_do_not_touch_each_other() -> None:
    values = np.stack([rising(), rising(0.1) * 1e6], 1)
    weights = rnn.initial(2)
    together = forecasts(weights, values)
    for column in range(2):
        np.testing.assert_allclose(together[:, [column]], forecasts(weights, values[:, [column]]), rtol=1e-6)


def test_errors_are_those_of_the_formulas() -> None:
    values = rising()
    (result,) = score(rnn.initial(4), [values], 0.3)
    made = forecasts(rnn.initial(4), values[:, None])[:, 0]
    error, naive = made[60:] - values[60:], values[59:-1] - values[60:]
    assert result.mae == pytest.approx(np.mean(np.abs(error))) and result.rmse == pytest.approx(
        np.sqrt(np.mean(error**2))
    )
    assert result.naive_mae == pytest.approx(np.mean(np.abs(naive)))
    assert result.naive_rmse == pytest.approx(np.sqrt(np.mean(naive**2)))
    assert result.skill == pytest.approx(1 - result.rmse / result.naive_rmse)


def test_recordings_of_unequal_length_are_scored_as_if_alone() -> None:
    long, short = rising(count=300), rising(0.5, 120)
    weights = rnn.initial(4)
    together = score(weights, [long, short])
    np.testing.assert_allclose(together, [*score(weights, [long]), *score(weights, [short])], rtol=1e-6)


def test_the_naive_model_has_no_skill() -> None:
    assert score(last_value(), [rising()])[0].skill == 0.0


def test_a_summary_leaves_out_what_never_moves() -> None:
    scores = [Score(1.0, 1.0, 2.0, 2.0), Score(4.0, 3.0, 2.0, 2.0), Score(0.5, 0.5, 0.0, 0.0)]
    found = summary(scores)
    assert found["median_skill"] == 0.0 and found["worst_skill"] == -0.5
    assert found["relative_mae"] == pytest.approx(np.sqrt(0.5 * 2.0))
    assert summary(scores[2:]) == {"median_skill": 0.0, "worst_skill": 0.0, "relative_mae": 1.0}


def test_the_channels_of_a_subset_are_picked_by_name() -> None:
    values = rising()[:, None]
    full = rnn.initial(0, units=4)
    order = ("ar", "difference")
    picked = dataclasses.replace(
        full, channels=order, kernel=full.kernel[[channels.NAMES.index(name) for name in order]]
    )
    zeroed = full.kernel.copy()
    zeroed[[channels.NAMES.index(name) for name in ("level", "residual")]] = 0.0
    whole = dataclasses.replace(full, kernel=zeroed)
    np.testing.assert_allclose(forecasts(picked, values), forecasts(whole, values), rtol=1e-6)
