"""An alert is told when it begins and when it is over, and called by what it turned out to be."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.models import alert, anomaly, channels
from forecastd.models.alert import Alert
from forecastd.models.anomaly import FLAT, SHIFT, SPIKE, Verdict
from forecastd.models.table import Array, Column, Table


class Watch:
    """Alerts alone: the verdicts are given."""

    def __init__(self, rows: int = 1) -> None:
        columns = {"row": Column(dtype=np.intp), **channels.COLUMNS, **anomaly.COLUMNS, **alert.COLUMNS}
        self.state = (table := Table(columns)).take(table.append(rows))
        self.state["row"][...] = 10 + np.arange(rows)
        self.state["v"][...] = 1.0

    def step(self, kind: int | Array = 0, p: float | Array = 0.5, x: float = 0.0) -> list[Alert]:
        rows = len(self.state["row"])
        verdict = Verdict(np.broadcast_to(p, rows).astype(float), np.broadcast_to(kind, rows).astype(np.int8))
        return alert.update(self.state, np.full(rows, x), verdict)

    def calm(self, x: float = 0.0) -> list[Alert]:
        return [told for _ in range(anomaly.CALM) for told in self.step(x=x)]


def test_an_alert_is_told_twice_however_long_it_lasts() -> None:
    watch = Watch()
    told = watch.step(SPIKE, 1e-4)
    for _ in range(50):
        told += watch.step(SPIKE, 1e-5)
    told += watch.calm()
    told += watch.calm()
    assert told == [Alert(10, False, "spike", 1, 1e-4), Alert(10, True, "spike", 61, 1e-5)]


def test_it_stays_open_while_samples_are_unusual_though_none_is_flagged() -> None:
    watch = Watch()
    watch.step(SPIKE, 1e-4)
    for _ in range(30):
        assert watch.step(p=0.01) == []
    for _ in range(anomaly.CALM - 1):
        assert watch.step() == []
    assert [told.over for told in watch.step()] == [True]


def test_what_comes_after_is_a_new_alert() -> None:
    watch = Watch()
    first, second = watch.step(SPIKE, 1e-5) + watch.calm(), watch.step(SPIKE, 1e-4)
    assert [told.over for told in first] == [False, True]
    assert second == [Alert(10, False, "spike", 1, 1e-4)]


@pytest.mark.parametrize("kind", [SHIFT, FLAT])
def test_a_shift_or_a_flat_line_gives_a_spike_its_name(kind: int) -> None:
    watch = Watch()
    watch.step(SPIKE, 1e-4)
    assert watch.step(kind, 1e-4) == []
    assert [told.kind for told in watch.calm()] == [anomaly.KINDS[kind]]


def test_a_spike_that_stays_was_a_shift() -> None:
    back, away = Watch(), Watch()
    for watch, level in ((back, 0.5), (away, 9.0)):
        watch.step(SPIKE, 1e-6, x=9.0)
        assert [told.kind for told in watch.calm(x=level)] == ["spike" if watch is back else "shift"]


def test_it_stays_open_while_the_line_is_flat() -> None:
    watch = Watch()
    watch.step(FLAT, 1e-8)
    watch.state["still"][0, 3] = 1.0
    assert watch.calm() == []
    watch.state["still"][0, 3] = 0.0
    assert [(told.kind, told.over) for told in watch.calm()] == [("flat", True)]


def test_samples_without_a_score_count_as_calm() -> None:
    watch = Watch()
    watch.step(SPIKE, 1e-4)
    told = [told for _ in range(anomaly.CALM) for told in watch.step(p=np.nan)]
    assert [(one.over, one.p) for one in told] == [(True, 1e-4)]


def test_each_row_has_its_own_alert() -> None:
    watch = Watch(3)
    assert [told.row for told in watch.step(np.array([SPIKE, 0, SHIFT]), 1e-4)] == [10, 12]
    assert [told.row for told in watch.step(np.array([0, SPIKE, 0]), np.array([0.5, 1e-4, 0.5]))] == [11]
    over = [watch.step() for _ in range(anomaly.CALM)]
    assert [[told.row for told in step] for step in over[-2:]] == [[10, 12], [11]]


def feed(core: Pipeline, values: Array, start: float = 1.6e9) -> list[dict[str, object]]:
    events = []
    for k, value in enumerate(values.tolist()):
        one = Batch(["pump"], np.array([value]), np.array([start + k]), [Parcel(0, 1)])
        events += core.step(one, start + k).events
    return events


def test_the_pipeline_tells_an_alert_by_name_and_time() -> None:
    core = Pipeline(Settings(experts=("naive", "ses", "ar10", "ar")), None)
    values = np.random.default_rng(3).normal(size=700)
    values[600] = 40.0
    begun, *rest = [event for event in feed(core, values) if event["time"] >= 1.6e9 + 600]  # type: ignore[operator]
    assert (begun["event"], begun["series"], begun["time"]) == ("anomaly", "pump", 1.6e9 + 600)
    assert (begun["kind"], begun["value"], begun["samples"]) == ("spike", 40.0, 1)
    assert 0.0 <= begun["score"] < 1e-3  # type: ignore[operator]
    assert rest[0]["event"] == "anomaly_over"
    assert rest[0]["kind"] == "spike"


def test_the_pipeline_counts_what_is_flagged() -> None:
    core = Pipeline(Settings(experts=("naive", "ses", "ar10", "ar")), None)
    values = np.random.default_rng(3).normal(size=700)
    values[600] = 40.0
    begun = sum(event["event"] == "anomaly" for event in feed(core, values))
    assert core.series["anomalies"][0] >= begun >= 1
