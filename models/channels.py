"""What the RNN sees of a series: four numbers a sample, each known at the sample's own time.

With x the sample, s and sd the scales and m the mean of `scaling`, and â the order-32 forecast of `lattice` (â' the
one made a sample earlier):

    difference  asinh((x - x') / s)          ar        asinh((â - x) / s)
    level       clip((x - m) / sd, ±4)       residual  asinh((x - â') / s)

Because no channel depends on the end of a window, ten open windows can advance together (`kernel.OpenWindows`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import lattice, scaling
from .table import Array, Column, Table
from .weights import CHANNELS

NAMES = CHANNELS
LEVEL_CLIP = 4.0
ORDERS = (("ar2", 2), ("ar10", 10), ("ar", lattice.ORDER))

COLUMNS = {**scaling.COLUMNS, **lattice.COLUMNS, "ar2": Column(), "ar10": Column(), "ar": Column()}


class Moment(NamedTuple):
    """A sample and what it did to its row: value, unit and deviation of its series, shape (n,); `channels`, shape (n,
    4), float32."""

    x: Array
    s: Array
    sd: Array
    channels: Array


class Instant(NamedTuple):
    """`Moment` of one row: value and unit, and the four `channels`."""

    x: float
    s: float
    channels: list[float]


def update(state: dict[str, Array], x: Array) -> Moment:
    """Take in one sample a row: statistics, lattice and channels. `x`, shape (n,), float64, finite.

    Leaves the forecasts of the next sample of orders 2, 10 and 32 in the columns `ar2`, `ar10` and `ar`.
    """
    scale = scaling.update(state, x)
    s = scale.s
    if int(state["count"].min()) <= 2:
        _start(state, state["count"] <= 2, x, s)
    lattice.update(state, scale.tame - state["centre"])
    channels = np.zeros((len(x), 4))
    channels[:, 0] = scale.difference
    np.subtract(x, state["ar"], out=channels[:, 3])
    for name, order in ORDERS:
        state[name][...] = scaling.within_range(state, state["centre"] - state["prediction"][:, order - 1])
    np.subtract(state["ar"], x, out=channels[:, 2])
    channels /= s[:, None]
    np.arcsinh(channels, out=channels)
    level = (x - state["m"]) / scale.sd
    np.minimum(np.maximum(level, -LEVEL_CLIP, out=level), LEVEL_CLIP, out=channels[:, 1])
    return Moment(x, s, scale.sd, channels.astype(np.float32))


def _start(state: dict[str, Array], rows: Array, x: Array, s: Array) -> None:
    """Give rows at their first two samples a fresh lattice, its energies in the series' own unit, and the naive
    forecast."""
    energy = np.square(s[rows])[:, None] * lattice.RIDGE
    for name in lattice.COLUMNS:
        state[name][rows] = lattice.COLUMNS[name].initial
    state["f_energy"][rows] = energy
    state["b_energy"][rows] = energy
    first = rows & (state["count"] == 1)
    state["ar"][first] = x[first]


def history(values: Array) -> tuple[Array, Array]:
    """The channels of whole recordings. `values`, shape (T, n), float64, finite, oldest first.

    Returns the channels, shape (T, n, 4), float32, and s, shape (T, n), float64: what the daemon would have computed
    sample by sample."""
    steps, n = values.shape
    table = Table(COLUMNS, max(n, 1))
    state = table.take(table.append(n))
    channels, s = np.empty((steps, n, 4), np.float32), np.empty((steps, n))
    for t in range(steps):
        moment = update(state, values[t])
        s[t], channels[t] = moment.s, moment.channels
    return channels, s
