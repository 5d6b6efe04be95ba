"""Least-squares linear prediction with forgetting, for all orders up to 32 at once and for all rows at once.

The exponentially weighted least-squares lattice with a-priori error feedback (Haykin, Adaptive Filter Theory, ch.
"Order-recursive adaptive filters") gives the forecasts of recursive least squares with O(p) state and work instead of
O(p²). Two remarks make it whole-array work without a loop over the stages:

- the forward errors of all orders are one cumulative sum, x + Σ κᶠ_m b_{m-1};
- the conversion factor obeys γ_m = γ_{m-1} · λB / (λB + γ_{m-1} b²), so its inverse is one too:
  1/γ_m = 1 + Σ b_i² / (λ B_i).

With a-priori backward errors b, energies F and B, and n the newest sample, for m = 1…p (all right-hand sides of n - 1
unless said):

    f_m(n)   = f_{m-1}(n) + κᶠ_m b_{m-1}            f_0(n) = x(n)
    b_m(n)   = b_{m-1} + κᵇ_m f_{m-1}(n)            b_0(n) = x(n)
    F_{m-1}(n) = λ F_{m-1} + γ_{m-1} f_{m-1}(n)²
    κᶠ_m(n)  = κᶠ_m - γ_{m-1} b_{m-1} f_m(n) / B_{m-1}
    κᵇ_m(n)  = κᵇ_m - γ_{m-1} f_{m-1}(n) b_m(n) / F_{m-1}(n)
    B_{m-1}(n) = λ B_{m-1} + γ_{m-1}(n) b_{m-1}(n)²

and the forecast of order p for n + 1 is -Σ_{m≤p} κᶠ_m(n) b_{m-1}(n).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .table import Array, Column

ORDER = 32
FORGETTING = 0.999
#: Rows that are worked on together: ten arrays of them fit into the cache of a core.
CHUNK = 512
#: Energy every stage starts with, in units of s²: the ridge of the first forecasts.
RIDGE = 1.0

COLUMNS = {
    "kf": Column((ORDER,), plain=False),
    "kb": Column((ORDER,), plain=False),
    "b": Column((ORDER,), plain=False),
    "inverse_gamma": Column((ORDER,), 1.0, plain=False),
    "f_energy": Column((ORDER,), plain=False),
    "b_energy": Column((ORDER,), plain=False),
    #: Σ_{i≤m} κᶠ_i b_{i-1} for each m: minus the forecasts of all orders, kept because the next sample's errors start
    #: with it.
    "prediction": Column((ORDER,), plain=False),
}


def update(state: Mapping[str, Array], y: Array) -> None:
    """Take in one sample a row. `y`, shape (n,), float64, finite; the energies of a new row must have been set above
    zero."""
    columns = [state[name] for name in COLUMNS]
    for start in range(0, len(y), CHUNK):
        rows = slice(start, start + CHUNK)
        _update(y[rows, None], *(column[rows] for column in columns))


def _update(
    x: Array, kf: Array, kb: Array, b: Array, inverse_gamma: Array, f_energy: Array, b_energy: Array, prediction: Array
) -> None:
    """`update` of rows that fit into the cache together: `x` is of shape (n, 1), the others of shape (n, ORDER)."""
    f = prediction + x  # f_1 … f_p
    f_before = np.empty_like(f)  # f_0 … f_{p-1}
    f_before[:, :1] = x
    f_before[:, 1:] = f[:, :-1]
    term = b / inverse_gamma
    term *= f
    term /= b_energy
    kf -= term
    gamma_f = np.divide(f_before, inverse_gamma, out=f)
    f_energy *= FORGETTING
    np.multiply(gamma_f, f_before, out=term)
    f_energy += term
    b_next = np.multiply(kb, f_before, out=f_before)
    b_next += b  # b_1 … b_p of now
    gamma_f *= b_next
    gamma_f /= f_energy
    kb -= gamma_f
    b[:, :1] = x
    b[:, 1:] = b_next[:, :-1]
    b_energy *= FORGETTING
    square = np.multiply(b, b, out=term)
    np.divide(square, b_energy, out=f)
    np.cumsum(f[:, :-1], axis=1, out=inverse_gamma[:, 1:])
    inverse_gamma[:, 1:] += 1.0
    square /= inverse_gamma
    b_energy += square
    np.cumsum(np.multiply(kf, b, out=f), axis=1, out=prediction)


def expand(state: Mapping[str, Array], orders: Sequence[int]) -> tuple[float, list[list[float]]]:
    """What `update` will make of one row, before its sample is there: the forecast of it, ŷ, and q₀, q₁, q₂ of each of
    `orders`, whose next forecast is q₀ + q₁ e + q₂ e² for the sample ŷ + e.

    For all that the forecasts need is linear in the sample: κᶠ(n) = u - g e and b(n) = v + w e. Around ŷ, not around
    0, because where a series is known exactly the gains g grow without bound as e shrinks."""
    kf, kb, b, prediction = (state[k][0] for k in ("kf", "kb", "b", "prediction"))
    gain = b / state["inverse_gamma"][0] / state["b_energy"][0]
    expected = -prediction.item(-1)
    f = np.full(ORDER + 1, expected)  # f_0 … f_p for e = 0
    f[1:] += prediction
    v, w = np.empty(ORDER), np.empty(ORDER)
    v[0], w[0] = expected, 1.0
    v[1:], w[1:] = (b + kb * f[:-1])[:-1], kb[:-1]
    u = kf - gain * f[1:]
    terms = np.add.accumulate(np.array([-u * v, gain * v - u * w, gain * w]), axis=1).T
    return expected, [terms[order - 1].tolist() for order in orders]


def ahead(state: Mapping[str, Array], order: int, steps: int) -> Array:
    """The forecasts of the next `steps` values, each fed back as if it had come, with the coefficients as they are.

    Shape (n, steps), in the units and around the origin of `update`'s samples.
    """
    kf, kb, b, prediction = (state[k][:, :order] for k in ("kf", "kb", "b", "prediction"))
    out = np.empty((len(kf), steps))
    out[:, 0] = -prediction[:, -1]
    for step in range(1, steps):
        b, prediction = roll(kf, kb, b, prediction, out[:, step - 1])
        out[:, step] = -prediction[:, -1]
    return out


def roll(kf: Array, kb: Array, b: Array, prediction: Array, y: Array) -> tuple[Array, Array]:
    """Backward errors and predictions after a sample `y`, shape (n,), that is not learnt from; all others of shape
    (n, order)."""
    f = np.empty_like(b)
    f[:, 0] = y
    f[:, 1:] = prediction[:, :-1] + y[:, None]
    following = np.empty_like(b)
    following[:, 0] = y
    following[:, 1:] = (b + kb * f)[:, :-1]
    return following, np.cumsum(kf * following, axis=1)
