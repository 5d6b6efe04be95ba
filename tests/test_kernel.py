"""The NumPy kernel computes what Keras computes, for any number of windows and one sample at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from forecastd.models import rnn
from forecastd.models.kernel import CHUNK, Kernel, OpenWindows
from forecastd.models.weights import CHANNELS, VALUE, Weights

TOLERANCE = 1e-5


def drawn(
    units: int = 100, channels: tuple[str, ...] = CHANNELS, window: int = 10, seed: int = 0, **structure: Any
) -> Weights:
    """Random weights that neither die out nor blow up over the window."""
    random = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 1.0) -> Any:
        return np.asarray(random.normal(scale=scale, size=shape), np.float32)

    return Weights(
        draw(len(channels), units, scale=0.5),
        draw(units, units, scale=units**-0.5),
        draw(units, scale=0.2),
        draw(units, scale=units**-0.5),
        draw(),
        channels=channels,
        window=window,
        **structure,
    )


def windows(weights: Weights, count: int, seed: int = 1) -> Any:
    size = (count, weights.window, len(weights.channels))
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_the_kernel_equals_keras_for_any_number_of_windows(count: int) -> None:
    weights = drawn(seed=count)
    given = windows(weights, count)
    np.testing.assert_allclose(
        Kernel(weights).forward(given), rnn.forward(weights, given), rtol=TOLERANCE, atol=TOLERANCE
    )


@pytest.mark.parametrize(
    ("units", "channels", "window", "activation"),
    [(1, VALUE, 1, "linear"), (9, VALUE, 10, "relu"), (100, CHANNELS[:2], 10, "linear"), (17, CHANNELS, 32, "relu")],
)
def test_the_kernel_equals_keras_for_any_structure(
    units: int, channels: tuple[str, ...], window: int, activation: str
) -> None:
    weights = drawn(units, channels, window, activation=activation)
    given = windows(weights, 50)
    linear = Kernel(dataclasses.replace(weights, activation="linear")).forward(given)
    weights.readout_bias[...] -= np.median(linear)  # so that a last relu has something to cut off
    ours, theirs = Kernel(weights).forward(given), rnn.forward(weights, given)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    assert activation == "linear" or 0 < (ours == 0).sum() < 50


def test_the_kernel_equals_a_cell_stepped_by_hand() -> None:
    """As the textbook does: one SimpleRNNCell, its state handed from step to step, then the readout."""
    import keras

    weights = drawn(seed=3)
    given = windows(weights, 5)
    cell = keras.layers.SimpleRNNCell(weights.units, activation="relu")
    cell.build((5, len(weights.channels)))
    cell.set_weights([weights.kernel, weights.recurrent, weights.bias])
    state = [np.zeros((5, weights.units), np.float32)]
    for step in range(weights.window):
        hidden, state = cell(given[:, step], state)
    by_hand = np.asarray(hidden) @ weights.readout + weights.readout_bias
    np.testing.assert_allclose(Kernel(weights).forward(given), by_hand, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_oldest_step_comes_first() -> None:
    """With no way from one step to the next, only the last step can count."""
    weights = drawn(seed=4)
    weights.recurrent[...] = 0.0
    given = windows(weights, 3)
    changed = given.copy()
    changed[:, :-1] += 1.0
    kernel = Kernel(weights)
    np.testing.assert_array_equal(kernel.forward(given), kernel.forward(changed))
    changed[:, -1] += 1.0
    assert not np.array_equal(kernel.forward(given), kernel.forward(changed))


def test_the_kernel_leaves_its_input_and_its_earlier_answers_alone() -> None:
    weights = drawn()
    given = windows(weights, CHUNK + 1)
    before, kernel = given.copy(), Kernel(weights)
    first = kernel.forward(given)
    kept = first.copy()
    kernel.forward(given + 1)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_array_equal(first, kept)


def test_one_window_that_is_not_a_number_spoils_no_other() -> None:
    weights = drawn()
    given = windows(weights, 9)
    clean = Kernel(weights).forward(given)
    given[4, 3, 1] = np.nan
    kernel = Kernel(weights)
    spoilt = kernel.forward(given)
    assert np.isnan(spoilt[4])
    others = np.arange(9) != 4
    np.testing.assert_allclose(spoilt[others], clean[others], rtol=TOLERANCE, atol=TOLERANCE)
    given[4, 3, 1] = 0.0
    assert np.isfinite(kernel.forward(given)).all()


def test_open_windows_give_the_forecasts_of_full_passes() -> None:
    """Sample by sample, several series interleaved, each with its own count."""
    weights = drawn(seed=5)
    kernel, open_windows = Kernel(weights), OpenWindows(Kernel(weights))
    streams = np.random.default_rng(6).normal(size=(3, 60, len(CHANNELS))).astype(np.float32)
    for count in range(weights.window, 60):
        for row, stream in enumerate(streams):
            window = stream[count - weights.window : count]
            (full,) = kernel.forward(window[None])
            assert open_windows.forecast(row, count, window) == pytest.approx(full, rel=TOLERANCE, abs=TOLERANCE)


def test_a_rebuilt_series_continues_with_the_same_bits() -> None:
    weights = drawn(seed=7)
    steady, forgetful = OpenWindows(Kernel(weights)), OpenWindows(Kernel(weights), capacity=1)
    stream = np.random.default_rng(8).normal(size=(50, len(CHANNELS))).astype(np.float32)
    for count in range(weights.window, 50):
        window = stream[count - weights.window : count]
        forgetful.forecast(99, count, window)  # drives row 0 out, which is rebuilt below
        assert forgetful.forecast(0, count, window) == steady.forecast(0, count, window)
