"""Two settings against each other: what both scored is paired, the sign and the words agree, luck is called luck."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecastd.daemon import tables
from forecastd.daemon.contest import Match, match, outcome
from forecastd.daemon.replay import Trace, replay
from forecastd.daemon.settings import Settings
from forecastd.producers.playback import Recording
from forecastd.producers.waves import WAVES

NAIVE, ABLE = Settings(experts=("naive",)), Settings(experts=("naive", "ar10", "ar"))


def play(settings: Settings, values: list[tuple[str, np.ndarray]]) -> list[Trace]:
    recordings = [Recording(name, 1e9 + np.arange(len(v)), v) for name, v in values]
    return replay(recordings, settings, None)


@pytest.fixture(scope="module")
def waves() -> list[tuple[str, np.ndarray]]:
    return [(f"sine-{seed}", WAVES["sine"](seed).take(700)[1]) for seed in range(8)]


@pytest.fixture(scope="module")
def able_against_naive(waves: list[tuple[str, np.ndarray]]) -> list[Match]:
    return [match(a, b, 0.3) for a, b in zip(play(NAIVE, waves), play(ABLE, waves), strict=True)]


def test_the_better_one_is_named_by_how_much_and_how_sure(able_against_naive: list[Match]) -> None:
    total = outcome(able_against_naive)
    assert (total.leader, total.sure, total.series) == ("b", True, 8)
    assert (total.b_lower, total.a_lower, total.b_better, total.a_better) == (8, 0, 8, 0)
    ratios = [m.b.rmse / m.a.rmse for m in able_against_naive]
    assert total.rmse_ratio == pytest.approx(np.exp(np.mean(np.log(ratios))))
    assert total.median_skill_b == pytest.approx(np.median([m.b.skill for m in able_against_naive]))
    assert total.sign_p == pytest.approx(2 / 2**8)
    words = tables.verdict(total)
    assert words.startswith("B is better: RMSE 2") and "lower RMSE on 8 of 8" in words and "B on 8" in words


def test_the_order_of_the_two_only_turns_the_signs(
    able_against_naive: list[Match], waves: list[tuple[str, np.ndarray]]
) -> None:
    turned = [match(a, b, 0.3) for a, b in zip(play(ABLE, waves), play(NAIVE, waves), strict=True)]
    one, other = outcome(able_against_naive), outcome(turned)
    assert (other.leader, other.sure) == ("a", True)
    assert other.rmse_ratio == pytest.approx(1 / one.rmse_ratio)
    assert [m.steps[0].statistic for m in turned] == [-m.steps[0].statistic for m in able_against_naive]
    assert [m.steps[0].better for m in turned] == ["a"] * 8
    words = tables.verdict(other).replace("A is better", "B is better").replace("A on 8, B on 0", "A on 0, B on 8")
    assert words == tables.verdict(one)


def test_the_same_settings_differ_in_nothing(waves: list[tuple[str, np.ndarray]]) -> None:
    total = outcome([match(a, b, 0.3) for a, b in zip(play(ABLE, waves[:3]), play(ABLE, waves[:3]), strict=True)])
    assert (total.leader, total.sure, total.a_better, total.b_better) == ("", False, 0, 0)
    assert tables.verdict(total) == "A and B forecast the same (3 series)."


def test_a_lead_by_chance_is_called_luck(waves: list[tuple[str, np.ndarray]]) -> None:
    """Two series, one won by each, the sum a little for B."""
    a = play(NAIVE, waves[:2])
    shaken = np.random.default_rng(0).normal(size=700) * 0.002
    b = [replace(t, mean=t.mean + s * shaken[:, None]) for t, s in zip(a, (1, -1), strict=True)]
    total = outcome([match(one, other, 0.3) for one, other in zip(a, b, strict=True)])
    assert total.leader and not total.sure
    assert "which may be luck" in tables.verdict(total)


def test_only_moments_that_both_forecast_are_compared(waves: list[tuple[str, np.ndarray]]) -> None:
    """One of them warms up longer: the moments it missed count for neither."""
    (a,) = play(NAIVE, waves[:1])
    late = a.mean.copy()
    late[:400] = np.nan
    late[400:] *= 1.5
    compared = match(a, replace(a, mean=late), 0.3)
    assert compared.steps[0].scored == 700 - 401
    y = a.value[401:]
    expected = np.sqrt(np.mean((1.5 * a.mean[400:-1, 0] - y) ** 2) / np.mean((a.mean[400:-1, 0] - y) ** 2))
    assert compared.steps[0].rmse_ratio == pytest.approx(expected)
    assert compared.a.scored == 490 and compared.b.scored == 299


def test_each_step_ahead_that_both_made_is_compared() -> None:
    values = [("sine", WAVES["sine"](1).take(500)[1])]
    (a,) = play(Settings(experts=("naive",), horizon=3), values)
    (b,) = play(Settings(experts=("naive", "ar"), horizon=5), values)
    steps = match(a, b, 0.3).steps
    assert [c.step for c in steps] == [1, 2, 3]
    assert all(c.better == "b" and c.rmse_ratio < 1 for c in steps)


def test_flat_series_are_no_contest() -> None:
    flat = [("flat", np.full(100, 2.0))]
    total = outcome([match(a, b, 0.3) for a, b in zip(play(NAIVE, flat), play(ABLE, flat), strict=True)])
    assert total.series == 0 and total.leader == ""
    assert tables.verdict(total).startswith("No series could be compared")
