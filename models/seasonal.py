"""The value one season ago, where a season is configured or has been found in the stream."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .channels import Moment
from .table import Array, Column

#: Samples of the past that are kept a series; a season is at most a third of that, so that three can be compared.
HISTORY = 1024


class Seasonal:
    """Repeats the last season. `season` in samples for all series; without it each series' own is used as soon as one is found."""

    name = "seasonal"
    columns: Mapping[str, Column] = {
        # offsets to the row's origin, so that float32 is enough; the sample number c lies at place c mod HISTORY
        "history": Column((HISTORY,), dtype=np.float32),
        "season": Column(dtype=np.int64),
    }

    def __init__(self, season: int = 0) -> None:
        self.season = season

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Keep the sample."""
        count = state["count"]
        state["history"][np.arange(len(count)), count % HISTORY] = moment.x - state["origin"]
        if self.season:
            state["season"][...] = np.where(count > self.season, self.season, 0)

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The values one season before each step ahead, shape (n, horizon); NaN where there is no season."""
        season, count = state["season"], state["count"]
        known = season > 0
        if not known.any():
            return np.full((len(count), horizon), np.nan)
        ahead = np.arange(1, horizon + 1)
        period = np.maximum(season, 1)[:, None]
        # the newest sample number that is whole seasons before count + ahead
        number = count[:, None] + ahead - period * -(-ahead // period)
        past = state["history"][np.arange(len(count))[:, None], number % HISTORY] + state["origin"][:, None]
        past[~known] = np.nan
        return past
