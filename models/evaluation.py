"""How good a model is alone: its forecasts of whole recordings, made as the daemon makes them, against naive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import channels
from .kernel import Kernel
from .weights import VALUE, Floats, Weights

Array = NDArray[np.float64]

#: The first share of a recording is not scored: everyone may warm up on it.
SCORE_FROM = 0.3


class Score(NamedTuple):
    """One recording's errors, one step ahead, in its own unit, and those of repeating the last value."""

    mae: float
    rmse: float
    naive_mae: float
    naive_rmse: float

    @property
    def skill(self) -> float:
        """1 - rmse / naive rmse; 0 where nothing moves."""
        return 1.0 - self.rmse / self.naive_rmse if self.naive_rmse else 0.0


def inputs(weights: Weights, values: Array) -> tuple[Floats, Array]:
    """What the model sees of `values`, (T, n): its channels, (T, n, C), float32, and s, (T, n), float64."""
    if weights.channels == VALUE:
        return values[:, :, None].astype(np.float32), np.ones_like(values)
    seen, s = channels.history(values)
    return seen[:, :, [channels.NAMES.index(name) for name in weights.channels]], s


def forecasts(weights: Weights, values: Array) -> Array:
    """The forecast of each sample of `values`, shape (T, n), float64, finite, oldest first; in the same unit and shape.

    Entry t was made at t - 1 from what came before, and is NaN for the first `window` samples.
    """
    seen, s = inputs(weights, values)
    kernel, first = Kernel(weights), weights.window
    made = np.full(values.shape, np.nan)
    if len(values) <= first:
        return made
    for column in range(values.shape[1]):
        windows = np.lib.stride_tricks.sliding_window_view(seen[:-1, column], first, axis=0).swapaxes(1, 2)
        f = kernel.forward(windows).astype(np.float64)
        if weights.output == "residual":
            f = values[first - 1 : -1, column] + s[first - 1 : -1, column] * f
        made[first:, column] = f
    return made


def score(weights: Weights, recordings: Sequence[Array], start: float = SCORE_FROM) -> list[Score]:
    """The model alone on each recording, shape (T,), T > window + 1, scored after the first share `start`."""
    length = max(map(len, recordings))
    # Later samples change no earlier forecast, so recordings of unequal length can be run as one table.
    table = np.stack([np.pad(values, (0, length - len(values)), mode="edge") for values in recordings], 1)
    made = forecasts(weights, table)
    scores = []
    for column, values in enumerate(recordings):
        first = max(int(start * len(values)), weights.window)
        error = made[first : len(values), column] - values[first:]
        naive = values[first - 1 : -1] - values[first:]
        scores.append(Score(*_sizes(error), *_sizes(naive)))
    return scores


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Over the series that move at all: median and worst skill, and the geometric mean of MAE / naive MAE."""
    moving = [s for s in scores if s.naive_mae > 0]
    if not moving:
        return {"median_skill": 0.0, "worst_skill": 0.0, "relative_mae": 1.0}
    skills = [s.skill for s in moving]
    relative = np.exp(np.mean([np.log(max(s.mae / s.naive_mae, 1e-12)) for s in moving]))
    return {"median_skill": float(np.median(skills)), "worst_skill": min(skills), "relative_mae": float(relative)}


def _sizes(error: Array) -> tuple[float, float]:
    return float(np.abs(error).mean()), float(np.sqrt((error * error).mean()))
