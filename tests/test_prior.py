"""The broad prior: repeatable, finite, and as broad as it says."""

from __future__ import annotations

import numpy as np

from forecastd.models import prior

SERIES = prior.draw(600, 1_000, 0)


def test_series_are_columns_and_every_number_is_finite() -> None:
    assert SERIES.shape == (600, 1_000) and SERIES.dtype == np.float64
    assert np.isfinite(SERIES).all()
    assert np.abs(SERIES).max() < 1e3


def test_the_same_seed_gives_the_same_series_and_another_gives_others() -> None:
    again, other = prior.draw(600, 1_000, 0), prior.draw(600, 1_000, 1)
    np.testing.assert_array_equal(SERIES, again)
    assert not np.isclose(SERIES[:, :50], other[:, :50]).all(0).any()


def test_no_series_is_constant() -> None:
    assert SERIES.std(0).min() > 0


def test_some_are_predictable_from_the_last_value_and_some_are_not() -> None:
    """Smooth, noisy and in between: the lag-one correlation of the differences goes from near -0.5 to near 1."""
    d = np.diff(SERIES, axis=0)
    d = d - d.mean(0)
    correlation = (d[1:] * d[:-1]).mean(0) / (d * d).mean(0)
    low, high = np.quantile(correlation, [0.1, 0.95])
    assert low < -0.45 and high > 0.3


def test_some_are_quantised_some_have_spikes_and_some_lie_on_a_floor() -> None:
    distinct = np.array([len(np.unique(column)) for column in SERIES.T])
    assert 0.05 < (distinct < 300).mean() < 0.5
    d = np.abs(np.diff(SERIES, axis=0))
    assert 0.05 < (d.max(0) > 15 * np.median(d, 0) + 1e-9).mean() < 0.8
    assert 0.03 < ((SERIES.min(0) == SERIES).mean(0) > 0.05).mean() < 0.4


def test_periods_of_all_lengths_are_there() -> None:
    """Where a series' spectrum has its peak, in samples a period."""
    power = np.abs(np.fft.rfft(SERIES - SERIES.mean(0), axis=0)) ** 2
    period = 600 / np.maximum(power.argmax(0), 1)
    for low, high in ((2, 10), (10, 40), (40, 150), (150, 700)):
        assert ((period >= low) & (period < high)).mean() > 0.05
