"""What the API says of a scoreboard, and of those before it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from forecastd.daemon.recent import RECENT_POINTS, RECENT_SERIES, Recent
from forecastd.daemon.scoreboard import Scoreboard
from forecastd.daemon.view import View


def board(names: list[str], at: float = 0.0, **changes: Any) -> Scoreboard:
    """A scoreboard at the time `at`: of each series the value is `at` plus its place, the forecast one more."""
    n, experts, levels = len(names), ["naive", "rnn"], [0.9, 0.8]
    value = at + np.arange(n, dtype=float)
    columns = {
        name: np.zeros(n) for name in ["step", "season", "samples", "gaps", "score", "flag", "anomalies", "model"]
    }
    columns |= {"value": value, "time": np.full(n, at), "seen": np.full(n, at), "ready": np.ones(n)}
    columns["forecast"] = value[:, None] + np.array([1.0, 2.0])
    for place, name in enumerate(("lower", "upper", "coverage", "width", "winkler")):
        columns[name] = 10.0 * place + np.arange(n * 4, dtype=float).reshape(n, 2, 2)
    for place, name in enumerate(("mae", "rmse", "bias", "skill")):
        columns[name] = 10.0 * place + np.arange(n * 6, dtype=float).reshape(n, 2, 3)
    columns["weight"] = np.full((n, 2, 2), 0.5)
    counters, bounds, counts = {"series": n}, [0.001, 0.002], [0, 0, 0]
    made = Scoreboard(at, names, 2, levels, experts, counters, {}, bounds, counts, 0.0, [], [], columns)
    return msgspec.structs.replace(made, **changes)


def view(*boards: Scoreboard, cap: int = 100, silent_s: float = 60.0) -> View:
    made = View(cap, silent_s)
    for each in boards:
        made.update(each)
    return made


def test_before_the_first_report_there_is_nothing_and_no_error() -> None:
    """The API answers from the first moment."""
    empty = View(100, 60.0)
    assert empty.series() == {"time": None, "total": 0, "matching": 0, "series": []}
    assert empty.one("a") is None
    assert empty.overview({})["series"] == 0


def test_a_daemon_without_series_is_said_to_be_one() -> None:
    """Zero of everything, and no rate from a single report."""
    told = view(board([])).overview({})
    assert (told["series"], told["warming"], told["samples_per_s"], told["duration_p50_s"]) == (0, 0, None, None)


def test_rates_are_those_of_the_last_seconds() -> None:
    """Over ten seconds, not since the start."""
    counts = [0, 1_000_000, *(1_000_000 + 50 * i for i in range(1, 20))]
    boards = [
        board(["a"], float(i), counters={"samples": n, "forecasts": n, "series": 1}) for i, n in enumerate(counts)
    ]
    assert view(*boards).overview({})["samples_per_s"] == pytest.approx(50)


def test_a_restarted_engine_has_no_negative_rate() -> None:
    """Its counters begin anew, and so do the differences."""
    counts = [1000, 1100, 7, 17]
    boards = [
        board(["a"], float(i), counters={"samples": n, "forecasts": n, "series": 1}) for i, n in enumerate(counts)
    ]
    assert view(*boards).overview({})["samples_per_s"] == 10


@pytest.mark.parametrize(
    ("counts", "median"),
    [([10, 0, 0], 0.0005), ([0, 10, 0], 0.0015), ([5, 5, 0], 0.001), ([0, 0, 9], 0.002), ([0, 0, 0], None)],
)
def test_durations_are_read_off_the_histogram(counts: list[int], median: float | None) -> None:
    """Straight lines inside the buckets, as Prometheus draws them; beyond the last bound that bound."""
    told = view(board(["a"], duration_counts=counts)).overview({})
    assert told["duration_p50_s"] == (None if median is None else pytest.approx(median))


def test_durations_are_those_of_the_last_minute() -> None:
    """What was slow at the start does not stay."""
    slow, later = [0, 100, 0], [100, 100, 0]
    boards = [board(["a"], 0.0, duration_counts=[0, 0, 0])]
    boards += [board(["a"], float(i), duration_counts=slow if i < 30 else later) for i in range(1, 95)]
    assert view(*boards).overview({})["duration_p50_s"] is None
    assert view(*boards[:60]).overview({})["duration_p50_s"] == pytest.approx(0.001)


def test_a_search_takes_any_case_and_says_what_it_left_out() -> None:
    """The number found is told even where not all are listed."""
    found = view(board(["Boiler", "boiler-2", "pump"])).series("BOIL", limit=1)
    assert [each["series"] for each in found["series"]] == ["Boiler"]
    assert (found["matching"], found["total"]) == (2, 3)


def test_silent_series_are_not_listed() -> None:
    """As on the metrics page."""
    scoreboard = board(["talks", "quiet"], 100.0)
    scoreboard.columns["seen"][1] = 100.0 - 61
    assert [each["series"] for each in view(scoreboard).series()["series"]] == ["talks"]


def test_a_series_is_told_with_each_figure_under_its_name() -> None:
    """Lists run over the steps ahead; sources, experts and levels are names."""
    scoreboard = board(["a", "b"], 5.0)
    told = view(scoreboard).one("b")
    assert told is not None
    column = scoreboard.columns
    assert told["forecast"] == [7.0, 8.0]
    assert told["mae"] == {s: column["mae"][1, :, k].tolist() for k, s in enumerate(["blend", "naive", "rnn"])}
    assert told["upper"] == {level: column["upper"][1, :, k].tolist() for k, level in enumerate(["0.9", "0.8"])}
    assert told["weights"] == {"naive": [0.5, 0.5], "rnn": [0.5, 0.5]}
    assert told["level"] == 0.9


def test_what_is_unknown_is_null() -> None:
    """NaN is no JSON."""
    scoreboard = board(["a"])
    scoreboard.columns["season"][0] = np.nan
    assert msgspec.json.decode(msgspec.json.encode(view(scoreboard).one("a")))["season"] is None


def test_the_recent_points_are_the_last_ones_in_order() -> None:
    """Bounded, oldest first, and a report without a new sample adds none."""
    recent = Recent()
    for i in range(RECENT_POINTS + 10):
        recent.update(board(["a", "b"], float(i)))
        recent.update(board(["a", "b"], float(i)))
    told = recent.of("b")
    assert told["time"] == [float(i) for i in range(10, RECENT_POINTS + 10)]
    assert told["value"] == [t + 1 for t in told["time"]]
    assert told["mean"] == [t + 2 for t in told["time"]]
    assert told["weights"] == {"naive": [0.5] * RECENT_POINTS, "rnn": [0.5] * RECENT_POINTS}


def test_recent_points_stay_with_their_series() -> None:
    """However series come, go and change places in the report; one that comes again begins anew."""
    recent = Recent()
    for at, names in enumerate([["a"], ["b", "a"], ["c", "b", "a"], ["a", "c"], ["d", "a", "b"]]):
        recent.update(board(names, float(at)))
    assert recent.of("a")["value"] == [0.0, 2.0, 4.0, 3.0, 5.0]
    assert recent.of("b")["value"] == [6.0]
    assert recent.of("d")["value"] == [4.0]
    assert recent.of("c")["value"] == []
    assert recent.of("never")["value"] == []


def test_recent_points_are_bounded_in_all() -> None:
    """Series beyond the bound have none, and take none from the others."""
    recent = Recent()
    names = [str(i) for i in range(RECENT_SERIES + 1)]
    recent.update(board(names, 1.0))
    assert recent.of(names[0])["time"] == [1.0]
    assert recent.of(names[-1])["time"] == []


def test_another_set_of_experts_begins_anew() -> None:
    """A daemon started with others: the old weights have no column any more."""
    recent = Recent()
    recent.update(board(["a"], 1.0))
    after = board(["a"], 2.0, experts=["naive"])
    after.columns["weight"] = np.ones((1, 2, 1))
    recent.update(after)
    assert recent.of("a")["weights"] == {"naive": [1.0]}
