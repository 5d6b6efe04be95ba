"""The forecaster of many series: settle what was forecast for this moment, take the sample in, forecast the next steps.

State is a `Table`; a step reads and writes only the rows it is given. No clock, no name, no socket: `daemon.pipeline` says which sample
belongs to which row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import anomaly, blend, channels, conformal, score
from .expert import Expert
from .table import Array, Column, Rows, Table

#: Rows worked on together, so that what a step computes for them stays in the second-level cache.
CHUNK = 1250


class Outlook(NamedTuple):
    """The forecasts of n rows: `mean` (n, H), `lower` and `upper` (n, H, L), `experts` and `weights` (n, H, K); NaN while warming. `p` (n,) is
    the chance of a residual as large as that of the sample just taken in, NaN where none was due."""

    mean: Array
    lower: Array
    upper: Array
    experts: Array
    weights: Array
    p: Array


class Forecaster:
    """Experts, blend and intervals over one table. It alone writes to the table."""

    def __init__(
        self, experts: Sequence[Expert], warmup: int, horizon: int, levels: Sequence[float], alarm_rate: float
    ) -> None:
        self.experts = tuple(experts)
        self.warmup = warmup
        self.horizon = horizon
        self.levels = tuple(levels)
        self.alarm_rate = alarm_rate
        self.miss_rates = 1.0 - np.array(levels)
        self.table = Table(self._columns())

    def _columns(self) -> dict[str, Column]:
        steps, kinds, levels = self.horizon, len(self.experts), len(self.levels)
        columns = {"row": Column(dtype=np.intp), "fresh": Column(dtype=np.int64), **channels.COLUMNS, **anomaly.COLUMNS}
        for expert in self.experts:
            columns |= expert.columns
        columns |= blend.columns(steps, kinds) | conformal.columns(steps, levels)
        columns |= score.columns(steps, 1 + kinds, levels)
        # What waits for its target: by number of its sample modulo H and step ahead. Values are blend, experts, level one of the blend.
        columns["due"] = Column((steps, steps, 1 + kinds + 2), np.nan)
        columns["due_widths"] = Column((steps, steps, levels), np.nan)
        columns["weights"] = Column((steps, kinds), np.nan)
        # Samples bridged since the last real one: the forecasts reach that much further than they say.
        columns["bridged"] = Column()
        return columns

    def append(self, count: int) -> slice:
        """Rows for `count` new series."""
        rows = self.table.append(count)
        self.table.arrays["row"][rows] = np.arange(rows.start, rows.stop)
        return rows

    def restart(self, rows: Rows) -> None:
        """Fill the windows of `rows` anew: what came before lies too far back to lead up to what comes. What was learnt stays."""
        for name, value in (("fresh", 0), ("bridged", 0), ("due", np.nan), ("due_widths", np.nan)):
            self.table.arrays[name][rows] = value

    def step(self, rows: Rows, x: Array, target: Array | None = None) -> Outlook:
        """Take in one sample a row. `x`, shape (n,), float64, finite; no row twice.

        `target` is what the due forecasts are scored against: `x` itself if left out, NaN where `x` only bridges a gap.
        """
        target = x if target is None else target
        n = len(x)
        if n <= CHUNK:
            return self._chunk(rows, x, target)
        start = rows.start if isinstance(rows, slice) else 0
        parts = []
        for a in range(0, n, CHUNK):
            b = min(a + CHUNK, n)
            part = slice(start + a, start + b) if isinstance(rows, slice) else rows[a:b]
            parts.append(self._chunk(part, x[a:b], target[a:b]))
        return Outlook(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def _chunk(self, rows: Rows, x: Array, target: Array) -> Outlook:
        state = self.table.take(rows)
        p = self._settle(state, target)
        moment = channels.update(state, x)
        state["bridged"][...] = np.where(np.isnan(target), state["bridged"] + 1.0, 0.0)
        state["fresh"] += 1
        for expert in self.experts:
            expert.update(state, moment)
        outlook = self._forecast(state, moment, p)
        self.table.put(rows, state)
        return outlook

    def weights(self, rows: Rows) -> Array:
        """Each expert's weight in the blend as it stands, shape (n, H, K); NaN while warming."""
        return self.table["weights"][rows]

    def _settle(self, state: dict[str, Array], y: Array) -> Array:
        due, widths = self._due(state)
        kinds = len(self.experts)
        errors = due[:, :, : 1 + kinds] - y[:, None, None]
        error = errors[:, :, 0]
        size = conformal.sigma(state)[:, 0]
        z = np.abs(error[:, 0]) / np.where(size > 0.0, size, np.nan)
        p = anomaly.update(state, z, self.alarm_rate)
        score.update(state, errors)
        # published widths are in order of their levels, whichever of them learnt what
        score.update_intervals(state, error, np.sort(widths, axis=2)[:, :, self._rank()], self.miss_rates)
        conformal.update(state, error, widths, self.miss_rates)
        blend.update(state, y, due[:, :, 1 : 1 + kinds], due[:, :, 0], due[:, :, 1 + kinds :])
        return p

    def _rank(self) -> Array:
        """The place of each level among all of them, narrowest first."""
        return np.argsort(np.argsort(self.levels))

    def _due(self, state: dict[str, Array]) -> tuple[Array, Array]:
        """What was forecast for the sample now arriving, by step ahead: values (n, H, 1 + K + 2) and half-widths (n, H, L)."""
        if self.horizon == 1:
            return state["due"][:, 0], state["due_widths"][:, 0]
        steps = np.arange(1, self.horizon + 1)
        origin = (state["count"][:, None] + 1 - steps) % self.horizon
        rows = np.arange(len(origin))[:, None]
        return state["due"][rows, origin, steps - 1], state["due_widths"][rows, origin, steps - 1]

    def _forecast(self, state: dict[str, Array], moment: channels.Moment, p: Array) -> Outlook:
        steps, kinds = self.horizon, len(self.experts)
        n = len(moment.x)
        experts = np.empty((n, steps, kinds))
        for k, expert in enumerate(self.experts):
            experts[:, :, k] = expert.forecast(state, moment, steps)
        mean, weights, level_one = blend.forecast(state, experts)
        widths = conformal.half_widths(state, moment.s)
        widths *= np.sqrt(1.0 + state["bridged"])[:, None, None]
        warming = state["fresh"] < self.warmup
        if warming.any():
            mean[warming] = widths[warming] = experts[warming] = weights[warming] = level_one[warming] = np.nan
        state["weights"][...] = weights
        due = np.concatenate([mean[:, :, None], experts, level_one], axis=2)
        if steps == 1:
            state["due"][:, 0], state["due_widths"][:, 0] = due, widths
        else:
            rows, place = np.arange(n), state["count"] % steps
            state["due"][rows, place], state["due_widths"][rows, place] = due, widths
        published = np.sort(widths, axis=2)[:, :, self._rank()]
        return Outlook(mean, mean[:, :, None] - published, mean[:, :, None] + published, experts, weights, p)
