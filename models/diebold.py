"""Which of two forecasters is better, and whether that could be luck: the test of Diebold and Mariano.

With d_t the loss of the first minus that of the second at t, the statistic is mean(d) / sqrt(V / n), where V is the
long-run variance of d: losses of neighbouring moments resemble each other, and an h-step forecast's errors do so by
construction over h - 1 steps (Diebold & Mariano, Journal of Business & Economic Statistics 13(3), 1995). V is estimated
with Bartlett's weights, so it is never negative (Newey & West, Econometrica 55(3), 1987), over max(h - 1, 4 (n /
100)^(2/9)) lags. The statistic is then multiplied by sqrt((n + 1 - 2h + h(h - 1) / n) / n) and read from Student's t
with n - 1 degrees of freedom, as the plain test rejects too often (Harvey, Leybourne & Newbold, International Journal
of Forecasting 13(2), 1997).
"""

from __future__ import annotations

from math import exp, lgamma, log, sqrt
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Loss = Literal["squared", "absolute"]

#: Fewer pairs of errors than this decide nothing.
PAIRS_MIN = 10

_TINY = 1e-300
_ENOUGH = 1e-14


class Verdict(NamedTuple):
    """`difference` is the mean loss of the first minus that of the second: below zero the first is better. `p` is
    two-sided; NaN, as `statistic`, where there were too few pairs.
    """

    difference: float
    statistic: float
    p: float
    pairs: int


def compare(first: Array, second: Array, step: int = 1, loss: Loss = "squared") -> Verdict:
    """Test the errors of two forecasters for the same targets, each of shape (n,), oldest first, `step` ahead.

    Pairs with a NaN are left out. ValueError where the shapes differ or `step` is below 1.
    """
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"errors of shapes {first.shape} and {second.shape}: the same moments are needed")
    if step < 1:
        raise ValueError("steps ahead count from 1")
    both = ~(np.isnan(first) | np.isnan(second))
    a, b = first[both], second[both]
    d = a * a - b * b if loss == "squared" else np.abs(a) - np.abs(b)
    n = len(d)
    if n < max(PAIRS_MIN, 2 * step):
        return Verdict(float(d.mean()) if n else float("nan"), float("nan"), float("nan"), n)
    # in units of the largest, so that squares of large losses do not overflow
    unit = float(np.abs(d).max())
    if unit == 0.0:
        return Verdict(0.0, 0.0, 1.0, n)
    d = d / unit
    mean, variance = float(d.mean()), long_run_variance(d, lags(n, step))
    if variance <= _TINY:
        return Verdict(mean * unit, float("inf") if mean > 0 else float("-inf"), 0.0, n)
    correction = sqrt((n + 1 - 2 * step + step * (step - 1) / n) / n)
    statistic = correction * mean / sqrt(variance / n)
    return Verdict(mean * unit, statistic, two_sided(statistic, n - 1), n)


def lags(n: int, step: int) -> int:
    """How many lags the variance looks back."""
    return min(max(step - 1, int(4 * (n / 100) ** (2 / 9))), n - 1)


def long_run_variance(d: Array, lags: int) -> float:
    """Variance of d, shape (n,), plus twice its autocovariances up to `lags`, weighted with Bartlett's falling line; ≥
    0.
    """
    deviation = d - d.mean()
    n = len(d)
    total = float(deviation @ deviation) / n
    for lag in range(1, lags + 1):
        covariance = float(deviation[lag:] @ deviation[:-lag]) / n
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * covariance
    return max(total, 0.0)


def two_sided(statistic: float, degrees: float) -> float:
    """The chance of a value as far from zero in Student's t with so many degrees of freedom."""
    if np.isinf(statistic):
        return 0.0
    return _incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + statistic * statistic))


def sign_test(wins: int, losses: int) -> float:
    """The two-sided chance of a split at least as uneven as `wins` to `losses` when either is equally likely; ties are
    left out.
    """
    n, few = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0
    tail = sum(exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) - n * log(2.0)) for k in range(few + 1))
    return min(1.0, 2.0 * tail)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Abramowitz & Stegun 26.5.8)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log(1.0 - x))
    # the fraction converges fast on this side of the mean; on the other the mirrored one does
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, from the front (Lentz's method)."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _ENOUGH:
            break
    return value


def _away(x: float) -> float:
    """`x`, but never so near to zero that it cannot be divided by."""
    return x if abs(x) > _TINY else _TINY
