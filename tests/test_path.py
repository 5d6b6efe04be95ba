"""The way ahead by encoder and decoder: NumPy computes what Keras computes, and is silent beyond what it was trained
for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.models import ahead, checkpoint, rnn
from forecastd.models.checkpoint import Checkpoint
from forecastd.models.kernel import CHUNK
from forecastd.models.path import Way
from forecastd.models.weights import Decoder, Weights, check, digest

STEPS = 6


def drawn(units: int = 40, steps: int = STEPS, seed: int = 0) -> Weights:
    """Random weights that neither die out nor blow up on the way."""
    random = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 1.0) -> Any:
        return np.asarray(random.normal(scale=scale, size=shape), np.float32)

    size = units**-0.5
    inner = Decoder(draw(2, units, scale=0.5), draw(units, units, scale=size), draw(units), draw(units), draw(), steps)
    recurrent = draw(units, units, scale=size)
    return Weights(draw(4, units, scale=0.5), recurrent, draw(units), draw(units, scale=size), draw(), decoder=inner)


@pytest.mark.parametrize("count", [1, 7, CHUNK, CHUNK + 3])
@pytest.mark.parametrize("steps", [2, 24])
def test_the_decoder_equals_keras_for_any_number_of_windows_and_steps(count: int, steps: int) -> None:
    weights = drawn(steps=steps)
    random = np.random.default_rng(count)
    windows = random.normal(size=(count, 10, 4)).astype(np.float32)
    z = random.normal(size=(count, steps - 1, 2)).astype(np.float32)
    q = random.normal(size=(count, steps - 1))
    made = Way(weights).forward(windows, z.transpose(1, 2, 0), q.T)
    truth = rnn.forward_path(weights, windows, z, q.astype(np.float32))
    assert made.shape == (count, steps)
    # of the size of the answers, which a random recurrence lets grow
    assert np.abs(made - truth).max() <= 1e-5 * max(1.0, np.abs(truth).max())


def test_its_first_step_is_the_many_to_one_model_of_the_same_arrays() -> None:
    weights = drawn()
    windows = np.random.default_rng(3).normal(size=(5, 10, 4)).astype(np.float32)
    z, q = np.zeros((STEPS - 1, 2, 5), np.float32), np.zeros((STEPS - 1, 5))
    np.testing.assert_allclose(
        Way(weights).forward(windows, z, q)[:, 0], rnn.forward(weights, windows), rtol=1e-5, atol=1e-5
    )


def test_it_is_asleep_until_the_window_is_full_and_beyond_the_steps_it_was_trained_for() -> None:
    horizon = STEPS + 3
    pipeline = Pipeline(Settings(experts=("naive", "path"), horizon=horizon), drawn())
    for number, value in enumerate(np.sin(np.arange(30.0))):
        sent = Batch(["s"], np.array([value]), np.array([float(number)]), [Parcel(0, 1)])
        pipeline.step(sent, float(number))
        due = pipeline.forecaster.table["due_made"][0, (number + 1) % horizon, :, 2]
        awake = number + 1 >= 10
        np.testing.assert_array_equal(due, [float(awake)] * STEPS + [0.0] * 3)


def test_a_replay_takes_its_recorded_forecasts_and_gives_the_same_bits() -> None:
    settings = Settings(experts=("naive", "rnn", "path"), horizon=3)
    other = replace(drawn(seed=9), ahead=None)
    one, two = Pipeline(settings, drawn()), Pipeline(settings, other)
    for number, value in enumerate(np.sin(np.arange(40.0))):
        sent = Batch(["s"], np.array([value]), np.array([float(number)]), [Parcel(0, 1)])
        first = one.step(sent, float(number))
        again = two.step(sent, float(number), first.recorded)
        assert len(first.recorded) == 2
        np.testing.assert_array_equal(first.forecasts[0].mean, again.forecasts[0].mean)


@pytest.mark.parametrize("beside", [False, True])
def test_a_model_with_a_way_ahead_is_read_as_it_was_written(beside: bool) -> None:
    weights = replace(drawn(), decoder=None, ahead=drawn(seed=2, units=7)) if beside else drawn()
    data = checkpoint.encode(Checkpoint(weights, {"name": "x", "steps": 5}))
    again = checkpoint.decode(data)
    assert digest(again.weights) == digest(weights) != digest(drawn(seed=1))
    assert checkpoint.encode(again) == data
    for name, array in weights.arrays.items():
        np.testing.assert_array_equal(again.weights.arrays[name], array)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"steps": 1}, "steps ahead"),
        ({"steps": 65}, "steps ahead"),
        ({"gate": np.full(40, np.nan, np.float32)}, "decoder_gate"),
        ({"kernel": np.zeros((3, 40), np.float32)}, "decoder_kernel"),
    ],
)
def test_an_unsound_decoder_is_refused_by_name(change: dict[str, Any], what: str) -> None:
    weights = drawn()
    assert weights.decoder is not None
    with pytest.raises(ValueError, match=what):
        check(replace(weights, decoder=replace(weights.decoder, **change)))


def test_the_model_served_knows_the_way_ahead_only_where_it_is_asked_for() -> None:
    every = Settings().experts
    assert "path" in every
    one, twelve = checkpoint.serving("general", every, 1), checkpoint.serving("general", every, 12)
    assert one is not None and twelve is not None
    assert digest(one.weights) == digest(checkpoint.load("general").weights)
    assert twelve.weights.ahead is not None and twelve.sha256 == digest(twelve.weights) != one.sha256
    assert checkpoint.serving("general", ("naive", "ar"), 12) is None


def test_a_path_is_learned_from_what_came_before_it_alone() -> None:
    """Other values after a path's start change its target and nothing else."""
    values = np.random.default_rng(0).normal(size=(80, 3)).cumsum(0)
    changed = values.copy()
    changed[60:] += 5.0
    one, two = (ahead.examples(v, STEPS, 10, stride=1) for v in (values, changed))
    before = one.ends % 80 < 60
    np.testing.assert_array_equal(one.z[before], two.z[before])
    np.testing.assert_array_equal(one.q[before], two.q[before])
    assert (one.target[one.ends % 80 == 59] != two.target[one.ends % 80 == 59]).all()
    row = int(np.flatnonzero(one.ends == 40)[0])  # the first series after its sample 40
    steps = np.diff(values[40 : 41 + STEPS, 0]).cumsum()
    np.testing.assert_allclose(one.target[row] / one.target[row, 0], steps / steps[0], rtol=1e-4)
