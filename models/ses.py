"""Simple exponential smoothing: the level of a noisy series, told apart from its noise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .channels import Instant, Moment
from .table import Array, Column, Row

#: Weight of the newest sample: slow enough to differ from naive, fast enough to follow.
SMOOTHING = 0.3


class Ses:
    """The exponentially weighted mean of the series, the same for every step ahead (Brown 1956)."""

    name = "ses"
    recorded = False
    columns: Mapping[str, Column] = {"ses": Column()}

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Move the level towards the sample; the first sample is the level."""
        level = state["ses"]
        level += np.maximum(state["count"] == 1, SMOOTHING) * (moment.x - level)

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The level at each step, shape (n, horizon)."""
        level = state["ses"][:, None]
        return level if horizon == 1 else np.repeat(level, horizon, axis=1)

    def step_one(self, row: Row, now: Instant) -> float:
        """The level, moved towards the sample."""
        level: float = row.ses
        row.ses = level = level + SMOOTHING * (now.x - level)
        return level
