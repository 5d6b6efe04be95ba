"""How good the forecasts were: prequential errors and coverage per series, step ahead and source, with forgetting.

Each forecast is scored once, when its target arrives. A mean forgets with a half-life of 1,000 samples and is a plain
mean until then. Errors are `y_pred - y`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        "covered": Column((horizon, 1), dtype=np.int64),
        #: means of covered, width and interval score
        "coverage": Column((horizon, levels, 3)),
    }


def update(state: Mapping[str, Array], error: Array, width: Array, made: Array, miss_rates: Array) -> None:
    """Score `error`, y_pred - y, shape (n, H, S), finite, and how far the published interval reached below and
    above the blend, `width`, shape (n, H, 2, L).

    `made`, shape (n, H, S), is 1 where a forecast was due, else 0; `miss_rates`, shape (L,), one minus each level.
    The interval score of level 1 - a is its width plus 2/a times the distance by which it was missed (Gneiting &
    Raftery 2007, eq. 43)."""
    _average(state["errors"], state["scored"], (np.abs(error), error * error, error), made)
    blend = error[:, :, :1]
    below, above = width[:, :, 0], width[:, :, 1]
    missed = np.maximum(np.maximum(blend - below, -blend - above), 0.0)
    reach = below + above
    terms = (missed == 0.0, reach, reach + missed * (2.0 / miss_rates))
    _average(state["coverage"], state["covered"], terms, made[:, :, :1])


def _average(means: Array, count: Array, terms: Sequence[Array], made: Array) -> None:
    """Move `means`, shape (n, H, j, 3), towards the three `terms`, each (n, H, j), as are `count` and `made`."""
    count += made.astype(np.int64)
    weight = np.maximum(RATE, 1.0 / np.maximum(count, 1)) * made
    for k, term in enumerate(terms):
        means[..., k] += weight * (term - means[..., k])


def skill(errors: Array, naive: int = 1) -> Array:
    """1 - rmse / rmse of the source `naive`, shape (..., S), out of `errors`, shape (..., S, 3). NaN where the naive
    error is zero."""
    rmse = np.sqrt(errors[..., 1])
    reference = rmse[..., naive : naive + 1]
    skill: Array = 1.0 - np.divide(rmse, reference, out=np.full(rmse.shape, np.nan), where=reference > 0.0)
    return skill
