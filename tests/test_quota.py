"""What the trainer may use of the processor."""

from __future__ import annotations

import pytest

from forecastd.daemon.quota import DAY_S, Quota


def test_work_is_followed_by_a_rest_that_keeps_its_share() -> None:
    """Over a hundred jobs of any length, one after another."""
    quota, now, used = Quota(0.25, 1e9, 0.0), 0.0, 0.0
    for job in range(100):
        cpu_s = 0.1 + job % 7 / 10
        now += cpu_s
        used += cpu_s
        quota.spend(cpu_s, cpu_s, now)
        now += quota.wait_s(now)
        assert quota.wait_s(now) == 0.0
        assert used / now == pytest.approx(0.25)


def test_time_that_passed_without_work_is_rest_already() -> None:
    """Little work in a long time waits for nothing."""
    quota = Quota(0.5, 1e9, 0.0)
    quota.spend(1.0, 10.0, 10.0)
    assert quota.wait_s(10.0) == 0.0
    quota.spend(4.0, 6.0, 16.0)
    assert quota.wait_s(16.0) == 2.0


def test_when_the_days_seconds_are_used_up_it_rests_until_the_day_is_over() -> None:
    """And then begins with all of them."""
    quota = Quota(1.0, 100.0, 0.0)
    quota.spend(99.0, 99.0, 1000.0)
    assert not quota.spent
    quota.spend(1.0, 1.0, 1001.0)
    assert quota.spent
    assert quota.wait_s(1001.0) == DAY_S - 1001.0
    assert quota.wait_s(DAY_S) == 0.0
    assert not quota.spent
