"""What is unusual is flagged at the rate that was asked for, by its kind, and as one alert."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import anomaly, ensemble
from forecastd.models.forecaster import Forecaster
from forecastd.models.table import Array

RATE = 1e-3


def forecaster(rows: int) -> Forecaster:
    made = Forecaster(ensemble.experts(["naive", "ses", "ar10"], None), 10, 1, (0.9,), RATE)
    made.append(rows)
    return made


def judge(values: Array) -> tuple[Array, Array, Forecaster]:
    """p and kind of each of `values`, shape (T, n), and the forecaster that judged them."""
    made = forecaster(values.shape[1])
    outlooks = [made.step(slice(0, values.shape[1]), x) for x in values]
    return np.array([o.p for o in outlooks]), np.array([o.kind for o in outlooks]), made


def noise(rows: int, steps: int = 3000) -> Array:
    t = np.arange(steps)[:, None]
    return np.sin(t / 9.0 + np.arange(rows)) + np.random.default_rng(1).normal(0, 0.2, (steps, rows))


@pytest.fixture(scope="module")
def calm() -> tuple[Array, Array]:
    p, kind, _ = judge(noise(150))
    return p[1000:], kind[1000:]


def test_ordinary_samples_are_flagged_at_the_rate_that_was_asked_for(calm: tuple[Array, Array]) -> None:
    assert 0.8 * RATE < (calm[1] > 0).mean() < 1.3 * RATE


@pytest.mark.parametrize("chance", [0.5, 0.2, 0.05, 0.01])
def test_a_score_of_p_comes_in_a_share_of_p(calm: tuple[Array, Array], chance: float) -> None:
    assert (calm[0] <= chance).mean() == pytest.approx(chance, rel=0.35)


def _spoilt(kind: str) -> Array:
    values = noise(20, 1600)
    if kind == "spike":
        values[1500] += 10.0
    elif kind == "shift":
        values[1500:] += 8.0
    else:
        values[1500:] = values[1500]
    return values


@pytest.mark.parametrize(("kind", "within"), [("spike", 1), ("shift", 10), ("flat", 60)])
def test_spikes_shifts_and_flat_lines_are_seen(kind: str, within: int) -> None:
    _, kinds, _ = judge(_spoilt(kind))
    seen = kinds[1500 : 1500 + within] > 0
    assert seen.any(axis=0).mean() >= 0.95
    if kind != "shift":  # the first sample of a shift looks like a spike
        assert (kinds[1500 : 1500 + within] == anomaly.KINDS.index(kind)).any(axis=0).mean() >= 0.9


def test_an_alert_begins_once_and_ends_once() -> None:
    values = _spoilt("flat")[:, :1]
    _, _, made = judge(np.concatenate([values, noise(1, 400)]))
    begun = [alert.kind for alert in made.alerts if not alert.over]
    assert [alert.over for alert in made.alerts] == [False, True] * len(begun)
    # a hundred flat samples are one alert
    assert begun.count("flat") == 1


def test_nothing_is_judged_before_there_was_a_forecast() -> None:
    p, kind, _ = judge(noise(3, 10))
    assert np.isnan(p[:9]).all()
    assert not kind.any()


def test_scores_are_chances_whatever_comes() -> None:
    values = np.random.default_rng(0).standard_t(0.7, (1500, 5))
    values[300:500] = 0.0
    p, _, _ = judge(values)
    told = p[~np.isnan(p)]
    assert ((told >= 0.0) & (told <= 1.0)).all()
