"""The last value again: what every other forecast is measured against."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .channels import Instant, Moment
from .table import Array, Column, Row


class Naive:
    """Repeats the last value; keeps nothing of its own."""

    name = "naive"
    recorded = False
    columns: Mapping[str, Column] = {}

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Nothing to learn."""

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The last value at each step, shape (n, horizon)."""
        last = moment.x[:, None]
        return last if horizon == 1 else np.repeat(last, horizon, axis=1)

    def step_one(self, row: Row, now: Instant) -> float:
        """The last value."""
        return now.x
