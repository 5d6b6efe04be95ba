"""The plain form of a step says what the array form says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from forecastd.models import ensemble
from forecastd.models.anomaly import Rule
from forecastd.models.forecaster import Forecaster
from forecastd.models.table import Array
from forecastd.models.weights import Weights


def forecaster() -> Forecaster:
    random = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return random.normal(0.0, 0.1, shape).astype(np.float32)

    weights = Weights(draw(4, 20), draw(20, 20), draw(20), draw(20), np.asarray(draw(), np.float32))
    made = Forecaster(ensemble.experts(list(ensemble.EXPERTS), weights), 10, 1, (0.9, 0.5, 0.99), Rule(1e-3))
    made.append(1)
    return made


SIGNALS: dict[str, Callable[[np.random.Generator], Array]] = {
    "wave": lambda random: np.sin(np.arange(800) / 7) + random.normal(0, 0.1, 800),
    "walk": lambda random: 1e6 + random.normal(size=800).cumsum(),
    "heavy tails": lambda random: random.standard_t(1.5, 800),
    "flat, then not": lambda random: np.where(np.arange(800) < 300, 5.0, random.normal(size=800)),
    "counts": lambda random: random.poisson(0.3, 800).astype(float),
    "tiny": lambda random: random.normal(size=800) * 1e-12,
    "season, then above it": lambda random: (
        np.resize(random.normal(size=24), 800) + random.normal(0, 0.1, 800) + np.where(np.arange(800) < 700, 0.0, 5.0)
    ),
    "spike": lambda random: np.where(np.arange(800) == 700, 1e4, random.normal(size=800)),
}


@pytest.mark.parametrize("signal", SIGNALS)
def test_each_forecast_interval_weight_and_state_is_that_of_the_array_form(signal: str) -> None:
    plain, arrays = forecaster(), forecaster()
    for t, x in enumerate(SIGNALS[signal](np.random.default_rng(5)).tolist()):
        one = plain.step_one(0, x) or plain.step(slice(0, 1), np.array([x]))
        other = arrays.step(slice(0, 1), np.array([x]))
        for name, a, b in zip(one._fields, one, other, strict=True):
            said, reference = np.ravel(a), np.ravel(b)
            near = {"rtol": 1e-6, "atol": 1e-9 * max(1.0, abs(x))}
            np.testing.assert_allclose(said, reference, **near, err_msg=f"{name} at sample {t}")
    assert ("season" in signal) <= bool(plain.table["season"][0])
    plain.finish()
    arrays.finish()
    for table, reference in ((plain.table, arrays.table), (plain.scores, arrays.scores)):
        for name, column in reference.arrays.items():
            scale = 1e-9 * np.nanmax(np.abs(column[:1]), initial=1e-30)
            np.testing.assert_allclose(table.arrays[name][:1], column[:1], rtol=1e-5, atol=scale, err_msg=name)


def test_who_reads_the_table_between_two_samples_changes_nothing() -> None:
    quiet, read = forecaster(), forecaster()
    for x in (np.sin(np.arange(300) / 7) + np.random.default_rng(1).normal(0, 0.1, 300)).tolist():
        said = [made.step_one(0, x) or made.step(slice(0, 1), np.array([x])) for made in (quiet, read)]
        assert read.table["last"][0] == x
        for one, other in zip(*said, strict=True):
            np.testing.assert_array_equal(one, other)
    for name, column in read.table.arrays.items():
        np.testing.assert_array_equal(quiet.table.arrays[name], column, err_msg=name)


def test_a_quiet_stream_takes_the_plain_form_once_it_is_warm() -> None:
    made = forecaster()
    for x in np.sin(np.arange(30.0)):
        made.step(slice(0, 1), np.array([x]))
    assert made.step_one(0, 0.5)
    made.restart(slice(0, 1))
    assert not made.step_one(0, 0.5)
