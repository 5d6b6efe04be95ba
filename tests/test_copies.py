"""Copies: a series with weights of its own is forecast by them, and served what has been right lately."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Effects, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.models import checkpoint
from forecastd.models.copies import Copies
from forecastd.models.kernel import Kernel
from forecastd.models.table import Array
from forecastd.models.weights import Weights
from forecastd.producers.waves import WAVES

GENERAL = checkpoint.load("general").weights
ALONE = Settings(experts=("rnn",))


def other(seed: int = 0, size: float = 0.3) -> Weights:
    """The shared model with another readout."""
    noise = np.random.default_rng(seed).normal(0, size, GENERAL.units).astype(np.float32)
    return replace(GENERAL, readout=GENERAL.readout + noise)


def feed(pipeline: Pipeline, values: Array, names: list[str], start: int = 0) -> list[Effects]:
    """Rows of `values` one after the other, a sample of each series in a batch."""
    made = []
    for t, row in enumerate(values, start):
        batch = Batch(names, row.copy(), np.full(len(names), 1e9 + t), [Parcel(0, len(names))])
        made.append(pipeline.step(batch, 1e9 + t))
    return made


def waves(series: int, n: int) -> Array:
    return np.stack([WAVES["sine"](seed).take(n)[1] for seed in range(series)], 1)


def test_a_row_with_a_copy_is_forecast_by_it_and_the_others_are_not() -> None:
    copies, mine = Copies(), other()
    copies.adopt(2, mine)
    windows = np.random.default_rng(0).normal(0, 1, (3, 10, 4)).astype(np.float32)
    said = copies.forward(np.array([0, 2, 5]), np.array([10, 10, 10]), windows)
    assert said is not None
    assert np.isnan(said[[0, 2]]).all()
    assert said[1] == pytest.approx(Kernel(mine).forward(windows)[1], abs=1e-6)
    copies.drop(2)
    assert copies.forward(np.array([2]), np.array([11]), windows[:1]) is None


@pytest.mark.parametrize("series", [1, 6])
def test_a_worse_copy_is_soon_served_no_more_and_until_it_is_adopted_nothing_changes(series: int) -> None:
    values, names = waves(series, 400), [f"s{k}" for k in range(series)]
    plain, tuned = Pipeline(ALONE, GENERAL), Pipeline(ALONE, GENERAL)
    one, two = feed(plain, values[:200], names), feed(tuned, values[:200], names)
    for a, b in zip(one, two, strict=True):
        assert a.forecasts[0].mean.tobytes() == b.forecasts[0].mean.tobytes()
    tuned.adopt(0, other(size=1.0))
    one, two = feed(plain, values[200:], names, 200), feed(tuned, values[200:], names, 200)
    # the blend remembers for long, so what counts is what it was given
    said = [(a.forecasts[0].experts[0, 0, 1], b.forecasts[0].experts[0, 0, 1]) for a, b in zip(one, two, strict=True)]
    served = [k for k, (a, b) in enumerate(said) if a != b]
    assert max(served, default=0) < 20
    for a, b in zip(one, two, strict=True):
        assert a.forecasts[0].mean[1:].tobytes() == b.forecasts[0].mean[1:].tobytes()
    assert tuned.gains() == {0: 0.0}


def test_a_better_copy_is_served_and_says_what_it_gains() -> None:
    values = waves(1, 700)
    bad = replace(GENERAL, readout=GENERAL.readout * 0.0)
    pipeline = Pipeline(ALONE, bad)
    feed(pipeline, values[:300], ["s"])
    pipeline.adopt(0, GENERAL)
    feed(pipeline, values[300:], ["s"], 300)
    assert pipeline.gains()[0] > 0.2
    pipeline.drop(0)
    feed(pipeline, values[:5], ["s"], 700)
    assert pipeline.gains() == {}
    assert not pipeline.forecaster.table["rnn_losses"].any()


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("series", [1, 6])
def test_a_replay_needs_no_weights_of_copies(series: int, horizon: int) -> None:
    values, names = waves(series, 300), [f"s{k}" for k in range(series)]
    settings = Settings(horizon=horizon)
    live, again = Pipeline(settings, GENERAL), Pipeline(settings, GENERAL)
    for t, row in enumerate(values):
        if t == 100:
            live.adopt(0, other())
        if t == 250:
            live.drop(0)
        batch = Batch(names, row.copy(), np.full(series, 1e9 + t), [Parcel(0, series)])
        first = live.step(batch, 1e9 + t)
        second = again.step(batch, 1e9 + t, first.recorded)
        assert first.forecasts[0].mean.tobytes() == second.forecasts[0].mean.tobytes()
        assert first.forecasts[0].lower.tobytes() == second.forecasts[0].lower.tobytes()
    for name in ("rnn_due", "rnn_losses"):
        assert live.forecaster.table[name].tobytes() == again.forecaster.table[name].tobytes()


def test_a_step_teaches_what_the_rnn_saw_and_only_when_somebody_learns() -> None:
    values = waves(2, 60)
    pipeline = Pipeline(ALONE, GENERAL)
    assert not any(effects.lessons for effects in feed(pipeline, values[:30], ["a", "b"]))
    pipeline.learning = True
    for t, effects in enumerate(feed(pipeline, values[30:], ["a", "b"], 30), 30):
        (lesson,) = effects.lessons
        assert lesson.row.tolist() == [0, 1]
        assert lesson.x.tolist() == values[t].tolist()
        assert lesson.fresh.tolist() == [t + 1, t + 1]
        assert lesson.real
        assert lesson.channels.tobytes() == pipeline.forecaster.table["window"][:, -1].tobytes() or t < 59
