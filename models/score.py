"""How good the forecasts were: prequential errors and coverage per series, step ahead and source, with forgetting.

Each forecast is scored once, when its target arrives. A mean forgets with a half-life of 1,000 samples and is a plain mean until then.
Errors are `y_pred - y`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .scaling import rate
from .table import Array, Column

HALF_LIFE = 1000.0
RATE = rate(HALF_LIFE)


def columns(horizon: int, sources: int, levels: int) -> dict[str, Column]:
    """The state for that many steps ahead, sources (the blend, then the experts) and levels."""
    return {
        "scored": Column((horizon, sources), dtype=np.int64),
        #: means of |e|, e² and e
        "errors": Column((horizon, sources, 3)),
        "covered": Column((horizon,), dtype=np.int64),
        #: means of covered, width and interval score
        "coverage": Column((horizon, levels, 3)),
    }


def update(state: Mapping[str, Array], error: Array) -> None:
    """Score `error`, shape (n, H, S), y_pred - y; NaN where no forecast was due."""
    due = ~np.isnan(error)
    scored = state["scored"]
    scored += due
    error = np.where(due, error, 0.0)
    terms = np.empty((*error.shape, 3))
    np.abs(error, out=terms[..., 0])
    np.multiply(error, error, out=terms[..., 1])
    terms[..., 2] = error
    terms -= state["errors"]
    terms *= np.where(due, np.maximum(RATE, 1.0 / np.maximum(scored, 1)), 0.0)[..., None]
    state["errors"] += terms


def update_intervals(state: Mapping[str, Array], error: Array, width: Array, miss_rates: Array) -> None:
    """Score the intervals: `error`, shape (n, H), and half-widths as published, shape (n, H, L), NaN where none was due.

    The interval score of level 1 - a is its width plus 2/a times the distance by which it was missed (Gneiting & Raftery 2007, eq. 43).
    """
    size = np.abs(error)[:, :, None]
    due = ~np.isnan(size[:, :, 0]) & ~np.isnan(width[:, :, 0])
    size = np.where(due[:, :, None], size, 0.0)
    width = np.where(due[:, :, None], width, 0.0)
    covered = state["covered"]
    covered += due
    terms = np.empty((*width.shape, 3))
    np.less_equal(size, width, out=terms[..., 0])
    np.multiply(width, 2.0, out=terms[..., 1])
    terms[..., 2] = terms[..., 1] + np.maximum(size - width, 0.0) * (2.0 / miss_rates)
    terms -= state["coverage"]
    terms *= np.where(due, np.maximum(RATE, 1.0 / np.maximum(covered, 1)), 0.0)[..., None, None]
    state["coverage"] += terms


def skill(errors: Array, naive: int = 1) -> Array:
    """1 - rmse / rmse of the source `naive`, shape (..., S), out of `errors`, shape (..., S, 3). NaN where the naive error is zero."""
    rmse = np.sqrt(errors[..., 1])
    reference = rmse[..., naive : naive + 1]
    return 1.0 - np.divide(rmse, reference, out=np.full(rmse.shape, np.nan), where=reference > 0.0)
