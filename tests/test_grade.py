"""The figures of a backtest: the definitions of the design, recomputed by hand; alignment; flat, short and silent
series.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from forecastd.daemon.grade import aligned, geometric_mean, grade, summary, winkler
from forecastd.daemon.replay import Trace, replay
from forecastd.daemon.settings import Settings
from forecastd.models import ensemble
from forecastd.models.channels import Moment
from forecastd.models.table import Array, Column
from forecastd.producers.playback import Recording
from forecastd.producers.waves import WAVES

LEAN = Settings(experts=("naive", "ses", "ar10", "ar"))
STEPS = 60.0


def play(name: str, value: Array, settings: Settings = LEAN) -> Trace:
    time = 1e9 + STEPS * np.arange(len(value))
    (trace,) = replay([Recording(name, time, np.asarray(value, np.float64))], settings, None)
    return trace


@pytest.fixture(scope="module")
def sine() -> Trace:
    return play("sine", WAVES["sine"](0).take(1000)[1])


class Sawtooth:
    """Knows the series i mod 7: right one sample ahead, wrong by one or six anywhere else. Asleep on every third
    sample.
    """

    name = "seasonal"
    recorded = False
    columns: Mapping[str, Column] = {}

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Nothing to learn."""

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The next teeth."""
        next_ones = (moment.x[:, None] + np.arange(1, horizon + 1)) % 7
        next_ones[state["count"] % 3 == 0] = np.nan
        return next_ones


def test_a_forecaster_that_knows_the_next_sample_scores_zero_error_one_step_ahead_and_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paired with its neighbour its error would be 1 or 6."""
    monkeypatch.setitem(ensemble.EXPERTS, "seasonal", lambda weights: Sawtooth())
    graded = grade(play("saw", np.arange(300) % 7, Settings(experts=("seasonal",), horizon=3)))
    for step in graded.steps:
        knowing = step.experts["seasonal"]
        assert (knowing.mae, knowing.rmse, knowing.skill) == (0.0, 0.0, 1.0)
        assert knowing.scored == pytest.approx(step.scored * 2 / 3, abs=2)
        assert step.experts["naive"].mae > 1.0
    assert graded.best == "naive"  # the other slept too often to be called best


def test_the_figures_are_those_of_the_design_recomputed_from_the_recording(sine: Trace) -> None:
    graded = grade(sine, 0.3)
    y, made = sine.value[300:], sine.mean[299:-1, 0]
    naive = sine.value[299:-1] - y
    error = made - y
    assert (graded.series, graded.n, graded.scored) == ("sine", 1000, 700)
    assert graded.mae == pytest.approx(np.abs(error).mean(), rel=1e-12)
    assert graded.rmse == pytest.approx(np.sqrt((error**2).mean()), rel=1e-12)
    assert graded.bias == pytest.approx(error.mean(), rel=1e-12)
    assert graded.skill == pytest.approx(1 - np.sqrt((error**2).mean() / (naive**2).mean()), rel=1e-12)
    assert graded.mase == pytest.approx(np.abs(error).mean() / np.abs(np.diff(sine.value[:300])).mean(), rel=1e-12)
    assert graded.relmae == pytest.approx(np.abs(error).mean() / np.abs(naive).mean(), rel=1e-12)
    lower, upper = sine.lower[299:-1, 0, 0], sine.upper[299:-1, 0, 0]
    assert graded.coverage == np.mean((lower <= y) & (y <= upper))
    assert graded.width == pytest.approx((upper - lower).mean(), rel=1e-12)
    assert graded.level == 0.9 and set(graded.levels) == {"0.9", "0.8", "0.95"}
    assert graded.levels["0.8"].width < graded.width < graded.levels["0.95"].width
    assert list(graded.experts) == ["naive", "ses", "ar10", "ar"]
    assert graded.experts["naive"].skill == 0.0
    assert graded.experts["ar"].rmse == pytest.approx(np.sqrt(((sine.forecasts[299:-1, 0, 3] - y) ** 2).mean()))
    assert sum(source.weight for source in graded.experts.values()) == pytest.approx(1.0)
    assert graded.best == max(graded.experts, key=lambda name: graded.experts[name].skill)


def test_what_is_scored_begins_where_it_is_told(sine: Trace) -> None:
    assert grade(sine, 0.9).scored == 100
    whole = grade(sine, 0.0)
    assert whole.scored == 1000 - 10  # the forecasts begin when the window is full
    assert np.isnan(whole.mase)
    assert aligned(sine, 300).target.tolist() == list(range(300, 1000))


def test_a_forecast_whose_step_is_missing_is_scored_against_none_and_longer_ones_against_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The series counts steps modulo 7 and lacks some: one who pairs by position is off by as many."""
    monkeypatch.setitem(ensemble.EXPERTS, "seasonal", lambda weights: Sawtooth())
    steps = np.delete(np.arange(400), [200, 250, 251, *range(300, 330)])
    source = Recording("saw", 1e9 + STEPS * steps, (steps % 7).astype(np.float64))
    (trace,) = replay([source], Settings(experts=("seasonal",), horizon=3), None)
    assert trace.gaps == 3
    one, two, three = (aligned(trace, 100, h + 1) for h in range(3))
    assert 201 in steps[two.target] and 252 in steps[three.target] and 252 not in steps[two.target]
    for step, made in enumerate((one, two, three), 1):
        assert (steps[made.target] - steps[made.made] == step).all()
        said = made.forecasts[:, 1]
        assert (said[~np.isnan(said)] == made.value[~np.isnan(said)]).all()
        assert (made.forecasts[:, 0] == steps[made.made] % 7).all()
    assert set(steps[100:]) - set(steps[one.target]) == {201, 252, *range(330, 340)}


def test_each_step_ahead_is_scored_against_its_own_target() -> None:
    trace = play("sine", WAVES["sine"](3).take(600)[1], Settings(experts=("naive", "ar"), horizon=4))
    graded = grade(trace)
    assert [step.step for step in graded.steps] == [1, 2, 3, 4]
    for step in graded.steps:
        h = step.step
        y = trace.value[180:]
        error = trace.mean[180 - h : 600 - h, h - 1] - y
        assert step.scored == 420
        assert step.mae == pytest.approx(np.abs(error).mean(), rel=1e-12)
        naive = trace.value[180 - h : 600 - h] - y
        assert step.skill == pytest.approx(1 - np.sqrt((error**2).mean() / (naive**2).mean()), rel=1e-12)
    assert graded.steps[0].mae < graded.steps[3].mae
    assert graded.mae == graded.steps[0].mae


def test_a_flat_line_has_no_skill_and_its_figures_are_null_in_json() -> None:
    graded = grade(play("flat", np.full(200, 45.0)))
    assert graded.mae == 0.0 and graded.coverage == 1.0 and graded.best == ""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(graded))
    assert plain["skill"] is None and plain["mase"] is None and plain["relmae"] is None
    assert plain["experts"]["ar"]["skill"] is None and plain["scored"] == 140


def test_a_series_too_short_for_its_window_is_read_and_not_scored() -> None:
    graded = grade(play("short", np.arange(8.0)))
    assert (graded.n, graded.scored) == (8, 0)
    assert msgspec.json.decode(msgspec.json.encode(graded))["mae"] is None
    assert grade(play("none", np.empty(0))).scored == 0


def test_the_interval_score_is_width_plus_the_punished_miss() -> None:
    score = winkler(np.array([0.0, 0, 0]), np.array([2.0, 2, 2]), np.array([1.0, -0.5, 2.25]), 0.9)
    assert score == pytest.approx([2.0, 2 + 20 * 0.5, 2 + 20 * 0.25])


def test_the_summary_leaves_flat_and_short_series_out_and_says_so(sine: Trace) -> None:
    steps = np.random.default_rng(0).normal(size=500)
    walk = play("walk", steps.cumsum())
    grades = [grade(t) for t in (sine, walk, play("flat", np.full(200, 1.0)), play("short", np.arange(5.0)))]
    total = summary(grades)
    assert (total.series, total.flat, total.short) == (2, 1, 1)
    assert total.worst == "walk" and total.worst_skill == grades[1].skill
    assert total.median_skill == pytest.approx((grades[0].skill + grades[1].skill) / 2)
    assert total.relmae == pytest.approx(np.sqrt(grades[0].relmae * grades[1].relmae))
    assert total.above_zero == np.mean([g.skill > 0 for g in grades[:2]])
    nothing = summary(grades[2:])
    assert nothing.series == 0 and np.isnan(nothing.median_skill)


def test_one_perfect_series_does_not_make_the_geometric_mean_zero() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    assert geometric_mean([0.0, 1.0]) == pytest.approx(1e-3)
