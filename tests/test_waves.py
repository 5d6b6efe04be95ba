"""The simulated waves: deterministic, the same in every chunking, and true to the floor they state."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.producers.waves import ORIGIN, PERIOD, WAVES, Wave

every_wave = pytest.mark.parametrize("kind", sorted(WAVES))

#: Heavy tails have no fourth moment, so their measured deviation settles slowly.
TOLERANCE = {"heavy-tails": 0.10, "outliers": 0.05}


@every_wave
def test_the_stated_floor_is_the_error_of_a_forecaster_that_knows_all_but_the_noise(kind: str) -> None:
    wave = WAVES[kind](5)
    _, clean, noise = wave._next(100_000)
    measured = np.sqrt(np.nanmean(noise**2))
    assert measured == pytest.approx(wave.floor, rel=TOLERANCE.get(kind, 0.01))
    assert abs(np.nanmean(noise)) < 0.02 * max(1.0, wave.floor)
    assert np.isfinite(clean).all()


@every_wave
def test_a_seed_fixes_every_value_and_another_seed_changes_them(kind: str) -> None:
    (time, value), (time2, value2), (_, other) = (WAVES[kind](seed).take(500) for seed in (3, 3, 4))
    np.testing.assert_array_equal(time, time2)
    np.testing.assert_array_equal(value, value2)
    assert value.dtype == time.dtype == np.float64 and value.shape == time.shape == (500,)
    assert (value != other).mean() > 0.9


@every_wave
def test_a_wave_is_the_same_in_one_piece_and_in_many(kind: str) -> None:
    whole, pieces = WAVES[kind](1), WAVES[kind](1)
    time, value = whole.take(5000)
    parts = [pieces.take(n) for n in (1, 2, 997, 3000, 1000)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), time)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), value)


@every_wave
def test_a_series_does_not_depend_on_how_many_run_beside_it(kind: str) -> None:
    few, many = WAVES[kind](7, series=2), WAVES[kind](7, series=5)
    np.testing.assert_array_equal(few.rows(700)[1], many.rows(700)[1][:, :2])
    alone = WAVES[kind](7)
    np.testing.assert_array_equal(alone.rows(700)[1][:, 0], WAVES[kind](7, series=3).rows(700)[1][:, 0])


@every_wave
def test_series_side_by_side_differ(kind: str) -> None:
    value = WAVES[kind](0, series=3).rows(1000)[1]
    assert value.shape == (1000, 3)
    for one, two in ((0, 1), (1, 2), (0, 2)):
        both = ~np.isnan(value[:, one] + value[:, two])
        assert (value[both, one] != value[both, two]).mean() > 0.9


@every_wave
def test_times_rise_by_whole_steps_from_a_start_in_the_past(kind: str) -> None:
    time, _ = WAVES[kind](0, step=0.5, start=1000.0).take(300)
    steps = np.diff(time) / 0.5
    assert (steps >= 1).all() and (steps == np.round(steps)).all()
    assert WAVES[kind](0).rows(1)[0][0] == ORIGIN == 1_700_000_000.0


def test_sine_without_noise_is_the_tutorials_curve() -> None:
    _, value = Wave(0, noise=0.0).take(150)
    np.testing.assert_allclose(value, np.sin(np.linspace(0, 15, 150)) + 1, atol=1e-12)
    assert pytest.approx(62.4, abs=0.05) == PERIOD


def test_sine_takes_amplitude_offset_period_and_noise() -> None:
    _, value = Wave(0, amplitude=10, offset=-3, period=20, noise=0).take(20)
    np.testing.assert_allclose(value, 10 * np.sin(2 * np.pi * np.arange(20) / 20) - 3, atol=1e-12)
    _, noisy = Wave(0, amplitude=0, offset=0, noise=2).take(10_000)
    assert -2 <= noisy.min() < -1.95 and 1.95 < noisy.max() <= 2


def frequency(kind: str, start: int, stop: int) -> float:
    """Frequency of a stretch of the noise-free wave, from its rising crossings of the offset; 1 is that of the sine."""
    clean = WAVES[kind](0, noise=0.0).take(stop)[1][start:] - 1
    up = np.flatnonzero((clean[:-1] < 0) & (clean[1:] >= 0))
    return float((len(up) - 1) / (up[-1] - up[0]) * PERIOD)


def test_the_frequency_switch_doubles_and_halves_without_a_jump() -> None:
    assert frequency("frequency-switch", 0, 2048) == pytest.approx(1, rel=0.02)
    assert frequency("frequency-switch", 2048, 4096) == pytest.approx(2, rel=0.02)
    assert frequency("frequency-switch", 4096, 6144) == pytest.approx(1, rel=0.02)
    assert frequency("frequency-switch", 6144, 8192) == pytest.approx(2, rel=0.02)
    steps = np.abs(np.diff(WAVES["frequency-switch"](0, noise=0.0).take(9000)[1]))
    assert steps.max() < 2 * 2 * np.pi / PERIOD


def test_the_chirp_glides_up_and_down_without_a_jump() -> None:
    rates = [frequency("chirp", a, a + 300) for a in (0, 1700, 2000, 3700, 4000)]
    assert rates == pytest.approx([0.57, 2.6, 2.6, 0.57, 0.57], rel=0.15)
    steps = np.abs(np.diff(WAVES["chirp"](0, noise=0.0).take(9000)[1]))
    assert steps.max() < 3.05 * 2 * np.pi / PERIOD


def test_a_tenth_is_missing_in_runs_of_one_to_twelve_and_more_where_runs_meet() -> None:
    time, _ = WAVES["missing"](0).take(50_000)
    gaps = np.diff(time).astype(int) - 1
    assert 1 - 50_000 / (time[-1] - time[0] + 1) == pytest.approx(0.10, abs=0.01)
    assert set(range(1, 13)) <= set(gaps[gaps > 0])
    assert (gaps > 12).mean() < 0.01


def test_the_random_walk_steps_from_its_last_value_by_its_noise() -> None:
    _, value = WAVES["random-walk"](0, noise=0.5, offset=100.0).take(20_000)
    assert np.diff(value).std() == pytest.approx(0.5, rel=0.03)
    assert abs(value[0] - 100) < 3
    assert value.std() > 5


def test_outliers_are_one_in_two_hundred_and_far_away() -> None:
    wave = WAVES["outliers"](0)
    _, _, noise = wave._next(100_000)
    far = np.abs(noise[0]) > 1
    assert far.mean() == pytest.approx(0.005, rel=0.1)
    assert np.abs(noise[0][far]).min() > 4.8 and np.abs(noise[0][far]).max() < 15.2
    assert 0.4 < (noise[0][far] > 0).mean() < 0.6


def test_the_level_shifts_by_whole_amplitudes_every_512_samples() -> None:
    _, value = WAVES["level-shift"](0, noise=0.0, period=64).take(512 * 8)
    levels = value.reshape(8, 512).mean(axis=1) - 1
    np.testing.assert_allclose(levels, [0.0, 3.0, 1.0, -2.0, 2.0, -1.0, 4.0, 0.5], atol=1e-9)


@pytest.mark.parametrize(
    "wrong", [{"period": 0.0}, {"step": -1.0}, {"series": 0}, {"noise": -0.1}, {"period": float("nan")}]
)
def test_senseless_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Wave(0, **wrong)  # type: ignore[arg-type]
