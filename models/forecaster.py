"""The forecaster of many series: settle what was forecast for this moment, take the sample in, forecast the next steps.

State is a `Table`; a step reads and writes only the rows it is given. No clock, no name, no socket: `daemon.pipeline`
says which sample belongs to which row."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from math import isfinite, nan
from typing import Any, NamedTuple, cast

import numpy as np

from . import alert, anomaly, blend, channels, conformal, dispersion, scaling, score, single
from .expert import Expert, Products, Recorded
from .lessons import Lesson
from .seasonal import Seasonal
from .table import Array, Column, Row, Rows, Table

#: Rows worked on together, so that what a step computes for them stays in the second-level cache.
CHUNK = 1250

#: An error of this share of the value is rounding: the mean of equal forecasts need not equal them to the last bit,
#: and a
#: flat line must not be judged by that.
ROUNDING = 16 * float(np.finfo(np.float64).eps)


class Outlook(NamedTuple):
    """The forecasts of n rows: `mean` (n, H), `lower` and `upper` (n, H, L), `experts` and `weights` (n, H, K); NaN
    while warming.

    `p` (n,) is the chance of one as unusual as the sample just taken in, NaN where no forecast of it was due; `kind`
    (n,) what it is flagged for, as a number of `anomaly.KINDS`.
    """

    mean: Array
    lower: Array
    upper: Array
    experts: Array
    weights: Array
    p: Array
    kind: Array


class Said(NamedTuple):
    """`Outlook` of one row, one step ahead, in plain numbers: `lower` and `upper` by level, `experts` and `weights` by
    expert."""

    mean: float
    lower: list[float]
    upper: list[float]
    experts: list[float]
    weights: list[float]
    p: float
    kind: int


class Forecaster:
    """Experts, blend and intervals over one table, scores in another. It alone writes to them."""

    def __init__(
        self, experts: Sequence[Expert], warmup: int, horizon: int, levels: Sequence[float], rule: anomaly.Rule
    ) -> None:
        self.experts = tuple(experts)
        self.warmup = warmup
        self._young = max(warmup, scaling.TRUSTED)
        self.horizon = horizon
        self.rule = rule
        #: alerts that have begun or ended since this list was last cleared
        self.alerts: list[alert.Alert] = []
        self.miss_rates = 1.0 - np.array(levels)
        #: the places of the levels, narrowest first
        self._places: list[int] = np.argsort(levels, kind="stable").tolist()
        self._starts, self._gains = conformal.starts(self.miss_rates), conformal.gains(self.miss_rates)
        self._control = single.Control(self.miss_rates, self._places)
        self.table = Table(self._columns(len(levels)))
        self.scores = Table(score.columns(horizon, 1 + len(self.experts), len(levels)))
        self._unscored: list[tuple[Rows, Any, Any, Any]] = []
        #: what the RNNs have said since this list was last cleared, shape (n, H) each, and what they are to say in a
        #: replay
        self.recorded: list[Products] = []
        self.replayed: deque[Products] = deque()
        #: what the rounds have taught since this list was set; None where nobody wants to learn
        self.lessons: list[Lesson] | None = None
        # what a sample that came alone has taught: made a lesson of once its forecast is out
        self._taught: tuple[list[Lesson], tuple[Any, ...]] | None = None

    def _columns(self, levels: int) -> dict[str, Column]:
        steps, kinds = self.horizon, len(self.experts)
        columns = {"row": Column(dtype=np.intp), "fresh": Column(dtype=np.int64)}
        columns |= channels.COLUMNS | anomaly.COLUMNS | alert.COLUMNS
        for expert in self.experts:
            columns |= expert.columns
        columns |= blend.columns(steps, kinds) | conformal.columns(steps, levels)
        columns |= dispersion.columns(steps)
        # What waits for its target, by the number of its sample modulo H and by step ahead. Values are of the blend and
        # the experts; `due_made` is 0 where there was none, and the value then means nothing. The situation is that of
        # the sample.
        columns["due"] = Column((steps, steps, 1 + kinds))
        columns["due_made"] = Column((steps, steps, 1 + kinds))
        columns["due_widths"] = Column((steps, steps, 2, levels))
        columns["due_situation"] = Column((steps,), dtype=np.intp)
        columns["weights"] = Column((steps, kinds), np.nan)
        # Samples bridged since the last real one: the forecasts reach that much further than they say.
        columns["bridged"] = Column()
        return columns

    def append(self, count: int) -> slice:
        """Rows for `count` new series."""
        self.finish()
        rows = self.table.append(count)
        self.table.take(rows)["row"][...] = np.arange(rows.start, rows.stop)
        self.scores.append(count)
        return rows

    def restart(self, rows: Rows, missed: Array | None = None) -> None:
        """Fill the windows of `rows` anew: what came before lies too far back to lead up to what comes. What was
        learnt stays. `missed`, shape (n,), says how many samples never came, so that a season goes on in step."""
        state = self.table.take(rows)
        for name in ("fresh", "bridged", "due_made"):
            state[name][...] = 0
        if missed is not None:
            for expert in self.experts:
                if isinstance(expert, Seasonal):
                    expert.skip(state, missed)
        self.table.put(rows, state)

    def step(self, rows: Rows, x: Array, bridging: bool = False) -> Outlook:
        """Take in one sample a row. `x`, shape (n,), float64, finite; no row twice.

        With `bridging`, `x` stands in for samples that never came: it moves the windows on, but nothing is scored
        against it, and blend and intervals learn nothing from it."""
        self.finish()
        n = len(x)
        if n <= CHUNK:
            return self._chunk(rows, x, bridging)
        start = rows.start if isinstance(rows, slice) else 0
        parts = []
        for a in range(0, n, CHUNK):
            b = min(a + CHUNK, n)
            part = slice(start + a, start + b) if isinstance(rows, slice) else rows[a:b]
            parts.append(self._chunk(part, x[a:b], bridging))
        return Outlook(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def finish(self) -> None:
        """Do what the last step's forecasts did not wait for; and score what it has settled. `step` does so first, and
        whoever reads scores must: calling it once the forecasts are out only moves the work to where nobody waits for
        it."""
        self.table.settle()
        if self._taught is not None:
            lessons, parts = self._taught
            row, x, s, seen, fresh = (np.array([part]) for part in parts)
            lessons.append(Lesson(row, x, s, seen.astype(np.float32), fresh, True))
            self._taught = None
        of_each = (-1, self.horizon, 1 + len(self.experts))
        for rows, error, widths, made in self._unscored:
            state = self.scores.take(rows)
            reach = np.reshape(widths, (-1, self.horizon, 2, len(self.miss_rates)))
            score.update(state, np.reshape(error, of_each), reach, np.reshape(made, of_each), self.miss_rates)
            self.scores.put(rows, state)
        self._unscored.clear()

    def _chunk(self, rows: Rows, x: Array, bridging: bool) -> Outlook:
        state = self.table.take(rows)
        # Many new series at once must not hold up the others: half of a step has nothing to say of them.
        first = self.warmup > 1 and not state["count"].any()
        if bridging or first:
            verdict, settled = anomaly.Verdict(np.full(len(x), np.nan), np.zeros(len(x), np.int8)), None
            state["bridged" if bridging else "calm"] += 1
        else:
            verdict, settled = self._settle(rows, state, x)
            state["bridged"][...] = 0.0
        moment = channels.update(state, x)
        state["fresh"] += 1
        self._teach(state, moment, not bridging)
        for expert in self.experts:
            expert.update(state, moment)
        outlook = self._silence(state, moment, verdict) if first else self._forecast(state, moment, verdict)
        if settled is not None:
            # only now, since one row learns it late
            dispersion.update(state, *settled)
        self.table.put(rows, state)
        return outlook

    def _teach(self, state: dict[str, Array], moment: channels.Moment, real: bool) -> None:
        if self.lessons is not None:
            row, fresh = state["row"].copy(), state["fresh"].copy()
            self.lessons.append(Lesson(row, moment.x, moment.s, moment.channels, fresh, real))

    def step_one(self, number: int, x: float) -> Said | None:
        """`step` for row `number` in plain numbers; None, and nothing done, where only `step` can do it: for more than
        one step ahead, in a series' first samples, and after a gap."""
        if self._unscored:
            self.finish()
        row = self.table.lend(number)
        young = self._young
        if self.horizon > 1 or row.fresh < young or row.count < young or row.bridged:
            return None
        p, kind, error = self._settle_one(row, number, x)
        now = single.observe(row, x)
        row.fresh += 1
        if self.lessons is not None:
            self._taught = self.lessons, (row.row, x, now.s, now.channels, row.fresh)
        said = [
            self._ask_one(expert, row, now) if expert.recorded else expert.step_one(row, now) for expert in self.experts
        ]
        awake, experts = [1.0] * len(said), said
        if not isfinite(sum(said)):
            awake = [1.0 if isfinite(value) else 0.0 for value in said]
            experts = [value if up else 0.0 for value, up in zip(said, awake, strict=True)]
            said = [value if up else nan for value, up in zip(said, awake, strict=True)]
        mean, weights = single.aggregate(row, experts, awake)
        features, sizes = single.expect(row, mean, experts, awake)
        below, above = single.half_widths(row, sizes, now.s, self._control)
        row.due, row.due_made = [mean, *experts], [1.0, *awake]
        row.due_widths = below + above
        row.late.append(partial(single.disperse, row, error, row.due_features, row.due_sizes))
        row.due_features, row.due_sizes = features, sizes
        row.weights = weights
        lower, upper = [mean - width for width in below], [mean + width for width in above]
        return Said(mean, lower, upper, said, weights, p, kind)

    def _settle_one(self, row: Row, number: int, x: float) -> tuple[float, int, float]:
        """`_settle` for one row with a due forecast: p, the kind and the blend's error."""
        due, made, widths = row.due, row.due_made, row.due_widths
        rounding = ROUNDING * abs(x)
        error = [value - x if abs(value - x) > rounding else 0.0 for value in due]
        p, kind = anomaly.judge(row, x, error[0], single.sigma(row) if row.residuals[0] else nan, self.rule)
        if kind or row.alert:
            row.store()
            verdict = anomaly.Verdict(np.array([p]), np.array([kind], np.int8))
            self.alerts += alert.update(row.views, np.array([x]), verdict)
            row.load()
        single.notice(row, abs(error[0]))
        single.cover(row, error[0], widths, self._control)
        row.surprise[0] = -error[0]
        single.learn(row, error, made)
        self._unscored.append((slice(number, number + 1), error, widths, made))
        return p, kind, error[0]

    def _settle(self, rows: Rows, state: dict[str, Array], y: Array) -> tuple[anomaly.Verdict, tuple[Array, ...]]:
        """Judge the samples `y` and learn from them; also what `dispersion.update` has to learn."""
        due, made, widths, features, sizes, then = self._due(state)
        error = due - y[:, None, None]
        error[np.abs(error) <= ROUNDING * np.abs(y)[:, None, None]] = 0.0
        size, blend_made = np.abs(error[:, :, 0]), made[:, :, 0]
        sigma = conformal.sigma(state)[:, 0]
        sigma[(blend_made[:, 0] == 0.0) | (state["residuals"][:, 0] == 0)] = np.nan
        verdict = anomaly.update(state, y, error[:, 0, 0], sigma, self.rule)
        self.alerts += alert.update(state, y, verdict)
        blend.notice(state, size[:, 0] * blend_made[:, 0], conformal.usual(state)[:, 0])
        conformal.update(state, error[:, :, 0], widths, blend_made, self.miss_rates, self._gains)
        state["surprise"][...] = -error[:, :, 0] * blend_made
        blend.update(state, error, made, then)
        # copies: `due` and the rest are overwritten by the next forecasts
        self._unscored.append((rows, error, widths.copy(), made.copy()))
        return verdict, (error[:, :, 0], features.copy(), sizes.copy(), blend_made.copy())

    def _due(self, state: dict[str, Array]) -> tuple[Array, ...]:
        """What was forecast for the sample now arriving, by step ahead: values, made, half-widths, features and sizes,
        each (n, H, ...), and in which situation, (n, H)."""
        waiting = tuple(state[name] for name in ("due", "due_made", "due_widths", "due_features", "due_sizes"))
        if self.horizon == 1:
            return *(column[:, 0] for column in waiting), state["due_situation"]
        ahead = np.arange(1, self.horizon + 1)
        origin = (state["count"][:, None] + 1 - ahead) % self.horizon
        at = (np.arange(len(origin))[:, None], origin, ahead - 1)
        return *(column[at] for column in waiting), state["due_situation"][at[:2]]

    def _forecast(self, state: dict[str, Array], moment: channels.Moment, verdict: anomaly.Verdict) -> Outlook:
        steps, kinds = self.horizon, len(self.experts)
        n = len(moment.x)
        due = np.empty((n, steps, 1 + kinds))
        experts = due[:, :, 1:]
        for k, expert in enumerate(self.experts):
            experts[:, :, k] = self._ask(expert, state, moment)
        said = experts.copy()
        made = np.ones((n, steps, 1 + kinds))
        asleep = ~np.isfinite(said)
        if asleep.any():
            experts[asleep] = 0.0
            said[asleep] = np.nan
            made[:, :, 1:] -= asleep
        now = blend.situation(state)
        due[:, :, 0], weights = blend.forecast(state, experts, made[:, :, 1:], now)
        mean = due[:, :, 0].copy()
        unit = conformal.unit(state)
        features = dispersion.features(state, unit, experts, mean, made[:, :, 1:], now == blend.STRUCK)
        sizes = dispersion.sizes(state, unit, features)
        widths = conformal.half_widths(state, sizes, moment.s, self._starts, self._places)
        if state["bridged"].any():
            widths *= np.sqrt(1.0 + state["bridged"])[:, None, None, None]
        if int(state["fresh"].min()) < self.warmup:
            warming = state["fresh"] < self.warmup
            mean[warming] = said[warming] = weights[warming] = np.nan
            made[warming] = 0.0
        at = (slice(None), 0) if steps == 1 else (np.arange(n), state["count"] % steps)
        waiting = {"due": due, "due_made": made, "due_widths": widths, "due_features": features, "due_sizes": sizes}
        for name, value in (waiting | {"due_situation": now}).items():
            state[name][at] = value
        state["weights"][...] = weights
        centre = mean[:, :, None]
        return Outlook(mean, centre - widths[:, :, 0], centre + widths[:, :, 1], said, weights, *verdict)

    def _silence(self, state: dict[str, Array], moment: channels.Moment, verdict: anomaly.Verdict) -> Outlook:
        """What is said of series of which only one sample has come."""
        for expert in self.experts:
            if expert.recorded:
                self._ask(expert, state, moment)  # every journal has what it said
        n, steps = len(verdict.p), self.horizon
        bound, said = np.full((n, steps, len(self.miss_rates)), np.nan), np.full((n, steps, len(self.experts)), np.nan)
        return Outlook(np.full((n, steps), np.nan), bound, bound, said, said, *verdict)

    def _ask(self, expert: Expert, state: dict[str, Array], moment: channels.Moment) -> Array:
        """The expert's forecast; in a replay, out of what its products were then."""
        if not expert.recorded:
            return expert.forecast(state, moment, self.horizon)
        asked = cast(Recorded, expert)
        said = np.asarray(self.replayed.popleft()) if self.replayed else asked.products(state, moment, self.horizon)
        self.recorded.append(said)
        return asked.read(state, moment, said, self.horizon)

    def _ask_one(self, expert: Expert, row: Row, now: channels.Instant) -> float:
        """`_ask` for one row, of an expert that is recorded."""
        asked: Recorded = expert  # type: ignore[assignment]  # a call that asserts it costs as much as a cast
        asked.update_one(row, now)
        said = np.asarray(self.replayed.popleft())[0].tolist() if self.replayed else asked.products_one(row, now)
        self.recorded.append([said])
        return asked.read_one(row, said)
