"""The Keras model: what it is, that it learns, and that learning twice gives the same bytes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from forecastd.models import rnn
from forecastd.models.rnn import Schedule, Windows
from forecastd.models.weights import CHANNELS, VALUE, Weights, check, digest


def echo(count: int = 400, seed: int = 0) -> Windows:
    """Windows whose target is the first channel three steps back: to be learned, a memory is needed."""
    rows = np.random.default_rng(seed).normal(size=(count, len(CHANNELS))).astype(np.float32)
    ends = np.arange(9, count)
    return Windows(rows, ends, rows[ends - 3, 0])


def error(weights: Weights, windows: Windows) -> float:
    inputs = windows.rows[windows.ends[:, None] + np.arange(-9, 1)]
    return float(np.mean((rnn.forward(weights, inputs) - windows.target) ** 2))


def test_the_model_is_the_one_of_the_textbook() -> None:
    """Input (batch, window, channels), never the window as features of one step; one SimpleRNN, one Dense."""
    model = rnn.build(rnn.initial(0, channels=VALUE, output="value", activation="relu"))
    assert model.input_shape == (None, 10, 1) and model.output_shape == (None, 1)
    kinds = [(type(layer).__name__, getattr(layer, "units", None)) for layer in model.layers]
    assert kinds == [("SimpleRNN", 100), ("Dense", 1), ("Activation", None)]
    assert model.layers[0].activation.__name__ == model.layers[2].activation.__name__ == "relu"


def test_weights_go_into_keras_and_come_back_as_they_were() -> None:
    weights = rnn.initial(3, units=7, channels=CHANNELS[:2], window=5)
    check(weights)
    back = rnn.extract(rnn.build(weights), weights)
    assert digest(back) == digest(weights) and back.units == 7 and back.kernel.shape == (2, 7)


def test_initial_weights_depend_on_the_seed_alone() -> None:
    assert digest(rnn.initial(1)) == digest(rnn.initial(1)) != digest(rnn.initial(2))


def test_it_learns_what_needs_a_memory() -> None:
    before = rnn.initial(0, units=20)
    after = rnn.fit(before, echo(), Schedule(400, 64, 5e-3), 0)
    assert error(after, echo(seed=9)) < 0.1 * error(before, echo(seed=9))


def test_learning_twice_gives_the_same_bytes_and_another_seed_others() -> None:
    start, schedule = rnn.initial(0, units=8), Schedule(120, 32, 2e-3, 1.5)
    first = digest(rnn.fit(start, echo(), schedule, 5))
    assert first == digest(rnn.fit(start, echo(), schedule, 5))
    assert first != digest(rnn.fit(start, echo(), schedule, 6))


def test_progress_is_told_to_the_last_step() -> None:
    told: list[tuple[int, float]] = []
    rnn.fit(rnn.initial(0, units=4), echo(), Schedule(250, 16), 0, lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [100, 200, 250]
    assert all(np.isfinite(loss) for _, loss in told)


def test_the_loss_grows_linearly_beyond_huber() -> None:
    """With a zero readout the error is the target: half its square within 1.5, linear beyond."""
    start = rnn.initial(0, units=4)
    start = dataclasses.replace(start, readout=start.readout * 0, readout_bias=start.readout_bias * 0)
    for target, huber, expected in ((1.0, 1.5, 0.5), (10.0, 1.5, 1.5 * (10 - 0.75)), (10.0, float("inf"), 50.0)):
        losses: list[float] = []
        constant = echo()._replace(target=np.full(391, target, np.float32))
        rnn.fit(start, constant, Schedule(1, 64, huber=huber), 0, lambda _, loss, seen=losses: seen.append(loss))
        assert losses == [pytest.approx(expected, rel=1e-5)]


def test_keras_own_fit_learns_too_and_repeats() -> None:
    start = rnn.initial(1, units=8)
    first = rnn.fit_epochs(start, echo(), 2, 10, 1)
    assert digest(first) == digest(rnn.fit_epochs(start, echo(), 2, 10, 1))
    assert error(first, echo(seed=9)) < error(start, echo(seed=9))
