"""Alerts: what is unusual for a while is told twice, when it begins and when it is over, not once a sample.

An alert opens with the first flag of `anomaly`, stays open while samples are unusual, and closes after ten that are
not. What it is called may change meanwhile: a spike becomes a shift if the level is another one in the end, and
whatever was seen first gives way to a shift or a flat line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .anomaly import CALM, KINDS, SHIFT, SPIKE, Verdict
from .table import Array, Column

#: Samples less likely than this keep an alert open.
UNUSUAL = 0.02
#: The level is another one if it has moved by so many of the deviations the series had before.
MOVED = 3.0
#: Weight of the newest sample in the level since the alert opened.
LEVEL_RATE = 0.3

COLUMNS = {
    #: what is open, as a number of `anomaly.KINDS`; samples since it opened; calm ones at the end; the least p
    "alert": Column(dtype=np.int8),
    "alert_samples": Column(dtype=np.int64),
    "alert_calm": Column(dtype=np.int64),
    "alert_p": Column(),
    #: mean and deviation of the series before, and its level since
    "alert_before": Column((2,)),
    "alert_level": Column(),
}


class Alert(NamedTuple):
    """The beginning of an alert of the table's row `row`, or its end if `over`.

    `kind` is one of `anomaly.KINDS`, `samples` how many have come since it opened, `p` the least of theirs.
    """

    row: int
    over: bool
    kind: str
    samples: int
    p: float


def update(state: Mapping[str, Array], x: Array, verdict: Verdict) -> list[Alert]:
    """What begins and what ends with the samples `x`, shape (n,), of that verdict; before `channels.update` sees
    them.
    """
    flagged = verdict.kind > 0
    if not flagged.any() and not state["alert"].any():
        return []
    rows = np.flatnonzero(flagged | (state["alert"] > 0))
    kind, x, p, told = state["alert"][rows], x[rows], verdict.p[rows], verdict.kind[rows]
    new = kind == 0
    if new.any():
        _open(state, rows[new], x[new])
    calm, level = state["alert_calm"], state["alert_level"]
    state["alert_samples"][rows] += 1
    level[rows] += LEVEL_RATE * (x - level[rows])
    state["alert_p"][rows] = np.fmin(state["alert_p"][rows], p)
    flat = state["still"][rows, 3] > 0.0
    calm[rows] = np.where((p < UNUSUAL) | flat, 0, calm[rows] + 1)
    kind = np.where(new | (told > SPIKE), told, kind)
    over = calm[rows] >= CALM
    before = state["alert_before"][rows].T
    kind[over & (kind == SPIKE) & (np.abs(level[rows] - before[0]) > MOVED * before[1])] = SHIFT
    state["alert"][rows] = np.where(over, 0, kind)
    changed = np.flatnonzero(new | over)
    told_of = rows[changed]
    numbers = (state["row"][told_of], over[changed], kind[changed], state["alert_samples"][told_of])
    news = zip(*(column.tolist() for column in (*numbers, state["alert_p"][told_of])), strict=True)
    return [Alert(row, ends, KINDS[what], samples, p) for row, ends, what, samples, p in news]


def _open(state: Mapping[str, Array], rows: Array, x: Array) -> None:
    state["alert_samples"][rows] = state["alert_calm"][rows] = 0
    state["alert_p"][rows] = 1.0
    state["alert_before"][rows, 0], state["alert_before"][rows, 1] = state["m"][rows], np.sqrt(state["v"][rows])
    state["alert_level"][rows] = x
