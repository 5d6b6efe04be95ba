"""The pure core: a batch of samples in, forecasts and replies out.

admit → settle → window → experts → blend → interval → publish. No socket, clock, file or thread here or in anything
it imports: `now` is an argument. The daemon, `backtest`, recovery and the fault simulation all run this one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate

import numpy as np
from numpy.typing import NDArray

from ..models import ensemble
from ..models.anomaly import Rule
from ..models.expert import Products
from ..models.forecaster import Forecaster
from ..models.lessons import Lesson
from ..models.path import Path
from ..models.recurrent import Recurrent
from ..models.table import Column, Rows, Table
from ..models.weights import Weights
from . import alerts, cadence
from .admission import Admission
from .batch import Alone, Batch, Effects, Forecast, Forecasts, Reply
from .settings import Settings

Index = NDArray[np.intp]


class Pipeline:
    """All series of one daemon. It alone changes its state, and only within `step`."""

    def __init__(self, settings: Settings, weights: Weights | None, version: int = 1) -> None:
        self.settings = settings
        self.levels = (settings.level, *(level for level in settings.levels if level != settings.level))
        experts = ensemble.experts(settings.experts, weights, settings.horizon)
        warmup = weights.window if weights else 10
        self.forecaster = Forecaster(experts, warmup, settings.horizon, self.levels, _rule(settings))
        self.experts = tuple(expert.name for expert in experts)
        self.series = Table(_columns(settings.horizon, len(self.levels)))
        self.admission = Admission(settings.limits)
        self.versions = [version]
        self.samples = 0
        self.forecasts = 0
        #: whether steps say what they have taught
        self.learning = False
        self._patterns = [re.compile(translate(group.match)) for group in settings.models]
        for number in range(1, len(settings.models) + 1):
            # until its own is known, a group is served by the model of all
            self.serve(weights, version, number)

    @property
    def recurrent(self) -> Recurrent | None:
        """The expert `rnn`, where it takes part."""
        return next((expert for expert in self.forecaster.experts if isinstance(expert, Recurrent)), None)

    @property
    def names(self) -> list[str]:
        """The series by row."""
        return self.admission.names

    @property
    def rows(self) -> dict[str, int]:
        """The row of each series."""
        return self.admission.rows

    def step(self, batch: Batch, now: float, recorded: Sequence[Products] = ()) -> Effects:
        """Take in a batch at the time `now`, seconds since the epoch. Several samples of one series are applied in
        rounds, in order.

        `recorded` is what an earlier step with the same state and batch gave as `Effects.recorded`: with it the RNN
        does not run again."""
        effects = Effects()
        self.forecaster.recorded = effects.recorded
        self.forecaster.lessons = effects.lessons if self.learning else None
        self.forecaster.replayed.extend(recorded)
        alone = None
        if len(batch) == 1:
            value, time = batch.sample(0)
            alone = self.admission.row_of(batch, value, time, now)
        if alone is None:
            refused = self.admission.refused.copy()
            row, effects.replies, acks = self.admission.rows_of(batch, now)
        else:
            number, acks = alone
            forecasts = self._one(number, value, time, now) if number >= 0 else None
            if forecasts is not None:
                self._tell(forecasts, effects)
                effects.replies += acks
                return effects
            row = np.array([number])
        new = len(self.names) - self.series.length
        if new:
            self.series.append(new)
            self.forecaster.append(new)
            self.assign(range(len(self.names) - new, len(self.names)))
        for places in _rounds(row):
            forecasts = self._one(row.item(places[0]), *batch.sample(places[0]), now) if len(places) == 1 else None
            if forecasts is None:
                places = self._in_time(batch, row, places, effects.replies)
                if not len(places):
                    continue
                forecasts = self._round(batch, row[places], places, now)
            self._tell(forecasts, effects)
        effects.taken = row >= 0  # lateness shows in the rounds
        if alone is None and not effects.taken.any() and not any(parcel.seq for parcel in batch.parcels):
            effects.refused = dict(self.admission.refused - refused)
        effects.replies += acks
        return effects

    def _tell(self, forecasts: Forecasts, effects: Effects) -> None:
        effects.forecasts.append(forecasts)
        if self.forecaster.alerts:
            effects.events += alerts.events(forecasts, self.forecaster.alerts)
            self.forecaster.alerts.clear()

    def adopt(self, row: int, weights: Weights) -> None:
        """Give the series of `row` a copy of the RNN with these weights, in place of the one it has. Between two
        steps."""
        if self.recurrent is not None:
            self.recurrent.copies.adopt(row, weights)

    def drop(self, row: int) -> None:
        """Take the copy of `row` away: the shared model serves it alone again."""
        if self.recurrent is not None:
            self.recurrent.copies.drop(row)

    def gains(self) -> dict[int, float]:
        """What the copies have gained lately, by row: the share of the shared model's loss."""
        return self.recurrent.gains(self.forecaster.table["rnn_losses"]) if self.recurrent else {}

    def finish(self) -> None:
        """Do what the forecasts did not wait for; worth calling once they are out, since then nobody waits."""
        self.forecaster.finish()
        self.series.settle()

    def serve(self, weights: Weights | None, version: int, group: int = 0) -> None:
        """Forecast the series of `group` with another shared model of the same shape from the next step on. Group 0 is
        that of all series that no `[[model]]` of the settings names, the others are in their order."""
        self.finish()
        for expert in self.forecaster.experts:
            if weights is not None and isinstance(expert, Recurrent):
                expert.use(weights, group)
            elif weights is not None and isinstance(expert, Path) and not group:
                expert.use(weights)
        self.versions[group : group + 1] = [version]

    @property
    def version(self) -> int:
        """The version of the model that serves all series of no group."""
        return self.versions[0]

    def group(self, name: str) -> int:
        """The group that a series of this name belongs to: the first whose pattern it matches."""
        for number, pattern in enumerate(self._patterns, 1):
            if pattern.match(name):
                return number
        return 0

    def assign(self, rows: Iterable[int]) -> None:
        """Put these rows into the groups of their names."""
        if self._patterns and self.recurrent is not None:
            for row in rows:
                self.recurrent.groups.assign(row, self.group(self.names[row]))

    def only(self, lesson: Lesson, group: int) -> Lesson | None:
        """What of a lesson is about the series of `group`, numbered within it; None where nothing is."""
        if len(self.versions) == 1:
            return lesson
        assert self.recurrent is not None
        return self.recurrent.groups.only(lesson, group)

    def versions_of(self, rows: Index) -> NDArray[np.int64]:
        """The version of the model that forecasts each row."""
        if len(self.versions) == 1 or self.recurrent is None:
            return np.full(len(rows), self.versions[0])
        return np.array(self.versions)[self.recurrent.groups.of(rows)]

    def _in_time(self, batch: Batch, row: Index, places: Index, replies: list[Reply]) -> Index:
        """The places whose samples are later than the last of their series; the others are refused."""
        rows, time = row[places], batch.time[places]
        last = self.series["time"][rows]
        # neither holds for a time that was not given
        stale = time <= last
        if not stale.any():
            return places
        stale &= self.series["timed"][rows]
        for reason, bad in (("duplicate", stale & (time == last)), ("late", stale & (time < last))):
            self.admission.refuse(batch, row, replies, places[bad], reason)
        return places[row[places] >= 0]

    def _round(self, batch: Batch, row: Index, places: Index, now: float) -> Forecasts:
        """One sample each of different series."""
        rows = _rows(row)
        value, time = batch.value[places], batch.time[places]
        timed = ~np.isnan(time)
        if not timed.all():
            time[~timed] = now
        state = self.series.take(rows)
        missed = cadence.missed(state, time, timed)
        if missed.any():
            self._bridge(row, missed)
            state["gaps"] += missed > 0
        cadence.update(state, time, timed)
        outlook = self.forecaster.step(rows, value)
        flag = outlook.kind > 0
        state["samples"] += 1
        state["anomalies"] += flag
        for name, news in (
            ("seen", now),
            ("score", outlook.p),
            ("flag", flag),
            ("forecast", outlook.mean),
            ("lower", outlook.lower),
            ("upper", outlook.upper),
        ):
            state[name][...] = news
        self.series.put(rows, state)
        ready = ~np.isnan(outlook.mean[:, 0])
        self.samples += len(row)
        self.forecasts += int(ready.sum())
        return Forecasts(
            row=row,
            series=list(map(self.names.__getitem__, row.tolist())),
            time=time,
            value=value,
            step=cadence.step(state),
            count=state["samples"].copy(),
            ready=ready,
            mean=outlook.mean,
            lower=outlook.lower,
            upper=outlook.upper,
            experts=outlook.experts,
            weights=outlook.weights,
            score=outlook.p,
            flag=flag,
            model=self.versions_of(row),
        )

    def _one(self, number: int, value: float, time: float, now: float) -> Forecasts | None:
        """`_round` for one sample of row `number` in plain numbers, which is what a quiet stream brings; None, and
        nothing done, where that takes more."""
        if self.settings.horizon > 1:
            return None
        state, timed = self.series.lend(number), time == time
        if timed and time <= state.time and state.timed:
            return None
        time = time if timed else now
        said = None if cadence.missed_one(state, time, timed) else self.forecaster.step_one(number, value)
        if said is None:
            return None
        step = cadence.update_one(state, time, timed)
        state.samples += 1
        state.seen, state.score, state.flag = now, said.p, said.kind > 0
        state.anomalies += state.flag
        state.forecast, state.lower, state.upper = [said.mean], said.lower, said.upper
        self.samples += 1
        self.forecasts += 1
        return Alone(
            Forecast(
                row=number,
                series=self.admission.names[number],
                time=time,
                value=value,
                step=step,
                count=state.samples,
                ready=True,
                mean=state.forecast,
                lower=[said.lower],
                upper=[said.upper],
                experts=[said.experts],
                weights=[said.weights],
                score=said.p,
                flag=state.flag,
                model=self.versions[0] if len(self.versions) == 1 else self.versions_of(np.array([number])).item(),
            )
        )

    def _bridge(self, row: Index, missed: NDArray[np.int64]) -> None:
        """Stand the forecasts in for a few missed steps; after more of them the windows start anew. Invented values
        are never scored."""
        bridged = missed <= self.settings.limits.bridge_steps
        if not bridged.all():
            self.forecaster.restart(row[~bridged], missed[~bridged])
        for number in range(int(missed[bridged].max(initial=0))):
            rows = row[bridged & (missed > number)]
            forecast = self.series["forecast"][rows, 0]
            value = np.where(np.isnan(forecast), self.forecaster.table["last"][rows], forecast)
            outlook = self.forecaster.step(rows, value, bridging=True)
            self.series.put(rows, {"forecast": outlook.mean})


def _columns(horizon: int, levels: int) -> dict[str, Column]:
    """What the pipeline itself keeps of a series: its times, and its newest forecast for the scoreboard."""
    return {
        **cadence.COLUMNS,
        "seen": Column(initial=np.nan),
        "samples": Column(dtype=np.int64),
        "gaps": Column(dtype=np.int64),
        "score": Column(initial=np.nan),
        "flag": Column(dtype=np.bool_),
        "anomalies": Column(dtype=np.int64),
        "forecast": Column((horizon,), np.nan),
        "lower": Column((horizon, levels), np.nan),
        "upper": Column((horizon, levels), np.nan),
    }


def _rows(row: Index) -> Rows:
    """`row` as a slice where it counts up by one: a view of the table instead of a copy."""
    first, last = int(row[0]), int(row[-1])
    if last - first == len(row) - 1 and (len(row) == 1 or bool((np.diff(row) == 1).all())):
        return slice(first, last + 1)
    return row


def _rounds(row: Index) -> Iterator[Index]:
    """The places of the samples that are taken (row ≥ 0), no row twice in a round, each row's in the order they
    came."""
    places = np.flatnonzero(row >= 0)
    taken = row[places]
    if (taken[1:] > taken[:-1]).all():
        # every row is new to the round, as it is where a producer sends them in their order
        if len(places):
            yield places
        return
    order = places[np.argsort(taken, kind="stable")]
    first = np.flatnonzero(np.diff(row[order], prepend=-1))
    counts = np.diff(first, append=len(order))
    if counts.max() == 1:
        yield places
        return
    turn = np.arange(len(order)) - np.repeat(first, counts)
    by_turn = order[np.argsort(turn, kind="stable")]
    yield from np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])


def _rule(settings: Settings) -> Rule:
    """What to raise the flag for."""
    direction = {"both": 0, "up": 1, "down": -1}[settings.alarm_direction]
    return Rule(settings.alarm_rate, direction, settings.alarm_deviation, settings.alarm_share)
