"""The published forecast: a weighted mean of the experts, weights learnt online per series, step ahead and situation.

ML-Poly (Gaillard, Stoltz, van Erven: A second-order bound with excess losses, COLT 2014) on the gradient of the Huber
loss. With ŷ the aggregated forecast, x_k the experts', s the scale of the step and e = clip((ŷ - y) / s, ±3), expert
k's regret is r_k = 2 e (ŷ - x_k) / s, all of them scaled down where one is larger than 10, and

    R_k ← max(d R_k + r_k, -100)     V_k ← d V_k + r_k²     B ← max(d B, max_k r_k²)     w_k ∝ max(R_k, 0) / (B + V_k)

with d = 0.9995. Where no regret is positive, the naive forecast stands alone. However bad an expert was, it can be
back within a hundred samples. One whose forecast is NaN sleeps: no weight, no regret.

Three such aggregations stand side by side, one for each situation: "calm", "struck", the two samples after a
surprise, and "aftermath", while what struck is still in the windows of linear prediction. A surprise is an error of
more than six times the usual one. Right after a jump of the level the last value is the best there is, and right after
a spike the worst; either may be worth more than all the rest together, and says nothing of calm times. Each forecast
is learnt from in the situation in which it was made; until a situation has taught anything, the weights are those of
calm times. `docs/numerics.md` says which bound holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .lattice import ORDER
from .scaling import rate
from .table import Array, Column

HUBER = 3.0
#: No sample counts for more than that in any regret.
LARGEST = 10.0
DISCOUNT = 0.9995
#: No regret is less, or an expert that was bad for long would stay out for as long.
FLOOR = -100.0
SCALE_RATE = rate(500.0)
#: A squared difference counts as at most this many s², so a spike does not blunt the loss for long.
SPIKE = 50.0

SITUATIONS = ("calm", "struck", "aftermath")
CALM, STRUCK, AFTERMATH = range(3)
#: Samples since the last surprise, this one included, up to which a row is struck, and up to which in the aftermath.
STRUCK_UNTIL, AFTERMATH_UNTIL = 2, ORDER + 1
#: So many usual errors are a surprise.
SURPRISE = 6.0


def columns(horizon: int, experts: int) -> dict[str, Column]:
    """The blend's state for that many steps ahead and experts."""
    return {
        "blend_scale": Column((horizon,)),
        #: for each situation: R and V by expert, then B
        "regret": Column((horizon, len(SITUATIONS), 2 * experts + 1)),
        #: samples since the last surprise
        "calm": Column(initial=AFTERMATH_UNTIL, dtype=np.int64),
    }


def notice(state: Mapping[str, Array], size: Array, usual: Array) -> None:
    """Whether the newest sample is a surprise: `size`, shape (n,), is the size of its error, 0 where none was due, and
    `usual`, shape (n,), that of its errors until then, infinite where not known."""
    calm = state["calm"]
    calm += 1
    calm[size > SURPRISE * usual] = 0


def situation(state: Mapping[str, Array]) -> Array:
    """The situation of each row, shape (n,), as a number of `SITUATIONS`."""
    calm = state["calm"]
    return AFTERMATH * (calm < AFTERMATH_UNTIL) - (calm < STRUCK_UNTIL)


def forecast(state: Mapping[str, Array], experts: Array, awake: Array, now: Array) -> tuple[Array, Array]:
    """Aggregate `experts`, shape (n, H, K), finite, the first of which is naive; `awake`, same shape, is 0 for
    experts that sleep, else 1; `now`, shape (n,), is the `situation`.

    Returns the blend (n, H), and each expert's weight in it (n, H, K), summing to 1."""
    weights, total = _shares(state["regret"][np.arange(len(now)), :, now], awake)
    if not total.all():
        undecided = total == 0.0
        calm, total = _shares(state["regret"][:, :, CALM], awake)
        calm[:, :, :1] += total == 0.0
        np.copyto(weights, calm, where=undecided)
        total = np.add.reduce(weights, axis=-1, keepdims=True)
    weights /= total
    return (weights * experts).sum(-1), weights


def _shares(learnt: Array, awake: Array) -> tuple[Array, Array]:
    """What weights are proportional to, shape (n, H, K), and the sum of it, (n, H, 1); `learnt` is a situation's."""
    kinds = awake.shape[2]
    energy = learnt[:, :, kinds : 2 * kinds] + learnt[:, :, 2 * kinds :]
    energy += energy == 0.0
    shares = np.maximum(learnt[:, :, :kinds], 0.0)
    shares *= awake
    shares /= energy
    return shares, np.add.reduce(shares, axis=-1, keepdims=True)


def update(state: Mapping[str, Array], error: Array, made: Array, then: Array) -> None:
    """Learn from `error`, y_pred - y, shape (n, H, 1 + K): of the blend and the experts, finite.

    `made`, same shape, is 1 where the blend and each expert had made a forecast for this moment, else 0; `then`, shape
    (n, H), is the situation in which they did."""
    kinds = made.shape[2] - 1
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
    blend = z[:, :, :1]
    r = blend - z[:, :, 1:]
    r *= np.minimum(np.maximum(2.0 * blend, -2.0 * HUBER), 2.0 * HUBER)
    r *= made[:, :, 1:]
    # all by the same factor, so that the weighted sum of them stays zero: the bound rests on it
    r *= LARGEST / np.maximum(np.abs(r).max(-1, keepdims=True), LARGEST)
    at = (np.arange(len(then))[:, None], np.arange(then.shape[1]), then)
    learnt = state["regret"][at]
    learnt *= DISCOUNT
    learnt[:, :, :kinds] += r
    np.maximum(learnt[:, :, :kinds], FLOOR, out=learnt[:, :, :kinds])
    r *= r
    learnt[:, :, kinds:-1] += r
    np.maximum(learnt[:, :, -1], r.max(-1), out=learnt[:, :, -1])
    state["regret"][at] = learnt
