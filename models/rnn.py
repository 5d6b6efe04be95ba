"""The Keras model, SimpleRNN(units, relu) → Dense(1): the truth that `kernel` is tested against, and what training
moves.

With `train`, the only code that imports TensorFlow; the daemon runs the same weights in `kernel`. One model object is
made a training, never one a series (19 MB each). Everything here is repeatable: one thread, seeded, deterministic
operations, so the same call gives the same bytes on the same machine and versions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .tf import keras, repeatable, tf
from .weights import CUES, Decoder, Floats, Weights

#: Steps taken in one call into TensorFlow; after each the progress is reported.
CHUNK = 100

Report = Callable[[int, float], None]


class Windows(NamedTuple):
    """What to learn from. Window i is the `window` rows of `rows` up to and with `ends[i]`; its target is `target[i]`.

    `rows` (N, C), float32, the channels of one series after the other; `ends` (M,), int64; `target` (M,), float32, in
    the unit of the output (s for a residual). All finite; one number that is not would make every weight so within one
    step.
    """

    rows: Floats
    ends: NDArray[np.int64]
    target: Floats


class Paths(NamedTuple):
    """What to learn the way ahead from. Path i starts after the window ending at `ends[i]`, as in `Windows`.

    `z` (M, K, 2), float32, the decoder's input; `target` (M, 1 + K), float32, the next values in s; `unit`, of the same
    shape, what an error there is measured in.
    """

    rows: Floats
    ends: NDArray[np.int64]
    z: Floats
    target: Floats
    unit: Floats


class Schedule(NamedTuple):
    """How to learn: Adam, its rate falling to zero along a cosine, the norm of the gradient clipped.

    `huber` is the error from which on the loss grows linearly; infinity makes it half the squared error.
    """

    steps: int
    batch: int = 256
    rate: float = 2e-3
    huber: float = float("inf")
    clip: float = 1.0


def initial(seed: int, units: int = 100, **structure: Any) -> Weights:
    """Weights as Keras initialises them; `structure` are the other fields of `Weights`."""
    repeatable(seed)
    shell = Weights(*(np.zeros(0, np.float32),) * 5, **structure)
    return extract(_layers(units, len(shell.channels), shell.window, shell.activation), shell)


def build(weights: Weights) -> Any:
    """The Keras model, input (batch, window, C), output (batch, 1), that computes f."""
    model = _layers(weights.units, len(weights.channels), weights.window, weights.activation)
    arrays = weights.arrays
    model.set_weights(
        [
            *(arrays[name] for name in ("kernel", "recurrent", "bias")),
            weights.readout[:, None],
            weights.readout_bias[None],
        ]
    )
    return model


def extract(model: Any, like: Weights) -> Weights:
    """The weights of a model of `build`, their channels and output those of `like`."""
    kernel, recurrent, bias, readout, offset = (np.array(array, np.float32) for array in model.get_weights())
    return dataclasses.replace(
        like, kernel=kernel, recurrent=recurrent, bias=bias, readout=readout[:, 0], readout_bias=offset.reshape(())
    )


def forward(weights: Weights, windows: Floats) -> Floats:
    """f by Keras, shape (n,), for `windows`, shape (n, window, C), oldest step first: the oracle of `kernel`."""
    return np.asarray(build(weights)(windows), np.float32)[:, 0]


def callables(weights: Weights, windows: Floats) -> dict[str, Callable[[], Any]]:
    """Ways to call the Keras model on `windows`, shape (n, window, C): what the kernel is measured against."""
    model = build(weights)
    compiled = tf.function(model, reduce_retracing=True)
    tensor = tf.constant(windows)
    return {"predict": lambda: model.predict(windows, verbose=0), "function": lambda: compiled(tensor).numpy()}


def fit(weights: Weights, windows: Windows, schedule: Schedule, seed: int, report: Report | None = None) -> Weights:
    """Weights after `schedule.steps` batches, drawn with replacement from `windows`; may be unsound if the training
    diverged.

    `report(step, loss)` is called now and then with the steps taken and the mean loss since the last call.
    """
    repeatable(seed)
    model = build(weights)
    rows, ends, target = (tf.constant(array) for array in windows)
    back = tf.range(1 - weights.window, 1, dtype=tf.int64)

    def error(chosen: Any) -> Any:
        inputs = tf.gather(rows, tf.gather(ends, chosen)[:, None] + back)
        return model(inputs, training=True)[:, 0] - tf.gather(target, chosen)

    _take_steps(_step(model, error, schedule), len(windows.ends), schedule, seed, report)
    trained = extract(model, weights)
    keras.backend.clear_session()  # a process that trains again and again would keep every graph
    return trained


def with_decoder(weights: Weights, steps: int, seed: int) -> Weights:
    """`weights` with a decoder for so many steps ahead, as Keras initialises it."""
    repeatable(seed)
    units = weights.units
    model = _path_layers(weights, steps)
    decoder, gate = (model.get_layer(name).get_weights() for name in ("decoder", "gate"))
    kernel, recurrent, bias = (np.asarray(array, np.float32) for array in decoder)
    flat = np.asarray(gate[0], np.float32).reshape(units)
    return dataclasses.replace(weights, decoder=Decoder(kernel, recurrent, bias, flat, np.zeros((), np.float32), steps))


def build_path(weights: Weights) -> Any:
    """The Keras model that computes f for every step ahead: inputs (batch, window, C), z (batch, K, 2) and q (batch,
    K), output (batch, 1 + K)."""
    decoder = weights.decoder
    assert decoder is not None
    model = _path_layers(weights, decoder.steps)
    for name, arrays in {
        "rnn": [weights.kernel, weights.recurrent, weights.bias],
        "decoder": [decoder.kernel, decoder.recurrent, decoder.bias],
        "readout": [weights.readout[:, None], weights.readout_bias[None]],
        "gate": [decoder.gate[:, None], decoder.gate_bias[None]],
    }.items():
        model.get_layer(name).set_weights(arrays)
    return model


def forward_path(weights: Weights, windows: Floats, z: Floats, q: Floats) -> Floats:
    """f by Keras, shape (n, 1 + K): the oracle of `path`. Shapes as `build_path` has them."""
    return np.asarray(build_path(weights)([windows, z, q]), np.float32)


def fit_path(weights: Weights, paths: Paths, schedule: Schedule, seed: int, report: Report | None = None) -> Weights:
    """`fit` for a model with a decoder: both learn together, from all steps ahead alike."""
    repeatable(seed)
    model = build_path(weights)
    rows, ends, z, target, unit = (tf.constant(array) for array in paths)
    back = tf.range(1 - weights.window, 1, dtype=tf.int64)

    def error(chosen: Any) -> Any:
        cue = tf.gather(z, chosen)
        inputs = tf.gather(rows, tf.gather(ends, chosen)[:, None] + back)
        made = model([inputs, cue, tf.sinh(cue[:, :, 0])], training=True)
        return (made - tf.gather(target, chosen)) / tf.gather(unit, chosen)

    _take_steps(_step(model, error, schedule), len(paths.ends), schedule, seed, report)
    layers = {name: model.get_layer(name).get_weights() for name in ("rnn", "decoder", "readout", "gate")}
    keras.backend.clear_session()
    (kernel, recurrent, bias), decoder, readout, gate = (
        [np.array(array, np.float32) for array in layer] for layer in layers.values()
    )
    steps = 1 + paths.z.shape[1]
    return dataclasses.replace(
        weights,
        kernel=kernel,
        recurrent=recurrent,
        bias=bias,
        readout=readout[0][:, 0],
        readout_bias=readout[1].reshape(()),
        decoder=Decoder(decoder[0], decoder[1], decoder[2], gate[0][:, 0], gate[1].reshape(()), steps),
    )


def fit_epochs(
    weights: Weights, windows: Windows, epochs: int, batch: int, seed: int, report: Report | None = None
) -> Weights:
    """Weights after Keras's own `fit` with Adam and the mean squared error, as tutorials have it.

    `report(epoch, loss)` is called after each epoch.
    """
    repeatable(seed)
    model = build(weights)
    model.compile(optimizer="adam", loss="mse")

    def told(epoch: int, logs: dict[str, float]) -> None:
        if report is not None:
            report(epoch + 1, float(logs["loss"]))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=told)
    inputs = windows.rows[windows.ends[:, None] + np.arange(1 - weights.window, 1)]
    model.fit(inputs, windows.target, epochs=epochs, batch_size=batch, verbose=0, callbacks=[callback])
    trained = extract(model, weights)
    keras.backend.clear_session()
    return trained


def export(path: str | Path, weights: Weights) -> None:
    """Write the weights as a Keras model, to a path ending in `.keras`; `archive.read` reads it back without Keras."""
    build(weights).save(path)


def versions() -> dict[str, str]:
    """Of the libraries that decide about the last bits of a training."""
    return {"keras": str(keras.__version__), "tensorflow": str(tf.__version__)}


def _layers(units: int, channels: int, window: int, activation: str) -> Any:
    return keras.Sequential(
        [
            keras.Input((window, channels)),
            # unrolled: ten products in a row instead of a loop, a third faster to train
            keras.layers.SimpleRNN(units, activation="relu", unroll=True, name="rnn"),
            keras.layers.Dense(1, name="readout"),
            keras.layers.Activation(activation, name="activation"),
        ],
        name="forecastd",
    )


def _path_layers(weights: Weights, steps: int) -> Any:
    units, ahead = weights.units, steps - 1
    window = keras.Input((weights.window, len(weights.channels)))
    z, q = keras.Input((ahead, CUES)), keras.Input((ahead,))
    state = keras.layers.SimpleRNN(units, activation="relu", unroll=True, name="rnn")(window)
    decoder = keras.layers.SimpleRNN(units, activation="relu", unroll=True, return_sequences=True, name="decoder")
    states = decoder(z, initial_state=state)
    every = keras.layers.Concatenate(axis=1)([keras.layers.Reshape((1, units))(state), states])
    offset = keras.layers.Reshape((steps,))(keras.layers.Dense(1, name="readout")(every))
    gate = keras.layers.Reshape((ahead,))(keras.layers.Dense(1, name="gate")(states))
    followed = keras.layers.ZeroPadding1D((1, 0))(keras.layers.Reshape((ahead, 1))(keras.layers.Multiply()([gate, q])))
    f = keras.layers.Add()([offset, keras.layers.Reshape((steps,))(followed)])
    return keras.Model([window, z, q], f, name="forecastd_path")


def _take_steps(step: Any, examples: int, schedule: Schedule, seed: int, report: Report | None) -> None:
    random = np.random.default_rng(seed)
    for start in range(0, schedule.steps, CHUNK):
        count = min(CHUNK, schedule.steps - start)
        chosen = random.integers(0, examples, (count, schedule.batch))
        loss = float(step(tf.constant(chosen)))
        if report is not None:
            report(start + count, loss)


def _step(model: Any, error: Callable[[Any], Any], schedule: Schedule) -> Any:
    """A compiled function: (count, batch) choices of examples → mean loss of that many steps. `error(chosen)` is what
    the model did wrong on a batch."""
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(schedule.rate, schedule.steps), global_clipnorm=schedule.clip
    )
    optimizer.build(model.trainable_variables)

    def loss_of(errors: Any) -> Any:
        size = tf.abs(errors)
        if not np.isfinite(schedule.huber):
            return tf.reduce_mean(0.5 * size * size)
        inner = tf.minimum(size, schedule.huber)
        return tf.reduce_mean(inner * (size - 0.5 * inner))

    @tf.function  # type: ignore[untyped-decorator]
    def steps(chosen: Any) -> Any:
        total = tf.constant(0.0)
        for i in tf.range(tf.shape(chosen)[0]):
            with tf.GradientTape() as tape:
                loss = loss_of(error(chosen[i]))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            total += loss
        return total / tf.cast(tf.shape(chosen)[0], tf.float32)

    return steps
