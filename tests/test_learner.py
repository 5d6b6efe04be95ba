"""The learner: who is due, what may serve, who is taken back. TensorFlow takes part where weights move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from forecastd.models import channels, checkpoint, learner
from forecastd.models.kernel import Kernel
from forecastd.models.learner import Learner
from forecastd.models.lessons import Lesson
from forecastd.models.table import Array
from forecastd.models.tuning import WINDOWS, Tuner
from forecastd.models.weights import Weights
from forecastd.producers.waves import WAVES

GENERAL = checkpoint.load("general").weights


class Fixed:
    """Answers with the same weights whatever it is given."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def tune(self, models: Sequence[Weights], windows: Array, targets: Array) -> list[Weights]:
        assert windows.shape == (len(models), WINDOWS, 10, 4)
        assert targets.shape == (len(models), WINDOWS)
        return [self.weights] * len(models)


def teach(pupil: Learner, values: Array, first: int = 0) -> None:
    """Columns of `values` as rows 0, 1, …; from sample `first` on."""
    seen, s = channels.history(values)
    rows = np.arange(values.shape[1])
    for t in range(first, len(values)):
        pupil.take(Lesson(rows, values[t], s[t], seen[t], np.full(len(rows), t + 1, np.int64), True))


def waves(series: int, n: int) -> Array:
    return np.stack([WAVES["sine"](seed).take(n)[1] for seed in range(series)], 1)


def report(made: Learner, gains: dict[int, float]) -> None:
    """As often as a trial asks for."""
    for _ in range(learner.REPORTS):
        made.hear(gains)


def pupil(weights: Weights | None = None, copies: int = 8) -> Learner:
    made = Learner(GENERAL, every=64, copies=copies, series=16)
    if weights is not None:
        made._tuner = Fixed(weights)  # type: ignore[assignment]
    return made


def test_a_series_is_due_after_its_first_samples_and_then_every_so_many() -> None:
    made, values = pupil(GENERAL), waves(2, 400)
    teach(made, values[: learner.FIRST - 1])
    assert made.due() == []
    assert made.due(asked=[0]) == []
    teach(made, values[: learner.FIRST], learner.FIRST - 1)
    assert made.due() == [0, 1]
    made.tune([0])
    assert made.due() == [1]
    assert made.due(asked=[0]) == [0, 1]
    teach(made, values[: learner.FIRST + 64], learner.FIRST)
    assert made.due() == [1, 0]


def test_there_are_no_more_copies_than_the_budget() -> None:
    made = pupil(GENERAL, copies=2)
    teach(made, waves(5, 200))
    assert len(made.due()) == 2
    made.tune(made.due())
    assert sorted(made.copies) == [0, 1]
    assert made.due() == []


@pytest.mark.parametrize("array", ["kernel", "recurrent", "readout"])
def test_weights_that_are_not_finite_never_serve(array: str) -> None:
    broken = replace(GENERAL, **{array: np.full_like(getattr(GENERAL, array), np.nan)})
    made = pupil(broken)
    teach(made, waves(1, 200))
    (tune,) = made.tune([0])
    assert (tune.outcome, tune.weights) == ("nonfinite", None)
    assert made.copies == {}


def test_weights_that_are_worse_on_what_they_have_not_seen_never_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    # without the fit of the readout, which would put right what is wrong with these
    monkeypatch.setattr(learner, "_refitted", lambda weights, windows: weights)
    made = pupil(replace(GENERAL, readout=-GENERAL.readout))
    teach(made, waves(1, 200))
    (tune,) = made.tune([0])
    assert (tune.outcome, tune.weights) == ("rejected", None)
    assert tune.after > tune.before
    assert made.copies == {}


def test_a_copy_that_gains_nothing_is_taken_back_and_its_series_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "TRIAL", 64)
    monkeypatch.setattr(learner, "REST", 300)
    made, values = pupil(GENERAL), waves(2, 700)
    teach(made, values[:200])
    made.tune(made.due())
    teach(made, values[:300], 200)
    report(made, {0: 0.0, 1: 0.1})
    assert made.retired() == []
    made.tune(made.due())
    assert made.retired() == [0]
    assert list(made.copies) == [1]
    teach(made, values[:500], 300)
    assert made.due() == [1]
    teach(made, values[:650], 500)
    assert sorted(made.due()) == [0, 1]


def test_a_copy_is_not_judged_before_it_has_served_however_many_samples_were_on_their_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learner, "TRIAL", 64)
    made, values = pupil(GENERAL), waves(2, 400)
    teach(made, values[:200])
    made.tune(made.due())
    teach(made, values, 200)
    made.tune(made.due())
    assert made.retired() == [], "nobody knows yet what it gains"
    made.hear({0: 0.0, 1: 0.0})
    assert made.retired() == [], "it has only just begun"
    for _ in range(learner.REPORTS - 2):
        made.hear({0: 0.03, 1: 0.0})
        assert made.retired() == []
    made.hear({0: 0.03, 1: 0.0})
    assert made.retired() == [1]


def test_where_series_wait_the_copy_that_gains_least_makes_room_but_for_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learner, "TRIAL", 64)
    # all pass the gate: the question is who makes room
    monkeypatch.setattr(learner, "TOLERANCE", 1.0)
    made, values = pupil(GENERAL, copies=4), waves(6, 700)
    teach(made, values[:200])
    made.tune(made.due())
    assert sorted(made.copies) == [0, 1, 2, 3]
    teach(made, values[:300], 200)
    made.tune(made.due())
    report(made, {0: 0.3, 1: 0.1, 2: 0.2, 3: 0.4})
    assert made.retired() == [1]
    made.tune(made.due())
    assert len(made.copies) == 4
    # the newcomer is on trial: as many as may be
    made.due()
    assert made.retired() == []


def test_tuning_forecasts_a_signal_better_that_the_model_has_not_seen() -> None:
    """A wave that jumps by a rule: a learner that moves nothing, or the wrong way, fails."""
    random = np.random.default_rng(2)
    steps = np.where(np.arange(3000) % 5 == 0, 3.0, -0.75) + random.normal(0, 0.05, 3000)
    values = np.cumsum(steps)[:, None]
    made = pupil()
    teach(made, values[:1500])
    (tune,) = made.tune([0])
    assert tune.outcome == "tuned"
    assert tune.weights is not None
    assert tune.after < 0.9 * tune.before
    seen, s = channels.history(values)
    windows = np.lib.stride_tricks.sliding_window_view(seen[:-1, 0], 10, axis=0).swapaxes(1, 2)
    targets = ((values[1:, 0] - values[:-1, 0]) / s[:-1, 0])[9:]
    later = slice(1600, None)
    lost = [np.abs(Kernel(w).forward(windows[later]) - targets[later]).mean() for w in (GENERAL, tune.weights)]
    assert lost[1] < 0.9 * lost[0]


def test_copies_tuned_together_are_as_those_tuned_alone_and_each_time_the_same() -> None:
    random = np.random.default_rng(0)
    windows = random.normal(0, 1, (3, WINDOWS, 10, 4)).astype(np.float32)
    targets = random.normal(0, 1, (3, WINDOWS)).astype(np.float32)
    tuner = Tuner(GENERAL)
    together = tuner.tune([GENERAL] * 3, windows, targets)
    again = tuner.tune([GENERAL] * 3, windows, targets)
    for k in range(3):
        (alone,) = tuner.tune([GENERAL], windows[k : k + 1], targets[k : k + 1])
        for name, array in together[k].arrays.items():
            assert array == pytest.approx(alone.arrays[name], abs=1e-5), name
            assert array.tobytes() == again[k].arrays[name].tobytes()
            assert name.startswith("ahead") or not np.array_equal(array, GENERAL.arrays[name])


def test_one_number_that_is_none_spoils_its_own_copy_alone() -> None:
    random = np.random.default_rng(0)
    windows = random.normal(0, 1, (2, WINDOWS, 10, 4)).astype(np.float32)
    windows[1, 5, 5, 0] = np.nan
    good, bad = Tuner(GENERAL).tune([GENERAL] * 2, windows, np.zeros((2, WINDOWS), np.float32))
    assert np.isfinite(good.kernel).all()
    assert not np.isfinite(bad.kernel).all()
