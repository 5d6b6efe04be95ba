"""Recordings through the pipeline: who is paired with what, what is refused, and that it is the daemon's own
arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.replay import learner, replay
from forecastd.daemon.settings import Settings
from forecastd.models import checkpoint, ensemble
from forecastd.models.channels import Moment
from forecastd.models.table import Array, Column
from forecastd.producers.playback import Recording
from forecastd.producers.waves import WAVES

LEAN = ("naive", "ses", "ar10", "ar")


def recording(name: str, value: Array, time: Array | None = None, skipped: int = 0) -> Recording:
    moments = 1e9 + 60.0 * np.arange(len(value)) if time is None else time
    return Recording(name, np.asarray(moments, np.float64), np.asarray(value, np.float64), skipped)


def wave(name: str, n: int, seed: int = 0) -> Recording:
    return recording(name, WAVES["sine"](seed).take(n)[1])


class Squares:
    """Knows that the series is (offset + i)², so what it says of the next sample is right for that one alone."""

    recorded = False
    name = "ar"
    columns: Mapping[str, Column] = {}

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Nothing to learn."""

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The next squares."""
        return np.square(np.sqrt(moment.x)[:, None] + np.arange(1, horizon + 1))


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ensemble.EXPERTS, "ar", lambda weights: Squares())


def test_each_forecast_stands_by_the_sample_and_the_series_it_was_for(squares: None) -> None:
    """Three series of squares that start elsewhere and end at different times: shifted by a sample or a series nothing
    fits.
    """
    recordings = [
        recording(name, np.arange(a, a + n) ** 2.0) for name, a, n in (("a", 10, 60), ("b", 500, 90), ("c", 77, 90))
    ]
    traces = replay(recordings, Settings(experts=("ar",), horizon=4), None)
    assert [trace.name for trace in traces] == ["a", "b", "c"]
    for trace, source in zip(traces, recordings, strict=True):
        assert trace.value.tolist() == source.value.tolist()
        assert trace.time.tolist() == source.time.tolist()
        assert trace.experts == ("naive", "ar")
        for step in (1, 2, 3, 4):
            made = trace.forecasts[20:-step, step - 1, 1]
            assert made == pytest.approx(source.value[20 + step :], rel=1e-12)
            assert trace.forecasts[20:-step, step - 1, 0].tolist() == source.value[20:-step].tolist()


def test_a_replay_is_the_daemons_own_arithmetic() -> None:
    """Sample by sample through a pipeline of one's own, each series alone: the same numbers."""
    settings = Settings(experts=LEAN, horizon=3)
    recordings = [wave("a", 150, seed=1), wave("b", 200, seed=2)]
    for trace, source in zip(replay(recordings, settings, None), recordings, strict=True):
        pipeline = Pipeline(settings, None)
        for i, (time, value) in enumerate(zip(source.time, source.value, strict=True)):
            batch = Batch([source.name], np.array([value]), np.array([time]), [Parcel(0, 1)])
            (made,) = pipeline.step(batch, time)
            np.testing.assert_allclose(trace.mean[i], made.mean[0], rtol=1e-9)
            np.testing.assert_allclose(trace.lower[i], made.lower[0], rtol=1e-9)
            np.testing.assert_allclose(trace.upper[i], made.upper[0], rtol=1e-9)
            np.testing.assert_allclose(trace.weights[i], made.weights[0, 0], rtol=1e-9)
            np.testing.assert_allclose(trace.score[i], made.score[0], rtol=1e-9)


def test_what_the_daemon_would_refuse_is_refused_and_counted_by_series_and_reason() -> None:
    time = 1e9 + np.array([0.0, 1, 2, 2, 3, 1, 4, 5])
    bad = recording("bad", np.arange(8.0), time)
    plain = recording("plain", np.arange(20.0))
    one, other = replay([bad, plain], Settings(experts=("naive",)), None)
    assert one.refused == {"duplicate": 1, "late": 1}
    assert one.value.tolist() == [0, 1, 2, 4, 6, 7]
    assert (one.read, len(one)) == (8, 6)
    assert other.refused == {} and len(other) == 20


def test_a_series_that_is_refused_altogether_leaves_an_empty_trace() -> None:
    unnamed, huge = recording(" blank ", np.arange(5.0)), recording("huge", np.full(5, 1e300))
    plain, one, other = replay([wave("plain", 50), unnamed, huge], Settings(experts=("naive",), horizon=2), None)
    assert len(plain) == 50
    assert (len(one), one.refused, one.mean.shape) == (0, {"name": 5}, (0, 2))
    assert (len(other), other.refused) == (0, {"nonfinite": 5})


def test_recordings_older_than_the_epoch_are_taken_and_keep_their_times() -> None:
    time = np.arange(-100.0, 0.0) * 86_400
    (trace,) = replay([recording("old", np.arange(100.0), time)], Settings(experts=("naive",)), None)
    assert len(trace) == 100 and trace.time.tolist() == time.tolist()
    assert trace.step == pytest.approx(86_400)


def test_recordings_of_different_centuries_do_not_make_each_other_late_or_early() -> None:
    times = [np.arange(40.0), 1e9 + np.arange(60.0), 2e9 + 3600 * np.arange(50.0)]
    traces = replay(
        [recording(str(k), np.arange(len(t)), t) for k, t in enumerate(times)], Settings(experts=("naive",)), None
    )
    assert [len(trace) for trace in traces] == [40, 60, 50]
    assert all(not trace.refused for trace in traces)


def test_a_recording_without_times_is_taken_in_its_order() -> None:
    (trace,) = replay([recording("x", np.arange(30.0), np.full(30, np.nan))], Settings(experts=("naive",)), None)
    assert len(trace) == 30 and trace.value.tolist() == list(range(30))
    assert trace.mean[12:, 0] == pytest.approx(np.arange(12, 30))


def test_gaps_are_seen_as_live_and_counted() -> None:
    time = np.delete(1e9 + 60.0 * np.arange(200.0), [100, 101, 150])
    (trace,) = replay([recording("x", np.arange(197.0), time)], Settings(experts=("naive",)), None)
    assert trace.gaps == 2 and trace.step == pytest.approx(60.0)


def test_progress_counts_the_samples_to_the_last() -> None:
    seen: list[int] = []
    replay([wave("a", 20), wave("b", 30)], Settings(experts=("naive",)), None, seen.append)
    assert seen == sorted(seen) and seen[0] == 2 and seen[-1] == 50 and len(seen) == 30


def test_nothing_gives_nothing() -> None:
    assert replay([], Settings(experts=("naive",)), None) == []


def test_a_replay_that_learns_forecasts_better_and_learns_from_nothing_that_comes_later() -> None:
    """On a signal by a rule that the shared model does not know; cut short, the same forecasts up to there."""
    random = np.random.default_rng(2)
    steps = np.where(np.arange(1200) % 5 == 0, 3.0, -0.75) + random.normal(0, 0.05, 1200)
    settings = Settings(experts=("rnn",), finetune=True)
    weights = checkpoint.load("general").weights
    whole, part = recording("s", np.cumsum(steps)), recording("s", np.cumsum(steps)[:700])
    (plain,) = replay([whole], settings, weights)
    (learnt,) = replay([whole], settings, weights, learner=learner(settings, weights))
    (cut,) = replay([part], settings, weights, learner=learner(settings, weights))
    rnn = plain.experts.index("rnn")
    lost = [np.abs(trace.forecasts[600:-1, 0, rnn] - trace.value[601:]).mean() for trace in (plain, learnt)]
    assert lost[1] < 0.8 * lost[0]
    assert learnt.forecasts[:120].tobytes() == plain.forecasts[:120].tobytes()
    assert learnt.mean[:700].tobytes() == cut.mean.tobytes()
