"""Fine-tuning: many copies of the model at once, each on the recent windows of its own series, as one batched product.

A copy is pulled towards the weights that all began with (L2-SP: Li, Grandvalet & Davoine, ICML 2018), its gradient is
clipped by its own norm, and Adam starts afresh each time: tuned small and often, a copy needs no memory of its
moments. Runs in the trainer, the one process of the daemon with TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .table import Array
from .tf import repeatable, tf
from .weights import Weights

#: Windows of a gradient step, and of a whole fine-tune: eight steps.
BATCH = 64
WINDOWS = 512
LEARNING_RATE = 5e-4
GRADIENT_NORM = 1.0
#: Where the loss turns from a parabola into a line, in units of s.
HUBER = 0.2
#: Weight of the squared distance from the anchor.
PULL = 1e-3
#: Copies trained together are padded to one of these numbers, so that each is compiled once.
SIZES = (1, 4, 16)


class Tuner:
    """Compiled fine-tuning towards one anchor, of a linear model with a residual output."""

    def __init__(self, anchor: Weights) -> None:
        repeatable(0)
        self._names = list(anchor.arrays)[:5]
        self._anchor = [tf.constant(anchor.arrays[name]) for name in self._names]
        self._compiled = tf.function(self._run)

    def tune(self, models: Sequence[Weights], windows: Array, targets: Array) -> list[Weights]:
        """Each of m models after one pass over its windows, oldest first: m at most `SIZES[-1]`; `windows` (m, WINDOWS,
        window, C) and `targets` (m, WINDOWS), float32, in units of s. NaN in gives NaN out: gate what comes back."""
        m = len(models)
        size = next(size for size in SIZES if size >= m)

        def pad(array: Array) -> Array:
            return np.pad(array, [(0, size - m)] + [(0, 0)] * (array.ndim - 1))

        arrays = [pad(np.stack([model.arrays[name] for model in models])) for name in self._names]
        tuned = [array.numpy() for array in self._compiled(arrays, pad(windows), pad(targets))]
        return [
            replace(model, **{name: array[k] for name, array in zip(self._names, tuned, strict=True)})
            for k, model in enumerate(models)
        ]

    def _run(self, arrays: Any, windows: Any, targets: Any) -> Any:
        first = [tf.zeros_like(a) for a in arrays]
        second = [tf.zeros_like(a) for a in arrays]
        for step in range(WINDOWS // BATCH):
            at = slice(step * BATCH, (step + 1) * BATCH)
            with tf.GradientTape() as tape:
                tape.watch(arrays)
                pull = sum(_squares(a - b) for a, b in zip(arrays, self._anchor, strict=True))
                # copies share no weight, so the gradient of the sum is each one's own
                loss = tf.reduce_sum(_loss(arrays, windows[:, at], targets[:, at]) + PULL * pull)
            gradients = _clipped(tape.gradient(loss, arrays))
            first = [0.9 * a + 0.1 * g for a, g in zip(first, gradients, strict=True)]
            second = [0.999 * a + 0.001 * g * g for a, g in zip(second, gradients, strict=True)]
            rate = LEARNING_RATE * (1 - 0.999 ** (step + 1)) ** 0.5 / (1 - 0.9 ** (step + 1))
            arrays = [a - rate * f / (tf.sqrt(q) + 1e-7) for a, f, q in zip(arrays, first, second, strict=True)]
        return arrays


def _squares(array: Any) -> Any:
    """The sum of squares of each copy, shape (m,)."""
    return tf.reduce_sum(tf.square(array), axis=list(range(1, array.shape.rank)))


def _clipped(gradients: Any) -> Any:
    norm = tf.sqrt(sum(_squares(g) for g in gradients))
    scale = GRADIENT_NORM / tf.maximum(norm, GRADIENT_NORM)
    return [g * tf.reshape(scale, [-1] + [1] * (g.shape.rank - 1)) for g in gradients]


def _loss(arrays: Any, windows: Any, targets: Any) -> Any:
    """Mean Huber loss of each copy, shape (m,): `windows` (m, n, window, C), `targets` (m, n)."""
    kernel, recurrent, bias, readout, offset = arrays
    hidden = tf.nn.relu(tf.matmul(windows[:, :, 0], kernel) + bias[:, None])
    for step in range(1, windows.shape[2]):
        hidden = tf.nn.relu(tf.matmul(hidden, recurrent) + tf.matmul(windows[:, :, step], kernel) + bias[:, None])
    error = tf.abs(tf.matmul(hidden, readout[:, :, None])[:, :, 0] + offset[:, None] - targets)
    return tf.reduce_mean(tf.where(error <= HUBER, 0.5 * error * error, HUBER * (error - 0.5 * HUBER)), axis=1)
