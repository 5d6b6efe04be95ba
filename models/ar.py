"""Linear prediction from the last 2, 10 or 32 samples, by the lattice that the RNN's channels keep anyway."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import lattice, scaling
from .channels import Instant, Moment
from .table import Array, Column, Row


class AR:
    """The order-`order` forecast of the lattice, held near the range of the series; further steps by feeding it
    back."""

    recorded = False
    columns: Mapping[str, Column] = {}

    def __init__(self, name: str, order: int) -> None:
        self.name = name
        self.order = order

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """`channels.update` has done it: the lattice is an input of the RNN too."""

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The forecasts, shape (n, horizon)."""
        first = state[self.name][:, None]
        if horizon == 1:
            return first
        ahead = state["centre"][:, None] + lattice.ahead(state, self.order, horizon)
        for step in range(1, horizon):
            ahead[:, step] = scaling.within_range(state, ahead[:, step])
        return np.concatenate([first, ahead[:, 1:]], axis=1)

    def step_one(self, row: Row, now: Instant) -> float:
        """The forecast of the lattice: `single.observe` has seen to it."""
        forecast: float = getattr(row, self.name)
        return forecast
