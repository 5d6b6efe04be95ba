"""How large the next error will be, above the forecast and below it: learnt online per series and step ahead from what
is known when the forecast is made.

The expected size of a value's distance above (+) and below (-) the forecast ŷ, in units of σ, the mean size of recent
errors with half-life 50 (`conformal.unit`), is

    S± = σ exp(θ·x ± φ·y)
    x = 1, ln(short / σ), ln(long / σ), d, max(d, 0), struck     d = ln(mean of |x_k - ŷ| / σ)
    y = (last - ŷ) / σ, (value - forecast, a sample ago) / σ

short and long being the means with the other half-lives, x_k the experts' forecasts, struck the blend's situation. A
ratio in a logarithm is taken plus 0.02; logarithms are held within ±4, y within ±2. Where the experts disagree, larger
errors follow; towards the last value more of them than away from it.

An error e on one side is learnt from by the score of the exponential law with mean S, u = min(|e| / S, 4) - 1, in steps
as long as Fisher's information allows, which for this law is the sum of x xᵀ, of which the diagonal is kept:

    G ← 0.999 G + x²     θ ← θ + u x / (G + 10)     and so for φ with ± y

It is right in the mean only; that the share of errors beyond an interval is right, `conformal` sees to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .table import Array, Column

#: Of x and of y; θ and φ stand together, in this order.
COMMON, SIDED = 6, 2
SIZE = COMMON + SIDED
#: θ: the short mean counts from the start.
SHORT_START = 0.4
#: G: its start, its forgetting, and what is added to it, lest a feature that was long absent moves θ by too much.
INFORMATION, FORGETTING, DAMPING = 40.0, 0.999, 10.0
#: Added to each ratio, and the bounds of logarithms, of y, of ln (S / σ) and of u.
FLOOR, LOG_MAX, SIDED_MAX, SCALE_MAX, SURPRISE_MAX = 0.02, 4.0, 2.0, 6.0, 3.0
#: σ is at least that where it is divided by.
TINY = 1e-200


def columns(horizon: int) -> dict[str, Column]:
    """The state for that many steps ahead."""
    return {
        #: θ and φ, less `SHORT_START`; G
        "dispersion": Column((horizon, SIZE)),
        "information": Column((horizon, SIZE), INFORMATION),
        #: the newest value minus what was forecast of it
        "surprise": Column((horizon,)),
        # what waits for its target, as in `Forecaster`: x and y of the forecast, S below and above it
        "due_features": Column((horizon, horizon, SIZE)),
        "due_sizes": Column((horizon, horizon, 2)),
    }


def features(state: Mapping[str, Array], unit: Array, ways: Array, mean: Array, awake: Array, struck: Array) -> Array:
    """x and y of forecasts made now, shape (n, H, SIZE). `unit` is σ and `mean` the blend, shape (n, H); `ways` the
    experts' forecasts, finite, the naive one first, and `awake` 1 where they have made one, shape (n, H, K); `struck`,
    shape (n,), whether the situation is that."""
    # one by one while they are worked out: a loop over eight numbers a row would take longer than the numbers
    found = np.empty((SIZE, *mean.shape))
    sigma = np.maximum(unit, TINY)
    spread = np.abs(ways - mean[:, :, None])
    found[0] = 1.0
    found[1] = state["residual_means"][:, :, 0]
    found[2] = state["residual_means"][:, :, 2]
    found[3] = np.einsum("nhk,nhk->nh", spread, awake)
    found[3] /= np.maximum(np.einsum("nhk->nh", awake), 1.0)
    logs = found[1:4]
    logs /= sigma
    logs += FLOOR
    np.log(logs, out=logs)
    np.minimum(np.maximum(logs, -LOG_MAX, out=logs), LOG_MAX, out=logs)
    np.maximum(found[3], 0.0, out=found[4])
    found[5] = struck[:, None]
    np.subtract(ways[:, :, 0], mean, out=found[6])
    found[7] = state["surprise"]
    sided = found[COMMON:]
    sided /= sigma
    np.minimum(np.maximum(sided, -SIDED_MAX, out=sided), SIDED_MAX, out=sided)
    return np.ascontiguousarray(np.moveaxis(found, 0, -1))


def sizes(state: Mapping[str, Array], unit: Array, found: Array) -> Array:
    """S below and above the forecasts with those features, shape (n, H, 2); 0 where σ is."""
    weights = state["dispersion"]
    both = np.einsum("nhf,nhf->nh", weights[:, :, :COMMON], found[:, :, :COMMON])
    side = np.einsum("nhf,nhf->nh", weights[:, :, COMMON:], found[:, :, COMMON:])
    both += SHORT_START * found[:, :, 1]
    scale = np.empty((*both.shape, 2))
    np.subtract(both, side, out=scale[:, :, 0])
    np.add(both, side, out=scale[:, :, 1])
    np.minimum(np.maximum(scale, -SCALE_MAX, out=scale), SCALE_MAX, out=scale)
    np.exp(scale, out=scale)
    scale *= unit[:, :, None]
    return scale


def update(state: Mapping[str, Array], error: Array, found: Array, size: Array, made: Array) -> None:
    """Learn from `error`, y_pred - y, shape (n, H), finite, of forecasts with the features `found` and the sizes
    `size`, as `features` and `sizes` gave them. `made`, shape (n, H), is 1 where a forecast was due, else 0."""
    above = error <= 0.0
    expected = np.where(above, size[:, :, 1], size[:, :, 0])
    learnt = np.minimum(np.abs(error), (1.0 + SURPRISE_MAX) * expected)
    learnt /= np.maximum(expected, TINY)
    learnt -= 1.0
    counts = made * (expected > 0.0)
    learnt *= counts
    information = state["information"]
    square = np.square(found)
    square *= counts[:, :, None]
    information *= (1.0 - (1.0 - FORGETTING) * counts)[:, :, None]
    information += square
    x = np.divide(found, np.add(information, DAMPING, out=square), out=square)
    x[:, :, :COMMON] *= learnt[:, :, None]
    x[:, :, COMMON:] *= np.where(above, learnt, -learnt)[:, :, None]
    dispersion = state["dispersion"]
    dispersion += x
