"""The last layer, fitted anew: the readout that forecasts best from hidden states as they are, near the one there is.

What gradient steps do slowly for a linear layer has an exact answer. With hidden states H (n, units), a column of ones
beside them, and targets y, the correction δ of the readout minimises  Σ huber(y - H(w + δ)) + RIDGE · ‖σδ‖²,  σ being
the largest root mean square of a column; by iteratively reweighted least squares (Holland & Welsch, 1977), which for
Huber's loss descends at every step."""

from __future__ import annotations

import numpy as np

from .table import Array

#: Weight of the squared correction, in samples: so many samples speak for the readout as it is.
RIDGE = 2.0
#: Where the loss turns from a parabola into a line, in units of s: nearly absolute errors, which no burst can lead.
HUBER = 0.1
ROUNDS = 8


def refit(hidden: Array, targets: Array, readout: Array, bias: float) -> tuple[Array, float]:
    """The readout, shape (units,), and its bias, fitted to `hidden`, (n, units), and `targets`, (n,); n > 0, all
    finite. float64 inside, so that the correction of a thousand samples is not lost in rounding."""
    columns = np.concatenate([hidden, np.ones((len(hidden), 1), hidden.dtype)], 1).astype(np.float64)
    scale = np.sqrt(np.square(columns).mean(0)).max()
    columns /= scale
    residual = targets - hidden @ readout - bias
    ridge = RIDGE * np.eye(columns.shape[1])
    weight = np.ones(len(columns))
    correction = np.zeros(columns.shape[1])
    for _ in range(ROUNDS):
        weighted = columns * weight[:, None]
        correction = np.linalg.solve(weighted.T @ columns + ridge, weighted.T @ residual)
        weight = np.minimum(1.0, HUBER / np.maximum(np.abs(residual - columns @ correction), 1e-12))
    correction /= scale
    return (readout + correction[:-1]).astype(np.float32), float(bias + correction[-1])
