"""The pure core: what comes in by name and time, what comes out forecast, scored and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from forecastd.daemon.batch import Batch, Effects, Parcel, Reply
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Limits, Settings
from forecastd.daemon.standings import standings
from forecastd.models.table import Array
from forecastd.models.weights import Weights

NOW = 1.7e9


def weights() -> Weights:
    random = np.random.default_rng(0)

    def draw(*shape: int) -> Array:
        return random.normal(0.0, 0.1, shape).astype(np.float32)

    return Weights(draw(4, 20), draw(20, 20), draw(20), draw(20), np.asarray(draw(), np.float32))


def pipeline(**changes: Any) -> Pipeline:
    return Pipeline(Settings(**changes), weights())


def batch(series: list[str], values: Any, times: Any = None, **parcel: Any) -> Batch:
    n = len(series)
    time = np.full(n, np.nan) if times is None else np.asarray(times, float)
    return Batch(series, np.asarray(values, float), time, [Parcel(0, n, **parcel)])


def feed(core: Pipeline, values: Any, name: str = "a", start: float = NOW - 1e6, step: float = 1.0) -> list[Effects]:
    return [core.step(batch([name], [v], [start + k * step]), NOW) for k, v in enumerate(values)]


def test_a_series_warms_up_until_its_window_is_full_and_says_so() -> None:
    effects = feed(pipeline(), np.sin(np.arange(12.0)))
    ready = [bool(e.forecasts[0].ready[0]) for e in effects]
    assert ready == [False] * 9 + [True] * 3
    assert np.isnan(effects[8].forecasts[0].mean).all()
    assert np.isfinite(effects[9].forecasts[0].mean).all()
    assert np.isfinite(effects[9].forecasts[0].lower).all()


def test_each_forecast_is_scored_against_the_sample_it_was_made_for() -> None:
    """A staircase told apart by its steps: were forecasts paired with any other sample, no error would be right."""
    core = pipeline(horizon=3, experts=("naive",))
    values = np.arange(200.0) ** 2
    feed(core, values)
    board = standings(core, NOW)
    for ahead in (1, 2, 3):
        # naive, made from sample t for t + ahead: y_pred - y = t² - (t + ahead)²; the first was made at sample 9
        errors = np.array([t**2 - (t + ahead) ** 2 for t in range(9, 200 - ahead)], float)
        naive = board.sources.index("naive")
        assert board.columns["bias"][0, ahead - 1, naive] == pytest.approx(errors.mean())
        assert board.columns["mae"][0, ahead - 1, naive] == pytest.approx(np.abs(errors).mean())
        assert board.columns["rmse"][0, ahead - 1, naive] == pytest.approx(np.sqrt((errors**2).mean()))


def test_an_error_is_what_was_predicted_minus_what_came() -> None:
    core = pipeline(experts=("naive",))
    feed(core, np.arange(50.0))
    board = standings(core, NOW)
    assert board.columns["bias"][0, 0, 1] == -1.0


def test_several_samples_of_one_series_in_a_batch_are_applied_in_order() -> None:
    values = np.sin(np.arange(60.0) / 3)
    single, together = pipeline(), pipeline()
    last = feed(single, values)[-1].forecasts[0]
    names = ["a"] * 60
    effects = together.step(batch(names, values, NOW - 1e6 + np.arange(60.0)), NOW)
    assert len(effects.forecasts) == 60
    np.testing.assert_array_equal(effects.forecasts[-1].mean, last.mean)


def test_series_mixed_in_a_batch_are_forecast_as_each_by_itself() -> None:
    random = np.random.default_rng(1)
    together, apart = pipeline(), {name: pipeline() for name in "abc"}
    latest: dict[str, Array] = {}
    for _ in range(40):
        names = [str(n) for n in random.choice(list("abc"), 7)]
        values = random.normal(size=7)
        for forecasts in together.step(batch(names, values), NOW):
            latest |= dict(zip(forecasts.series, forecasts.mean, strict=True))
    random = np.random.default_rng(1)
    for _ in range(40):
        names = [str(n) for n in random.choice(list("abc"), 7)]
        for name, value in zip(names, random.normal(size=7), strict=True):
            alone = apart[name].step(batch([name], [value]), NOW).forecasts[0].mean[0]
            apart[name].last = alone  # type: ignore[attr-defined]
    for name, mean in latest.items():
        np.testing.assert_allclose(mean, apart[name].last, rtol=1e-5, atol=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_series_becomes_the_same_to_the_bit_whoever_its_first_sample_came_with(horizon: int) -> None:
    beside, apart = pipeline(horizon=horizon), pipeline(horizon=horizon)
    for core in (beside, apart):
        feed(core, [1.0, 2.0, 3.0], "old")
    together = beside.step(batch(["old", "a", "b"], [4.0, 5.0, -6.0]), NOW).forecasts[0]
    apart.step(batch(["old"], [4.0]), NOW)
    alone = apart.step(batch(["a", "b"], [5.0, -6.0]), NOW).forecasts[0]
    for name in ("mean", "lower", "upper", "experts", "weights", "score", "flag"):
        np.testing.assert_array_equal(getattr(together, name)[1:], getattr(alone, name), strict=True)
    values = np.random.default_rng(0).normal(size=(30, 2)).cumsum(axis=0)
    for pair in values:
        for core in (beside, apart):
            core.step(batch(["a", "b"], pair), NOW)
    for table in ("table", "scores"):
        ours, theirs = (getattr(core.forecaster, table) for core in (beside, apart))
        for name in ours.columns:
            np.testing.assert_array_equal(ours[name][1:3], theirs[name][1:3], err_msg=name)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (("a", np.nan, NOW), "nonfinite"),
        (("a", np.inf, NOW), "nonfinite"),
        (("a", 1e39, NOW), "nonfinite"),
        (("a", 1.0, np.inf), "nonfinite"),
        (("a", 1.0, -np.inf), "nonfinite"),
        (("a", 1.0, NOW + 601.0), "future"),
        (("a", 1.0, NOW - 100.0), "duplicate"),
        (("a", 1.0, NOW - 101.0), "late"),
        (("", 1.0, NOW), "name"),
        (("b\n", 1.0, NOW), "name"),
        (("x" * 201, 1.0, NOW), "name"),
        (("c", 1.0, NOW), "too_many_series"),
    ],
)
def test_a_bad_sample_is_refused_by_name_and_the_next_good_one_is_forecast(
    sample: tuple[str, float, float], reason: str
) -> None:
    core = pipeline(limits=Limits(series=2))
    core.step(batch(["a", "b"], [1.0, 1.0], [NOW - 100.0, NOW - 100.0]), NOW)
    name, value, time = sample
    effects = core.step(batch([name], [value], [time], peer=b"p", producer="plc", seq=1), NOW)
    assert core.admission.refused == {reason: 1}
    assert effects.forecasts == []
    assert effects.replies == [Reply(b"p", refused=reason, seq=1), Reply(b"p", ack=1)]
    assert len(core.step(batch(["a"], [2.0], [NOW]), NOW).forecasts) == 1


def test_one_bad_sample_of_many_leaves_the_others() -> None:
    core = pipeline()
    effects = core.step(
        batch(["a", "b", "c"], [1.0, np.nan, 3.0], peer=b"p", producer="plc", seq=5, lossless=False), NOW
    )
    assert effects.forecasts[0].series == ["a", "c"]
    assert Reply(b"p", refused="nonfinite", seq=6) in effects.replies


def test_a_repeated_seq_is_acknowledged_again_and_changes_nothing() -> None:
    core = pipeline()
    sent = batch(["a"] * 3, [1.0, 2.0, 3.0], peer=b"p", producer="plc", seq=1, lossless=True)
    first, again = core.step(sent, NOW), core.step(sent, NOW)
    assert (first.replies, again.replies) == ([Reply(b"p", ack=3)], [Reply(b"p", ack=3)])
    assert again.forecasts == []
    assert core.samples == 3
    assert core.admission.refused["duplicate"] == 3


def test_fault_18_one_producer_brings_so_many_series_and_leaves_room_for_the_others() -> None:
    """What it brought before goes on; those without a name are one producer."""
    core = pipeline(limits=Limits(series_per_producer=2, series=6))
    for producer, taken in (("plc", 2), ("lab", 2), ("", 2)):
        names = [f"{producer}-{n}" for n in range(4)]
        effects = core.step(batch(names, [1.0] * 4, producer=producer), NOW)
        assert effects.taken.tolist() == [True] * taken + [False] * (4 - taken)
    assert core.admission.refused == {"too_many_series": 6}
    assert core.step(batch(["plc-0", "plc-9", "plc-1"], [1.0] * 3, producer="plc"), NOW).taken.tolist() == [1, 0, 1]
    mixed = Batch(["plc-7", "new"], np.ones(2), np.full(2, np.nan), [Parcel(0, 1, producer="plc"), Parcel(1, 2)])
    assert core.step(mixed, NOW).taken.tolist() == [False, False], "six in all"


def test_a_producer_that_there_is_no_room_for_is_told_and_not_acknowledged() -> None:
    """Also when what it says cannot be read; the known ones go on."""
    core = pipeline(limits=Limits(producers=1))
    core.step(batch(["a"], [1.0], peer=b"p", lossless=True, producer="plc", seq=1), NOW)
    effects = core.step(batch(["a"] * 2, [1.0] * 2, peer=b"q", lossless=True, producer="new", seq=1), NOW)
    assert effects.replies == [Reply(b"q", refused="too_many_producers", seq=seq) for seq in (1, 2)]
    assert effects.taken.tolist() == [False, False]
    alone = core.step(batch(["a"], [1.0], peer=b"q", lossless=True, producer="new", seq=1), NOW)
    assert (alone.replies, alone.taken.tolist()) == ([Reply(b"q", refused="too_many_producers", seq=1)], [False])
    unread = Batch([], np.empty(0), np.empty(0), [Parcel(0, 0, b"q", True, "new", 0, 3, "malformed", 1)])
    assert core.step(unread, NOW).replies == [Reply(b"q", refused="too_many_producers", seq=3)]
    assert core.admission.refused == {"too_many_producers": 3}
    effects = core.step(batch(["a"], [2.0], peer=b"p", lossless=True, producer="plc", seq=2), NOW)
    assert effects.replies == [Reply(b"p", ack=2)]


def test_a_message_that_could_not_be_read_is_told_and_does_not_hold_up_the_next() -> None:
    core = pipeline()
    unread = Batch(
        [], np.empty(0), np.empty(0), [Parcel(0, 0, b"p", True, "plc", 0, 1, "malformed", 1)], {"malformed": 1}
    )
    assert core.step(unread, NOW).replies == [Reply(b"p", refused="malformed", seq=1), Reply(b"p", ack=1)]
    effects = core.step(batch(["a"], [1.0], peer=b"p", lossless=True, producer="plc", seq=2), NOW)
    assert effects.replies == [Reply(b"p", ack=2)]
    assert effects.taken.tolist() == [True]


def test_a_producer_whose_place_is_not_known_is_told_where_to_begin() -> None:
    effects = pipeline().step(batch(["a"], [1.0], peer=b"p", lossless=True, producer="plc", epoch=3, seq=500), NOW)
    assert (effects.replies, effects.taken.tolist()) == ([Reply(b"p", ack=0)], [False])


def test_a_short_gap_is_bridged_and_widens_the_interval() -> None:
    core = pipeline()
    wave = np.sin(np.arange(100) / 3)
    before = feed(core, wave)[-1].forecasts[0]
    after = core.step(batch(["a"], [np.sin(103 / 3)], [NOW - 1e6 + 103]), NOW).forecasts[0]
    assert after.ready[0]
    board = standings(core, NOW)
    assert board.columns["gaps"][0] == 1
    assert core.samples == 101  # nothing invented is counted
    assert core.forecaster.table["count"][0] == 104
    assert (before.count[0], after.count[0]) == (100, 101)


def test_after_a_long_gap_a_series_warms_up_again_and_keeps_what_it_has_learnt() -> None:
    core = pipeline()
    feed(core, np.sin(np.arange(100) / 3))
    learnt = core.forecaster.table["regret"].copy()
    far = NOW - 1e6 + 1000.0
    effects = [core.step(batch(["a"], [0.1 * k], [far + k]), NOW) for k in range(11)]
    assert [bool(e.forecasts[0].ready[0]) for e in effects] == [False] * 9 + [True] * 2
    assert learnt.any()
    assert core.forecaster.table["regret"].any()


def test_a_replay_with_the_recorded_forecasts_gives_the_same_bits() -> None:
    one, two = pipeline(horizon=4), pipeline(horizon=4)
    random = np.random.default_rng(3)
    for _ in range(60):
        n = int(random.integers(1, 20))
        sent = batch([f"s{k}" for k in random.integers(0, 12, n)], random.normal(size=n))
        first = one.step(sent, NOW)
        second = two.step(sent, NOW, first.recorded)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_array_equal(a.mean, b.mean)
            np.testing.assert_array_equal(a.lower, b.lower)
    assert not two.forecaster.replayed


awkward = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)


@examples(max_examples=60, deadline=None)
@given(st.lists(awkward, min_size=1, max_size=80), st.sampled_from([1, 3]))
def test_whatever_comes_in_no_published_number_is_infinite(values: list[float], horizon: int) -> None:
    core = pipeline(horizon=horizon)
    feed(core, np.sin(np.arange(30.0)))
    for k, value in enumerate(values):
        for forecasts in core.step(batch(["a"], [value], [NOW - 1e6 + 30.0 + k]), NOW):
            for numbers in (forecasts.mean, forecasts.lower, forecasts.upper, forecasts.weights):
                assert np.isfinite(numbers).all()
            assert not np.isinf(forecasts.experts).any()
    feed(core, np.sin(np.arange(30.0)), start=NOW - 1e6 + 130.0)
    board = standings(core, NOW)
    assert not any(np.isinf(column).any() for column in board.columns.values())


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6, 1e12])
def test_a_series_is_forecast_alike_in_any_unit(scale: float) -> None:
    wave = np.sin(np.arange(120) / 4) + np.random.default_rng(0).normal(0, 0.1, 120)
    plain = feed(pipeline(), wave)[-1].forecasts[0]
    scaled = feed(pipeline(), wave * scale)[-1].forecasts[0]
    np.testing.assert_allclose(scaled.mean, plain.mean * scale, rtol=1e-4)
    np.testing.assert_allclose(scaled.upper, plain.upper * scale, rtol=1e-4)


def test_samples_from_before_1970_are_taken() -> None:
    core = pipeline()
    year = 365.25 * 86400
    taken = [core.step(batch(["sunspots"], [5.0 + k], [(1700 + k - 1970) * year]), NOW).taken.all() for k in range(300)]
    assert all(taken)
    assert not core.admission.refused


def test_each_of_many_refused_samples_is_told_to_the_producer_that_sent_it() -> None:
    core = pipeline()
    sent = batch(["a", "b", "c", "d"], [np.nan] * 4)
    sent.parcels = [Parcel(k, k + 1, b"p%d" % k, True, f"plc-{k}", 0, 1) for k in (0, 1, 2)]
    sent.parcels.append(Parcel(3, 4))
    told = [(reply.peer, reply.refused) for reply in core.step(sent, NOW).replies if reply.refused]
    assert told == [(b"p0", "nonfinite"), (b"p1", "nonfinite"), (b"p2", "nonfinite")]


@pytest.mark.parametrize(
    ("asked", "up", "down"),
    [
        ({}, True, True),
        ({"alarm_direction": "up"}, True, False),
        ({"alarm_direction": "down"}, False, True),
        ({"alarm_deviation": 40.0}, False, False),
        ({"alarm_share": 0.02}, True, True),
        ({"alarm_share": 0.1}, False, False),
    ],
)
def test_alarms_are_for_the_side_and_the_size_that_were_asked_for(asked: dict[str, Any], up: bool, down: bool) -> None:
    """A value of about 1,000 is off by 30."""
    wave = 1e3 + np.sin(np.arange(400) / 4) + np.random.default_rng(0).normal(0, 0.1, 400)
    for sign, flagged in ((1.0, up), (-1.0, down)):
        core = pipeline(**asked)
        feed(core, wave)
        [effects] = feed(core, [1e3 + sign * 30.0], start=NOW - 1e6 + 400.0)
        assert effects.forecasts[0].flag[0] == flagged
