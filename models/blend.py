"""The published forecast: a weighted mean of the experts, weights learnt online per series and step ahead.

Two levels of ML-Poly (Gaillard, Stoltz, van Erven: A second-order bound with excess losses, COLT 2014) on the gradient of the Huber
loss. With ŷ the aggregated forecast, x_k the experts', s the scale of the step and e = clip((ŷ - y) / s, ±2), expert k's regret is
r_k = 2 e (ŷ - x_k) / s, and

    R_k ← d R_k + r_k      V_k ← d V_k + r_k²      B ← max(d B, max_k r_k²)      w_k ∝ max(R_k, 0) / (B + V_k)

with equal weights where no regret is positive. On level one two such aggregations run side by side: "long" with d = 0.9995, and
"short" with d = 0.999 and r held within ±5, which no single spike can sway. Level two aggregates the naive forecast, long and short by the same rule.
An expert whose forecast is NaN sleeps: no weight, no regret. `docs/numerics.md` says which bound holds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .scaling import rate
from .table import Array, Column

HUBER = 2.0
DISCOUNTS = np.array([[0.9995], [0.999]])
CLIPS = np.array([[np.inf], [5.0]])
DISCOUNT_SECOND = 0.9995
SCALE_RATE = rate(500.0)
#: A squared difference counts as at most this many s², so a spike does not blunt the loss for long.
SPIKE = 50.0
#: What level two aggregates; also the places after the experts in the array of forecasts that are waiting for their target.
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


def forecast(state: Mapping[str, Array], experts: Array) -> tuple[Array, Array, Array]:
    """Aggregate `experts`, shape (n, H, K), the first of which is naive and never NaN.

    Returns the blend (n, H), each expert's weight in it (n, H, K), summing to 1, and the two aggregations of level one (n, H, 2).
    """
    awake = ~np.isnan(experts)
    values = np.where(awake, experts, 0.0)
    first = _weights(state["regret"], state["regret_square"], state["regret_bound"], awake[:, :, None, :])
    level_one = np.einsum("nhjk,nhk->nhj", first, values)
    second = _weights(state["second_regret"], state["second_square"], state["second_bound"], None)
    weights = np.einsum("nhj,nhjk->nhk", second[:, :, 1:], first)
    weights[:, :, 0] += second[:, :, 0]
    blend = second[:, :, 0] * experts[:, :, 0] + (second[:, :, 1:] * level_one).sum(-1)
    return blend, weights, level_one


def update(state: Mapping[str, Array], y: Array, experts: Array, blend: Array, level_one: Array) -> None:
    """Learn from the target `y`, shape (n,), of forecasts made earlier; rows and steps whose blend is NaN made none and stay as they are."""
    target = y[:, None]
    made = ~np.isnan(blend)
    naive = experts[:, :, 0]
    square = np.where(made, np.square(target - naive), 0.0)
    scale = state["blend_scale"]
    np.minimum(square, SPIKE * scale, out=square, where=scale > 0.0)
    scale += np.where(made, np.where(scale > 0.0, SCALE_RATE, 1.0), 0.0) * (square - scale)
    s = np.sqrt(scale)
    s[s == 0.0] = 1.0
    unit = np.where(made, 1.0 / s, 0.0)
    loss = 2.0 * np.clip((level_one - target[:, :, None]) * unit[:, :, None], -HUBER, HUBER)
    regret = loss[..., None] * (level_one[..., None] - experts[:, :, None, :]) * unit[..., None, None]
    regret = np.minimum(np.maximum(np.where(np.isnan(regret), 0.0, regret), -CLIPS), CLIPS)
    _learn(state["regret"], state["regret_square"], state["regret_bound"], regret, DISCOUNTS)
    loss = 2.0 * np.clip((blend - target) * unit, -HUBER, HUBER)
    choices = np.concatenate([naive[:, :, None], level_one], axis=2)
    regret = loss[..., None] * (blend[..., None] - choices) * unit[..., None]
    _learn(state["second_regret"], state["second_square"], state["second_bound"], np.where(np.isnan(regret), 0.0, regret), DISCOUNT_SECOND)


def _weights(regret: Array, square: Array, bound: Array, awake: Array | None) -> Array:
    energy = bound + square
    energy[energy == 0.0] = 1.0
    weights = np.maximum(regret, 0.0)
    weights /= energy
    if awake is not None:
        weights *= awake
    total = weights.sum(-1, keepdims=True)
    undecided = total == 0.0
    if undecided.any():
        equal = np.broadcast_to(True if awake is None else awake, weights.shape)
        weights = np.where(undecided, equal, weights)
        total = weights.sum(-1, keepdims=True)
    weights /= total
    return weights


def _learn(regret: Array, square: Array, bound: Array, r: Array, discount: Array | float) -> None:
    r2 = r * r
    regret *= discount
    regret += r
    square *= discount
    square += r2
    bound *= discount
    np.maximum(bound, r2.max(-1, keepdims=True), out=bound)
