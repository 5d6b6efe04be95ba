"""What the season says: the last six seasons, and how far to believe them against the order-32 forecast.

S_t, the season's value for sample t, is the mean of the values one to six seasons earlier, as many as are known, each
held near their median, so that an old spike is not replayed; between two samples the value is interpolated. With â the
order-32 forecast of `lattice`,

    ŷ_{t+1} = â_{t+1} + a (x_t - S_t) + b (S_{t+1} - â_{t+1})

a and b fitted by least squares with forgetting, from a start at a = b = 0: a series above its season stays there for a
while, and the season may tell much or little. Further steps feed the forecasts back. The season is configured or found
by `season`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import floor, inf, isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import lattice, season
from .channels import Instant, Moment
from .table import Array, Column, Row

Index = NDArray[np.intp]

#: Samples of the past that are kept a series (a power of two); seasons that do not fit in take no part.
HISTORY = 1024
#: How many of them are looked at for a season: the largest of these numbers that have come.
WINDOWS = np.array([64, 96, 128, 192, 256, 384, 512, 768, 1024])
#: Samples between two looks: a quarter of those that have come, within these bounds; half of that after a look that
#: proposed a season.
LOOK_MIN, LOOK_MAX = 32, 512
FORGETTING = 0.998
#: The usual size of x - S is a mean with that weight of the newest.
SPREAD_RATE = 0.02
#: An earlier season counts as at most that many usual sizes off the median; what is fitted is held within the larger
#: number of them.
CLIP_PAST, CLIP = 3.0, 12.0
#: Earlier seasons in the mean: more of them carry less noise, fewer follow a season that changes.
SEASONS = 6
#: Keeps what is divided by above 0; so is its square.
TINY = 1e-140
#: Margin to the envelope of the series, as a share of its width.
MARGIN = 0.2


class Seasonal:
    """Repeats the season, as far as that pays.

    `period` in samples, from 1 to 1,023, for all series; without it each series' own is used as soon as one is found.
    """

    name = "seasonal"
    recorded = False
    columns: Mapping[str, Column] = {
        #: Samples so far, with those that a gap left out; sample number c lies at place c mod HISTORY, as an offset to
        #: the row's origin.
        "season_clock": Column(dtype=np.int64),
        "history": Column((HISTORY,), np.nan, dtype=np.float32, plain=False),
        #: in samples, 0 where none is known
        "season": Column(),
        "season_candidate": Column(),
        "season_doubts": Column(dtype=np.int64),
        #: usual size of x - S; 0 where the season is new
        "season_spread": Column(),
        #: x_t - S_t of the newest sample; S and â of the next
        "season_terms": Column((3,), np.nan),
        #: weighted sums of products of (x_t - S_t, S_{t+1} - â_{t+1}, x_{t+1} - â_{t+1}): 11, 12, 22, 13, 23
        "season_fit": Column((5,)),
    }

    def __init__(self, period: float = 0.0) -> None:
        self.period = float(period)

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Keep the sample, look for a season when it is time to, learn how much it tells."""
        clock = state["season_clock"]
        clock += 1
        state["history"][np.arange(len(clock)), clock & (HISTORY - 1)] = moment.x - state["origin"]
        if self.period:
            state["season"][...] = self.period
        else:
            # the row's number staggers the looks, so that no step has many
            due = (clock + state["row"]) & (LOOK_MIN - 1)
            if not due.all():
                self._look(state, np.flatnonzero(due == 0))
        if len(rows := np.flatnonzero(state["season"])):
            _learn(state, rows, moment.x[rows], moment.s[rows])

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The forecasts, shape (n, horizon); NaN where there is no season."""
        out = np.full((len(moment.x), horizon), np.nan)
        if len(rows := np.flatnonzero(state["season"])):
            out[rows] = _forecast(state, rows, horizon)
        return out

    def step_one(self, row: Row, now: Instant) -> float:
        """`update` and `forecast` for one row."""
        row.season_clock = clock = row.season_clock + 1
        row.history[clock & (HISTORY - 1)] = now.x - row.origin
        if self.period:
            row.season = self.period
        elif not (clock + row.row) & (LOOK_MIN - 1):
            row.store()
            self._look(row.views, np.array([0]))
            row.load()
        if not row.season:
            return nan
        _learn_one(row, now.x, now.s)
        return _forecast_one(row)

    @staticmethod
    def skip(state: Mapping[str, Array], missed: Array) -> None:
        """Pass over `missed` samples, shape (n,), of the n rows that never came: the season goes on where it would
        be."""
        for row, gap in enumerate(missed.tolist()):
            start = int(state["season_clock"][row]) + 1
            state["history"][row, (start + np.arange(min(gap, HISTORY))) & (HISTORY - 1)] = np.nan
            state["season_clock"][row] += gap
            state["season_terms"][row] = np.nan

    def _look(self, state: Mapping[str, Array], rows: Index) -> None:
        rows = rows[state["season_clock"][rows] >= season.SAMPLES_MIN]
        if not len(rows):
            return
        clock = state["season_clock"][rows]
        interval = 1 << np.minimum(np.frexp(clock)[1] - 3, LOOK_MAX.bit_length() - 1)
        interval >>= state["season_candidate"][rows] > 0.0
        now = (clock + state["row"][rows]) & (np.maximum(interval, LOOK_MIN) - 1) == 0
        rows, clock = rows[now], clock[now]
        window = WINDOWS[np.searchsorted(WINDOWS, clock, side="right") - 1]
        for size in np.unique(window).tolist():
            part = window == size
            x = state["history"][rows[part, None], (clock[part, None] + np.arange(1 - size, 1)) & (HISTORY - 1)]
            _decide(state, rows[part], x)


def _decide(state: Mapping[str, Array], rows: Index, x: Array) -> None:
    before = state["season"][rows]
    known = (state["season_candidate"], state["season_doubts"])
    now, candidate, doubts = season.decide(x, before, *(column[rows] for column in known))
    state["season"][rows], known[0][rows], known[1][rows] = now, candidate, doubts
    other = rows[(now > 0.0) & ~season.same(now, before)]
    state["season_terms"][other] = np.nan
    state["season_fit"][other] = state["season_spread"][other] = 0.0


def _learn(state: Mapping[str, Array], rows: Index, x: Array, s: Array) -> None:
    """Fit the sample just come, `x`, shape (k,); `s`, shape (k,), is the spread to start with. Terms that are NaN teach
    nothing.
    """
    off_before, past, ar = state["season_terms"][rows].T
    off = x - past
    spread = state["season_spread"][rows]
    spread = np.where(spread > 0.0, spread, s)
    limit = CLIP * spread
    terms = np.minimum(np.maximum([off_before, past - ar, x - ar, off], -limit), limit)
    unknown = np.isnan(terms)
    terms[unknown] = 0.0
    u, v, w, _ = terms
    spread += np.where(unknown[3], 0.0, SPREAD_RATE) * (np.abs(terms[3]) - spread)
    fit = state["season_fit"][rows] * FORGETTING
    fit += np.stack([u * u, u * v, v * v, u * w, v * w], axis=1)
    state["season_fit"][rows], state["season_spread"][rows], state["season_terms"][rows, 0] = fit, spread, off


def _learn_one(row: Row, x: float, s: float) -> None:
    """`_learn` for one row, in plain floats."""
    off_before, past, ar = row.season_terms
    off = x - past
    spread = row.season_spread or s
    limit = CLIP * spread
    u, v, w = off_before, past - ar, x - ar
    if not (-limit <= u <= limit and -limit <= v <= limit and -limit <= w <= limit):
        u, v, w = [0.0 if isnan(f) else min(max(f, -limit), limit) for f in (u, v, w)]
    if not isnan(off):
        spread += SPREAD_RATE * (min(abs(off), limit) - spread)
    uu, uv, vv, uw, vw = row.season_fit
    row.season_fit = [
        uu * FORGETTING + u * u,
        uv * FORGETTING + u * v,
        vv * FORGETTING + v * v,
        uw * FORGETTING + u * w,
        vw * FORGETTING + v * w,
    ]
    row.season_spread = spread
    row.season_terms[0] = off


def _forecast(state: Mapping[str, Array], rows: Index, horizon: int) -> Array:
    """The forecasts of `rows`, shape (k, horizon)."""
    past = _past(state, rows, horizon)
    spread, ar, terms = state["season_spread"][rows], state["ar"][rows], state["season_terms"]
    a, b = _weights(state["season_fit"][rows].T, spread)
    off = terms[rows, 0]
    off = np.where(np.isnan(off), 0.0, np.minimum(np.maximum(off, -CLIP * spread), CLIP * spread))
    terms[rows, 1], terms[rows, 2] = past[:, 0], ar
    low, high, centre = state["low"][rows], state["high"][rows], state["centre"][rows]
    margin = MARGIN * (high - low)
    low, high = low - margin, high + margin
    out = np.empty((len(rows), horizon))
    if horizon > 1:
        kf, kb, back, prediction = (state[name][rows] for name in ("kf", "kb", "b", "prediction"))
    for step in range(horizon):
        if step:
            back, prediction = lattice.roll(kf, kb, back, prediction, out[:, step - 1] - centre)
            ar = centre - prediction[:, -1]
            off = out[:, step - 1] - past[:, step - 1]
        out[:, step] = np.minimum(np.maximum(ar + a * off + b * (past[:, step] - ar), low), high)
    return out


def _forecast_one(row: Row) -> float:
    """The one-step forecast of one row, in plain floats."""
    past = _held(row, row.memo.get("past") or _past_one(row, row.season_clock + 1))
    row.late.append(partial(_look_ahead, row))
    spread, ar, off = row.season_spread, row.ar, row.season_terms[0]
    a, b = _weights(row.season_fit, spread)
    row.season_terms[1:] = past, ar
    limit = CLIP * spread
    if not -limit <= off <= limit:
        off = 0.0 if isnan(off) else min(max(off, -limit), limit)
    low, high = row.low, row.high
    margin = MARGIN * (high - low)
    low, high = low - margin, high + margin
    forecast: float = ar + a * off + b * (past - ar)
    return low if forecast < low else high if forecast > high else forecast


def _weights(sums: Any, spread: Any) -> tuple[Any, Any]:
    """a and b out of the sums, of one row (floats) or of several (arrays).

    The ridge holds them at 0 until more than one usual size has been seen.
    """
    uu, uv, vv, uw, vw = sums
    ridge = spread * spread + 1e-6 * (uu + vv) + TINY
    uu, vv = uu + ridge, vv + ridge
    determinant = uu * vv - uv * uv
    return (vv * uw - uv * vw) / determinant, (uu * vw - uv * uw) / determinant


def _past(state: Mapping[str, Array], rows: Index, horizon: int) -> Array:
    """S of the next samples, shape (k, horizon); NaN where none of the earlier values is known."""
    period, clock = state["season"][rows][:, None], state["season_clock"][rows][:, None]
    ahead = np.arange(1, horizon + 1)
    values = np.empty((SEASONS, len(rows), horizon))
    for k in range(SEASONS):
        at = clock + ahead - (np.ceil(ahead / period) + k) * period
        before = np.floor(at).astype(np.int64)
        part = at - before
        after = np.minimum(before + 1, clock)
        earlier, later = (state["history"][rows[:, None], place & (HISTORY - 1)] for place in (before, after))
        values[k] = np.where(clock - before < HISTORY, (1.0 - part) * earlier + part * later, np.nan)
    values.sort(axis=0)  # unknown ones come last
    known = SEASONS - np.isnan(values).sum(axis=0)
    middle = np.take_along_axis(values, np.maximum(known - 1, 0)[None] // 2, 0)[0]
    reach = state["season_spread"][rows][:, None] * CLIP_PAST
    reach = np.where(reach > 0.0, reach, np.inf)
    past = np.zeros((len(rows), horizon))
    for value in values:
        past += np.where(np.isnan(value), 0.0, np.minimum(np.maximum(value, middle - reach), middle + reach))
    past /= np.where(known > 0, known, np.nan)
    past += state["origin"][rows][:, None]
    return past


def _look_ahead(row: Row) -> None:
    """Look up the past of the sample after the next, which is known already if a season is not very short."""
    row.memo["past"] = _past_one(row, row.season_clock + 2) if row.season >= 3.0 else None


def _past_one(row: Row, clock: int) -> list[float]:
    """The known values of one row one to six seasons before sample number `clock`, lowest first."""
    period, known = row.season, row.history.item
    values = []
    for k in range(1, SEASONS + 1):
        at = clock - k * period
        before = floor(at)
        part = at - before
        after = min(before + 1, clock - 1)
        value = (1.0 - part) * known(before & (HISTORY - 1)) + part * known(after & (HISTORY - 1))
        if clock - before <= HISTORY and not isnan(value):
            values.append(value)
    return sorted(values)


def _held(row: Row, past: list[float]) -> float:
    """S of the next sample of one row, out of those values."""
    if not past:
        return nan
    middle = past[(len(past) - 1) // 2]
    reach = CLIP_PAST * row.season_spread or inf
    low, high = middle - reach, middle + reach
    if past[0] < low or past[-1] > high:
        past = [min(max(value, low), high) for value in past]
    mean: float = sum(past) / len(past) + row.origin
    return mean
