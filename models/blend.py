"""The published forecast: a weighted mean of the experts, weights learnt online per series and step ahead.

Two levels of ML-Poly (Gaillard, Stoltz, van Erven: A second-order bound with excess losses, COLT 2014) on the
gradient of the Huber loss. With ŷ the aggregated forecast, x_k the experts', s the scale of the step and e = clip((ŷ
- y) / s, ±8), expert k's regret is r_k = 2 e (ŷ - x_k) / s, and

    R_k ← d R_k + r_k      V_k ← d V_k + r_k²      B ← max(d B, max_k r_k²)      w_k ∝ max(R_k, 0) / (B + V_k)

with equal weights where no regret is positive. On level one two such aggregations run side by side: "long" with d =
0.9995, and "short" with d = 0.999 and r held within ±5, which no single spike can sway. Level two aggregates the
naive forecast, long and short by the same rule. An expert whose forecast is NaN sleeps: no weight, no regret.
`docs/numerics.md` says which bound holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .scaling import rate
from .table import Array, Column

HUBER = 8.0
DISCOUNTS = np.array([[0.9995], [0.999]])
CLIPS = np.array([[np.inf], [5.0]])
DISCOUNT_SECOND = 0.9995
SCALE_RATE = rate(500.0)
#: A squared difference counts as at most this many s², so a spike does not blunt the loss for long.
SPIKE = 50.0
#: What level two aggregates; also the places after the experts in the array of forecasts that are waiting for their
#: target.
LEVEL_TWO = ("naive", "long", "short")


def columns(horizon: int, experts: int) -> dict[str, Column]:
    """The blend's state for that many steps ahead and experts."""
    return {
        "blend_scale": Column((horizon,)),
        "regret": Column((horizon, 2, experts)),
        "regret_square": Column((horizon, 2, experts)),
        "regret_bound": Column((horizon, 2, 1)),
        "second_regret": Column((horizon, 3)),
        "second_square": Column((horizon, 3)),
        "second_bound": Column((horizon, 1)),
    }


def forecast(state: Mapping[str, Array], experts: Array, awake: Array) -> tuple[Array, Array, Array]:
    """Aggregate `experts`, shape (n, H, K), finite, the first of which is naive; `awake`, same shape, is 0 for
    experts that sleep, else 1.

    Returns the blend (n, H), each expert's weight in it (n, H, K), summing to 1, and the two aggregations of level
    one (n, H, 2)."""
    first = _weights(state["regret"], state["regret_square"], state["regret_bound"], awake[:, :, None, :])
    level_one = np.matmul(first, experts[:, :, :, None])[..., 0]
    second = _weights(state["second_regret"], state["second_square"], state["second_bound"], None)
    weights = np.matmul(second[:, :, None, 1:], first)[:, :, 0]
    weights[:, :, 0] += second[:, :, 0]
    blend = (second[:, :, 1:] * level_one).sum(-1)
    blend += second[:, :, 0] * experts[:, :, 0]
    return blend, weights, level_one


def update(state: Mapping[str, Array], error: Array, made: Array) -> None:
    """Learn from `error`, y_pred - y, shape (n, H, 1 + K + 2): of the blend, the experts and level one, finite.

    `made`, shape (n, H, 1 + K), is 1 where the blend and each expert had made a forecast for this moment, else 0.
    """
    experts = made.shape[2] - 1
    any_made = made[:, :, 0]
    naive = error[:, :, 1]
    scale = state["blend_scale"]
    square = naive * naive
    np.minimum(square, SPIKE * scale, out=square, where=scale > 0.0)
    square -= scale
    # the first difference is the scale
    square *= np.maximum(scale == 0.0, SCALE_RATE) * any_made
    scale += square
    s = np.sqrt(scale)
    s += s == 0.0
    z = error * (any_made / s)[:, :, None]
    outer = z[:, :, 1 + experts :]
    regret = outer[:, :, :, None] - z[:, :, None, 1 : 1 + experts]
    regret *= _slope(outer)[:, :, :, None]
    regret *= made[:, :, None, 1:]
    np.minimum(np.maximum(regret, -CLIPS, out=regret), CLIPS, out=regret)
    _learn(state["regret"], state["regret_square"], state["regret_bound"], regret, DISCOUNTS)
    blend = z[:, :, :1]
    regret = blend - z[:, :, (1, -2, -1)]
    regret *= _slope(blend)
    _learn(state["second_regret"], state["second_square"], state["second_bound"], regret, DISCOUNT_SECOND)


def _slope(z: Array) -> Array:
    """The derivative of the Huber loss at z, in units of s."""
    return np.minimum(np.maximum(2.0 * z, -2.0 * HUBER), 2.0 * HUBER)


def _weights(regret: Array, square: Array, bound: Array, awake: Array | None) -> Array:
    energy = bound + square
    energy += energy == 0.0
    weights = np.maximum(regret, 0.0)
    weights /= energy
    if awake is not None:
        weights *= awake
    total = np.add.reduce(weights, axis=-1, keepdims=True)
    if not total.all():
        undecided = total == 0.0
        weights += undecided if awake is None else undecided * awake
        total = np.add.reduce(weights, axis=-1, keepdims=True)
    weights /= total
    return weights


def _learn(regret: Array, square: Array, bound: Array, r: Array, discount: Array | float) -> None:
    regret *= discount
    regret += r
    r *= r
    square *= discount
    square += r
    bound *= discount
    np.maximum(bound, np.maximum.reduce(r, axis=-1, keepdims=True), out=bound)
