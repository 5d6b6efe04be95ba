"""The Diebold–Mariano test: its tail against tables, its rate of false alarms, its power, its symmetry, its edges."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest

from forecastd.models.diebold import compare, lags, long_run_variance, sign_test, two_sided


@pytest.mark.parametrize(
    ("degrees", "statistic", "p"),
    [
        (1, 12.706, 0.05),
        (4, 2.776, 0.05),
        (10, 3.169, 0.01),
        (30, 1.697, 0.1),
        (120, 2.617, 0.01),
        (10_000, 1.960, 0.05),
    ],
)
def test_the_tail_is_that_of_the_printed_tables(degrees: int, statistic: float, p: float) -> None:
    assert two_sided(statistic, degrees) == pytest.approx(p, rel=2e-3)
    assert two_sided(-statistic, degrees) == two_sided(statistic, degrees)


def test_the_tail_of_one_and_two_degrees_is_exact() -> None:
    """Student's t has closed forms there: Cauchy's arctangent, and x / sqrt(2 + x²)."""
    for x in (0.0, 0.01, 0.5, 1.0, 3.0, 40.0):
        assert two_sided(x, 1) == pytest.approx(1 - 2 / np.pi * np.arctan(x), abs=1e-12)
        assert two_sided(x, 2) == pytest.approx(1 - x / sqrt(2 + x * x), abs=1e-12)
    assert two_sided(float("inf"), 7) == 0.0


def test_the_statistic_is_the_equation_of_the_papers() -> None:
    """Written out anew for short errors: Bartlett's variance, and the small-sample factor."""
    random = np.random.default_rng(3)
    a, b = random.normal(size=40), random.normal(size=40) * 1.3
    d = a**2 - b**2
    n, h, reach = 40, 3, 3
    gamma = [np.mean((d[k:] - d.mean()) * (d[: n - k] - d.mean())) * (n - k) / n for k in range(reach + 1)]
    variance = gamma[0] + 2 * sum((1 - k / (reach + 1)) * gamma[k] for k in range(1, reach + 1))
    expected = d.mean() / sqrt(variance / n) * sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert lags(n, h) == reach
    verdict = compare(a, b, step=h)
    assert verdict.statistic == pytest.approx(expected, rel=1e-12)
    assert verdict.difference == pytest.approx(d.mean(), rel=1e-12)
    assert verdict.p == two_sided(verdict.statistic, n - 1)


def test_the_first_is_better_below_zero_and_the_order_only_turns_the_sign() -> None:
    random = np.random.default_rng(0)
    good, bad = random.normal(size=500), 2 * random.normal(size=500)
    one, other = compare(good, bad), compare(bad, good)
    assert one.difference < 0 and one.statistic < -5 and one.p < 1e-6
    assert (other.difference, other.statistic, other.p) == (-one.difference, -one.statistic, one.p)


@pytest.mark.parametrize("echo", [0.0, 0.5])
def test_two_equals_are_told_apart_as_seldom_as_promised(echo: float) -> None:
    """Also where the errors have a memory: without the long-run variance 0.5 would give 11 % of false alarms."""
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(1000):
        errors = random.normal(size=(2, 700))
        for k in range(1, 700):
            errors[:, k] += echo * errors[:, k - 1]
        alarms += compare(errors[0, 200:], errors[1, 200:]).p < 0.05
    assert 30 <= alarms <= 75


def test_a_small_true_difference_is_found_in_many_samples_and_not_in_few() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(size=20_000), 1.1 * random.normal(size=20_000)
    assert compare(a, b).p < 1e-4
    assert compare(a[:60], b[:60]).p > 0.01


def test_moments_without_an_error_are_left_out_in_pairs() -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=100), 2 * random.normal(size=100)
    whole = compare(a[10:], b[10:])
    a[:5] = np.nan
    b[5:10] = np.nan
    assert compare(a, b) == whole
    assert whole.pairs == 90


def test_equal_forecasts_are_no_evidence_and_a_constant_lead_is_all_of_it() -> None:
    same = np.linspace(-1, 1, 50)
    assert compare(same, same) == (0.0, 0.0, 1.0, 50)
    lead = compare(np.zeros(50), np.ones(50))
    assert (lead.statistic, lead.p) == (float("-inf"), 0.0)


def test_too_few_pairs_decide_nothing() -> None:
    verdict = compare(np.ones(9), np.zeros(9))
    assert np.isnan(verdict.p) and np.isnan(verdict.statistic) and verdict.pairs == 9
    assert np.isnan(compare(np.empty(0), np.empty(0)).difference)
    with pytest.raises(ValueError, match="same moments"):
        compare(np.ones(20), np.ones(21))
    with pytest.raises(ValueError, match="from 1"):
        compare(np.ones(20), np.ones(20), step=0)


@pytest.mark.filterwarnings("error")
def test_losses_of_any_size_are_compared_without_overflow() -> None:
    random = np.random.default_rng(4)
    a, b = random.normal(size=100), 2 * random.normal(size=100)
    small = compare(a, b)
    for unit in (1e-70, 1e70):
        assert compare(a * unit, b * unit).statistic == pytest.approx(small.statistic, rel=1e-9)


def test_absolute_loss_is_not_swayed_by_one_spike_as_squares_are() -> None:
    random = np.random.default_rng(6)
    a, b = random.normal(size=1000), 1.5 * random.normal(size=1000)
    a[500] = 60.0
    assert compare(a, b).difference > 0
    assert compare(a, b, loss="absolute").statistic < -5


def test_the_variance_is_never_negative() -> None:
    """Alternating losses have a long-run variance near zero; flat weights would take it below."""
    d = np.tile([1.0, -1.0], 50)
    assert 0.0 <= long_run_variance(d, 5) < 0.1


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (8, 2), (13, 13), (300, 260)])
def test_the_sign_test_is_the_binomial_tail(wins: int, losses: int) -> None:
    n = wins + losses
    exact = min(1.0, 2 * sum(comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n) if n else 1.0
    assert sign_test(wins, losses) == pytest.approx(exact, rel=1e-9)
    assert sign_test(losses, wins) == sign_test(wins, losses)
