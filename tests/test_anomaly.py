"""A score of p means p, alarms come at the rate asked for, and spikes, shifts and flat lines are seen."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from forecastd.models import anomaly, ensemble
from forecastd.models.anomaly import FLAT, SHIFT, SPIKE, Rule
from forecastd.models.forecaster import Forecaster
from forecastd.models.table import Array, Column, Table

RATE = 1e-3


class Judge:
    """The judgement alone, of forecasts that are always 0: the sample is the residual."""

    def __init__(self, rows: int = 1, **rule: Any) -> None:
        self.rule = Rule(**rule)
        self.table = Table({"count": Column(dtype=np.int64), "last": Column(), **anomaly.COLUMNS})
        self.state = self.table.take(self.table.append(rows))

    def step(self, x: Array, sigma: float = 1.0) -> anomaly.Verdict:
        x = np.atleast_1d(np.asarray(x, float))
        verdict = anomaly.update(self.state, x, -x, np.full(len(x), sigma), self.rule)
        self.state["count"][...] += 1
        self.state["last"][...] = x
        return verdict

    def feed(self, values: Array) -> tuple[Array, Array]:
        """p and kind of all samples, shape (T, n)."""
        verdicts = [self.step(x) for x in values]
        return np.array([v.p for v in verdicts]), np.array([v.kind for v in verdicts])


def gauss(steps: int, rows: int = 1, seed: int = 0) -> Array:
    """Residuals whose mean size is 1."""
    return np.random.default_rng(seed).normal(scale=np.sqrt(np.pi / 2), size=(steps, rows))


RESIDUALS = {
    "gaussian": lambda random, shape: random.normal(size=shape),
    "uniform": lambda random, shape: random.uniform(-2, 2, size=shape),
    "heavy": lambda random, shape: random.standard_t(3, size=shape),
    "skewed": lambda random, shape: random.exponential(size=shape) - 1.0,
    "scaled": lambda random, shape: 40.0 * random.normal(size=shape),
    "bursts": lambda random, shape: random.normal(size=shape) * np.where(random.random(shape) < 0.05, 8.0, 1.0),
}


@cache
def judged(kind: str, rate: float = RATE) -> tuple[Array, Array]:
    values = RESIDUALS[kind](np.random.default_rng(3), (8000, 24))
    return Judge(24, rate=rate).feed(values)


@pytest.mark.parametrize("kind", RESIDUALS)
def test_a_score_of_p_means_p_whatever_the_residuals_are(kind: str) -> None:
    p, _ = judged(kind)
    for share in (0.9, 0.7, 0.5, 0.3, 0.1, 0.05, 0.01):
        # between the tracked quantiles the line need not be straight
        assert 0.75 * share <= np.mean(p[500:] <= share) <= 1.3 * share


@pytest.mark.parametrize(("kind", "rate"), [*((kind, RATE) for kind in RESIDUALS), ("gaussian", 5e-3)])
def test_flags_come_at_the_rate_that_was_asked_for(kind: str, rate: float) -> None:
    _, kinds = judged(kind, rate)
    assert 0.8 * rate <= (kinds > 0).mean() <= 1.3 * rate


def test_the_alarms_of_any_stream_are_bounded() -> None:
    """The steering telescopes: with c the weight of an alarm, the sum of c over T samples is r T + ln κ_0 - ln κ_T.
    The other part of the rate is that of shifts."""
    random = np.random.default_rng(5)
    values = random.normal(size=(4000, 1)) * np.exp(random.normal(size=(4000, 1)).cumsum(0) * 0.05)
    judge = Judge()
    weights, calm = 0.0, 0
    for x in values:
        spike = judge.step(x).p[0] < RATE and judge.state["unusual"][0, 0, anomaly._CALM] == 0.0
        weights += (1.0 if calm >= anomaly.CALM else anomaly.AGAIN) if spike else 0.0
        calm = 0 if spike else calm + 1
    slope = judge.state["unusual"][0, 0, anomaly._SLOPE]
    assert anomaly.SLOPE_MIN < slope + anomaly.SLOPE_START < anomaly.SLOPE_MAX
    assert weights == pytest.approx(anomaly.SHARES[0] * RATE * len(values) - slope)


def test_a_spike_is_flagged_at_once_and_by_name() -> None:
    judge = Judge(20)
    judge.feed(gauss(1500, 20))
    verdict = judge.step(np.full(20, 12.0))
    assert (verdict.kind == SPIKE).all()
    assert (verdict.p < RATE).all()
    assert (judge.step(np.zeros(20)).kind == 0).all()


def test_a_shift_too_small_for_any_one_sample_is_flagged_as_one() -> None:
    """A level that has moved by a deviation and a half: 95 in 100 ordinary samples are as far off as most of these."""
    values = gauss(1560, 20)
    values[1500:] += 1.5 * np.sqrt(np.pi / 2)
    _, kinds = Judge(20).feed(values)
    assert (kinds[1500:] == SHIFT).any(0).mean() >= 0.9
    assert (kinds[1500:] == SHIFT).sum(0).max() <= 4, "told once an excursion, not once a sample"


def test_a_line_that_has_become_flat_is_flagged_once() -> None:
    values = gauss(1000, 4)
    values[600:700] = values[600]
    _, kinds = Judge(4).feed(values)
    assert ((kinds == FLAT).sum(0) == 1).all()
    assert (np.argmax(kinds == FLAT, axis=0) <= 620).all()


def test_a_flat_stretch_like_one_before_is_not_told_again() -> None:
    values = gauss(1200, 4)
    for start in range(300, 1100, 100):
        values[start : start + 15] = values[start]
    _, kinds = Judge(4).feed(values)
    assert ((kinds == FLAT).sum(0) == 1).all()


def test_a_series_that_often_repeats_itself_is_not_flat_when_it_does() -> None:
    random = np.random.default_rng(2)
    counts = random.poisson(0.1, size=(4000, 20)).astype(float)
    rounded = np.round(random.normal(size=(4000, 20)))
    always = np.full((4000, 1), 5.0)
    for values in (counts, rounded, always):
        _, kinds = Judge(values.shape[1]).feed(values)
        assert (kinds == FLAT).sum() <= 1


@pytest.mark.parametrize(("direction", "seen"), [(1, 12.0), (-1, -12.0)])
def test_a_direction_sees_its_own_side_alone_and_keeps_the_rate(direction: int, seen: float) -> None:
    judge = Judge(20, direction=direction)
    _, kinds = judge.feed(gauss(5000, 20))
    assert 0.7e-3 <= (kinds > 0).mean() <= 1.3e-3
    verdict = judge.step(np.full(20, -seen))
    assert (verdict.kind == 0).all()
    assert (verdict.p == 1.0).all()
    assert (judge.step(np.full(20, seen)).kind == SPIKE).all()


@pytest.mark.parametrize("rule", [{"deviation": 13.0}, {"share": 0.2}])
def test_what_is_too_near_the_forecast_is_no_spike(rule: dict[str, float]) -> None:
    near, far = Judge(1, **rule), Judge(1)
    for judge in (near, far):
        judge.feed(gauss(1500))
    x = np.array([100.0])
    verdicts = [anomaly.update(j.state, x, np.array([-12.0]), np.ones(1), j.rule) for j in (near, far)]
    assert [v.kind[0] for v in verdicts] == [0, SPIKE]
    assert verdicts[0].p[0] == verdicts[1].p[0]


def test_without_a_forecast_there_is_no_score_and_nothing_is_learnt() -> None:
    judge = Judge(2)
    judge.feed(gauss(50, 2))
    before = {name: judge.state[name].copy() for name in ("unusual", "drift")}
    verdict = anomaly.update(judge.state, np.ones(2), np.full(2, 100.0), np.full(2, np.nan), judge.rule)
    assert np.isnan(verdict.p).all()
    assert (verdict.kind == 0).all()
    for name, was in before.items():
        np.testing.assert_array_equal(judge.state[name], was)


@pytest.mark.parametrize("sigma", [0.0, 1e-300, 1.0, 1e300])
@pytest.mark.parametrize("error", [0.0, 1e-300, -1.0, 1e300])
def test_any_residual_has_a_finite_score(sigma: float, error: float) -> None:
    judge = Judge()
    judge.feed(gauss(100))
    for _ in range(200):
        verdict = anomaly.update(judge.state, np.ones(1), np.array([error]), np.array([sigma]), judge.rule)
        assert 0.0 <= verdict.p[0] <= 1.0
    assert np.isfinite(judge.state["unusual"]).all()


def test_the_first_change_of_a_constant_line_is_a_spike() -> None:
    judge = Judge()
    for _ in range(300):
        judge.step(np.zeros(1), sigma=0.0)
    assert judge.step(np.ones(1), sigma=0.0).kind[0] == SPIKE


@pytest.mark.parametrize(
    "rule", [{}, {"direction": 1}, {"direction": -1, "deviation": 2.0}, {"rate": 0.01, "share": 0.5}]
)
def test_one_row_in_plain_floats_is_judged_as_in_arrays(rule: dict[str, Any]) -> None:
    random = np.random.default_rng(6)
    values = random.standard_t(2, 2500)
    values[800:900] = values[800]
    values[1500:] += 3.0
    arrays, plain = Judge(**rule), Judge(**rule)
    for t, x in enumerate(values.tolist()):
        sigma = [1.0, 0.0, np.nan][0 if t % 50 else t // 50 % 3]
        verdict = arrays.step(np.array([x]), sigma)
        row = plain.table.lend(0)
        row.finish()
        p, kind = anomaly.judge(row, x, -x, sigma, plain.rule)
        row.count += 1
        row.last = x
        assert kind == verdict.kind[0]
        assert p == pytest.approx(verdict.p[0], rel=1e-9, nan_ok=True)
    for name, column in arrays.state.items():
        np.testing.assert_allclose(plain.table[name], column, rtol=1e-9, atol=1e-12, err_msg=name)


def forecaster(rows: int) -> Forecaster:
    made = Forecaster(ensemble.experts(("naive", "ses", "ar10", "ar"), None), 10, 1, (0.9,), Rule(RATE))
    made.append(rows)
    return made


def test_what_is_wrong_with_a_wave_is_seen_behind_a_real_forecaster() -> None:
    """A spike, a shift and a flat line in 12 noisy sines, each of a size a person would point at."""
    rows, steps = 12, 1800
    t = np.arange(steps)[:, None]
    values = np.sin(2 * np.pi * t / 62.4 + np.arange(rows)) + 0.1 * np.random.default_rng(7).normal(size=(steps, rows))
    values[1000] += 2.0
    values[1300:] += 1.0
    values[1600:1640] = values[1600]
    made = forecaster(rows)
    kinds = np.array([made.step(slice(0, rows), x).kind for x in values])
    assert (kinds[1000] == SPIKE).all()
    assert (kinds[1300:1310] > 0).any(0).all()
    assert (kinds[1600:1640] == FLAT).any(0).all()
    ordinary = np.concatenate([kinds[:1000], kinds[1040:1300], kinds[1340:1600]])
    assert (ordinary > 0).mean() < 1.5e-3
