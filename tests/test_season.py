"""Seasons are found where there are some, to a fraction of a sample, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import season
from forecastd.models.table import Array
from forecastd.producers.waves import WAVES

NONE = np.zeros(1)


def look(values: Array, looks: int = 2, apart: int = 64, known: float = 0.0) -> float:
    """The season after several looks at 1,024 samples (or all there are), the last at the end of `values`."""
    found, candidate, doubts = np.array([known]), NONE, NONE.astype(int)
    for k in reversed(range(looks)):
        end = len(values) - k * apart
        found, candidate, doubts = season.decide(values[None, max(0, end - 1024) : end], found, candidate, doubts)
    return float(found[0])


def noise(length: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=length)


def repeated(pattern: Array, length: int) -> Array:
    return np.resize(pattern, length)


@pytest.mark.parametrize("period", [7, 12, 24, 48, 96, 168, 288, 336])
@pytest.mark.parametrize("seed", range(3))
def test_a_pattern_that_comes_back_is_found_through_noise(period: int, seed: int) -> None:
    pattern = np.random.default_rng(seed).normal(size=period).cumsum()
    pattern -= np.linspace(0.0, pattern[-1], period)
    values = repeated(pattern, 1100) + 0.2 * pattern.std() * noise(1100, seed)
    assert abs(look(values) - period) <= 1.0


def test_a_season_between_two_samples_is_found_to_a_fraction_of_one() -> None:
    values = np.sin(2.0 * np.pi * np.arange(1100) / 62.4) + 0.1 * noise(1100)
    assert abs(look(values) - 62.4) < 0.2


def test_a_level_that_wanders_does_not_hide_a_season() -> None:
    values = repeated(np.sin(2.0 * np.pi * np.arange(24) / 24.0), 1100) + 0.3 * noise(1100).cumsum()
    assert look(values) == 24.0


def test_a_week_is_preferred_to_a_day_where_days_differ() -> None:
    day = np.sin(2.0 * np.pi * np.arange(48) / 48.0)
    week = np.concatenate([day * (0.3 if k > 4 else 1.0) for k in range(7)])
    assert look(repeated(week, 1100) + 0.05 * noise(1100)) == 336.0
    assert look(repeated(day, 1100) + 0.05 * noise(1100)) == 48.0


def test_spikes_neither_hide_a_season_nor_make_one() -> None:
    random = np.random.default_rng(1)
    spikes = np.where(random.random(1100) < 0.01, 100.0 * random.normal(size=1100), 0.0)
    assert look(repeated(np.sin(2.0 * np.pi * np.arange(24) / 24.0), 1100) + 0.1 * noise(1100) + spikes) == 24.0
    assert look(0.1 * noise(1100) + spikes) == 0.0


def test_one_look_is_not_enough() -> None:
    values = repeated(np.sin(2.0 * np.pi * np.arange(24) / 24.0), 1100) + 0.1 * noise(1100)
    assert look(values, looks=1) == 0.0
    assert look(values, looks=2) == 24.0


def test_a_season_that_is_gone_is_given_up_at_the_second_look() -> None:
    values = noise(1100)
    assert look(values, looks=1, known=24.0) == 24.0
    assert look(values, looks=2, known=24.0) == 0.0


def test_a_known_season_gives_way_to_one_that_is_plainly_stronger() -> None:
    values = repeated(np.sin(2.0 * np.pi * np.arange(31) / 31.0), 1100) + 0.1 * noise(1100)
    assert look(values, known=62.0) == 31.0


def test_missing_samples_are_passed_over() -> None:
    values = repeated(np.sin(2.0 * np.pi * np.arange(24) / 24.0), 1100) + 0.1 * noise(1100)
    values[np.random.default_rng(2).random(1100) < 0.1] = np.nan
    values[500:560] = np.nan
    assert look(values) == 24.0


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e12, 1e30])
def test_the_scale_of_a_series_says_nothing_of_its_season(scale: float) -> None:
    values = repeated(np.sin(2.0 * np.pi * np.arange(24) / 24.0), 1100) + 0.1 * noise(1100)
    assert look(scale * values) == 24.0


@pytest.mark.parametrize("values", [np.zeros(1100), np.full(1100, np.nan), np.arange(1100.0)])
def test_a_flat_line_nothing_and_a_slope_have_no_season(values: Array) -> None:
    assert look(values) == 0.0


def walks(kind: str, rows: int, steps: int) -> Array:
    """Series without a season, one a row."""
    random = np.random.default_rng(5)
    draw = random.standard_t(3, (rows, steps)) if kind.endswith("t3") else random.normal(size=(rows, steps))
    if kind.startswith("walk"):
        return draw.cumsum(1)
    if kind == "walk of a walk":
        return draw.cumsum(1).cumsum(1)
    if kind == "shifts":
        return draw + np.where(random.random((rows, steps)) < 0.01, 8.0 * draw, 0.0).cumsum(1)
    if kind == "bursts":
        return np.where(random.random((rows, steps)) < 0.03, np.abs(draw), 0.01 * draw)
    values = np.zeros((rows, steps))
    for t in range(1, steps):
        values[:, t] = float(kind.removesuffix(" t3")) * values[:, t - 1] + draw[:, t]
    return values


KINDS = [
    "0",
    "0 t3",
    "0.5",
    "-0.6",
    "-0.9",
    "0.9",
    "0.97",
    "0.97 t3",
    "walk",
    "walk t3",
    "walk of a walk",
    "shifts",
    "bursts",
]


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_than_one_in_a_hundred_series_without_a_season_are_said_to_have_one(kind: str) -> None:
    """Looked at as often as the daemon does, young and old."""
    rows = 120
    values = walks(kind, rows, 3072)
    state = np.zeros(rows), np.zeros(rows), np.zeros(rows, int)
    ever = np.zeros(rows, bool)
    for end in (64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 2048, 2560, 3072):
        window = min(1024, end) if end not in (320, 448) else end - 64
        state = season.decide(values[:, end - window : end], *state)
        ever |= state[0] > 0.0
    assert ever.sum() <= 1


@pytest.mark.parametrize("kind", ["random-walk", "chirp"])
@pytest.mark.parametrize("seed", range(4))
def test_waves_without_a_season_show_none(kind: str, seed: int) -> None:
    _, values = WAVES[kind](seed=seed).take(6000)
    state = NONE, NONE, NONE.astype(int)
    for end in [*range(64, 1024, 64), *range(1024, 6000, 256)]:
        window = max(w for w in (64, 96, 128, 192, 256, 384, 512, 768, 1024) if w <= end)
        state = season.decide(values[None, end - window : end], *state)
        assert state[0][0] == 0.0


def test_likeness_is_the_mean_correlation_at_the_multiples_of_a_lag() -> None:
    values = noise(200)[None]
    d = season._differences(values)[0].astype(float)
    evidence = season.evidence(values)
    for lag in (5, 24, 60):
        pairs = [(d[t], d[t - k * lag]) for k in range(1, 5) for t in range(k * lag, len(d))]
        expected = np.mean([a * b for a, b in pairs]) / np.mean(d * d)
        assert evidence.pairs[lag] == len(pairs)
        assert evidence.likeness[0, 0, lag] == pytest.approx(expected, abs=1e-5)
        halves = [(d[t], d[t - h]) for k in range(4) for h in [(2 * k + 1) * lag // 2] for t in range(h, len(d))]
        if lag % 2 == 0:
            off = np.mean([a * b for a, b in halves]) / np.mean(d * d)
            assert evidence.contrast[0, 0, lag] == pytest.approx(expected - off, abs=1e-5)


def test_a_coarser_scale_is_the_autocovariance_of_smoother_differences() -> None:
    d = noise(100).astype(np.float32)
    fine = season._autocovariance(d[None])
    smooth = np.convolve(d, [0.25, 0.5, 0.25])
    expected = np.correlate(smooth, smooth, "full")[len(smooth) - 1 :]
    np.testing.assert_allclose(season._coarser(fine, 1)[0], expected[:98], atol=1e-4)


def test_chance_is_measured_in_its_standard_deviation() -> None:
    """Over many walks, at every scale, z at a lag has a deviation of about 1: it is not taken for more than it is."""
    values = walks("walk", 2000, 512)
    evidence = season.evidence(values)
    for scale, lag in ((0, 30), (1, 40), (2, 60), (3, 100)):
        z = evidence.likeness[:, scale, lag] * np.sqrt(evidence.pairs[lag] / 2**scale)
        assert 0.7 < z.std() < 1.3


def test_a_season_is_known_to_a_fraction_of_a_sample_and_a_whole_one_stays_whole() -> None:
    random = np.random.default_rng(0)
    t = np.arange(1024)
    periods = np.array([62.39, 24.0, 24.0, 0.0])
    x = np.sin(2 * np.pi * t / np.where(periods > 0.0, periods, 1.0)[:, None]) + random.normal(0, 0.3, (4, 1024))
    x[2] += random.normal(size=1024).cumsum()
    near = season.refined(x, periods + np.array([0.3, 0.0, 0.4, 0.0]))
    assert abs(near[0] - 62.39) < 0.06
    np.testing.assert_array_equal(near[1:], [24.0, 24.0, 0.0])


def test_where_multiples_do_not_lead_on_a_season_stays_what_it_was() -> None:
    x = np.random.default_rng(0).normal(size=(20, 512)).cumsum(axis=1)
    rough = np.full(20, 40.0)
    assert (np.abs(season.refined(x, rough) - rough) <= 0.5).all()
