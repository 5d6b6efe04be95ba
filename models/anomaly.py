"""How unusual a sample is: the chance p of a residual at least as large, calibrated on the stream itself.

z = |e| / σ is compared with its own quantiles, tracked like the interval widths of `conformal`. Between them p is
interpolated on a logarithmic scale, above the highest it falls off like a power: p = 0.02 (z / q98)^(-1/ξ), ξ the
mean of ln(z / q98) of the excesses (Hill's estimator). In the end p is multiplied by e^c, and c is steered so that p
falls below the alarm rate as often as that rate says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .table import Array, Column

#: Chance of a larger z at each of the tracked quantiles.
TAILS = np.array([0.5, 0.2, 0.02])
STEP = 0.1
BOUND = 20.0
TAIL_RATE = 1.0 / 200.0
#: An excess counts as at most e^3 times the quantile in the mean of the tail.
EXCESS = 3.0
RECALIBRATION = 0.3

COLUMNS = {
    "z_log_quantiles": Column((3,)),
    "z_tail": Column(initial=0.3),
    "recalibration": Column(),
}


def update(state: Mapping[str, Array], z: Array, alarm_rate: float) -> Array:
    """Judge `z`, shape (n,), NaN where no forecast was due, and learn from it. Returns p, shape (n,), in [0, 1]; NaN
    where z is."""
    due = ~np.isnan(z)
    z = np.where(due, z, 0.0)
    logs, tail, shift = state["z_log_quantiles"], state["z_tail"], state["recalibration"]
    quantiles = np.maximum.accumulate(np.exp(logs), axis=1)
    excess = np.log(np.maximum(z / quantiles[:, 2], 1.0))
    log_p = np.where(excess > 0.0, np.log(TAILS[2]) - excess / tail, _body(z, quantiles))
    p = np.minimum(np.exp(log_p + shift), 1.0)
    logs += np.where(due[:, None], STEP * ((z[:, None] > np.exp(logs)) - TAILS), 0.0)
    np.clip(logs, -BOUND, BOUND, out=logs)
    tail += np.where(excess > 0.0, TAIL_RATE, 0.0) * (np.minimum(excess, EXCESS) - tail)
    shift += np.where(due, RECALIBRATION * ((p < alarm_rate) - alarm_rate), 0.0)
    return np.where(due, p, np.nan)


def _body(z: Array, quantiles: Array) -> Array:
    """ln p below the highest quantile: straight lines in z through the tracked ones."""
    before, log_before = np.zeros_like(z), 0.0
    log_p = np.zeros_like(z)
    for k, log_tail in enumerate(np.log(TAILS)):
        width = quantiles[:, k] - before
        width[width == 0.0] = 1.0
        share = np.minimum(np.maximum((z - before) / width, 0.0), 1.0)
        log_p += share * (log_tail - log_before)
        before, log_before = quantiles[:, k], log_tail
    return log_p
