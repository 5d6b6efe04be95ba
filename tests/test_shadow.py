"""What is seen from the shadow is what a daemon would have forecast, and costs a bounded amount however many series."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.models.kernel import Kernel
from forecastd.models.lessons import Lesson
from forecastd.models.shadow import ROWS, Shadow
from forecastd.models.table import Array
from forecastd.tests.feed import NOW, model

OURS, THEIRS = model(0).weights, model(1).weights


def lessons(rows: int, count: int, seed: int = 0) -> list[Lesson]:
    random = np.random.default_rng(seed)
    return [
        Lesson(
            np.arange(rows),
            random.normal(size=rows),
            random.uniform(0.5, 2.0, rows),
            random.normal(size=(rows, 4)).astype(np.float32),
            np.full(rows, t + 1),
            True,
        )
        for t in range(count)
    ]


def errors(shadow: Shadow, taught: list[Lesson]) -> list[Array]:
    for lesson in taught:
        shadow.take(lesson)
    return shadow.losses([Kernel(OURS), Kernel(THEIRS)])


@pytest.mark.parametrize("together", [True, False])
def test_the_errors_are_those_of_the_models_own_forecasts(together: bool) -> None:
    """Computed here window by window; the samples of a round may come together or one by one."""
    rows, count = 3, 15
    taught = lessons(rows, count)
    shadow = Shadow(OURS)
    if together:
        found = np.concatenate(errors(shadow, taught), axis=1)
    else:
        apart = [Lesson(*(part[k : k + 1] for part in one[:5]), one.real) for one in taught for k in range(rows)]
        found = np.concatenate(errors(shadow, apart), axis=1)
    for m, weights in enumerate((OURS, THEIRS)):
        expected = []
        for t in range(9, count - 1):
            window = np.stack([one.channels for one in taught[t - 9 : t + 1]], axis=1)
            f = Kernel(weights).forward(window)
            expected.append(np.abs(f - (taught[t + 1].x - taught[t].x) / taught[t].s))
        np.testing.assert_allclose(found[m], np.concatenate(expected), rtol=1e-5)


def test_they_are_those_of_the_running_pipeline() -> None:
    """The model in service, asked from the shadow, was as far off as what the daemon published."""
    pipeline = Pipeline(Settings(experts=("naive", "rnn"), levels=()), OURS)
    pipeline.learning = True
    shadow, random = Shadow(OURS), np.random.default_rng(3)
    values = np.cumsum(random.normal(size=(60, 5)), axis=0)
    before, expected = None, []
    names = [f"s{k}" for k in range(5)]
    for t, row in enumerate(values):
        batch = Batch(names, row, np.full(5, NOW + t), [Parcel(0, 5)])
        s = np.sqrt(pipeline.forecaster.table["s2"]).copy() if before is not None else None
        effects = pipeline.step(batch, NOW + t)
        if before is not None and np.isfinite(before).all():
            expected.append(np.abs(before - row) / s)
        before = effects.forecasts[0].experts[:, 0, 1]
        for lesson in effects.lessons:
            shadow.take(lesson)
    found = [one[0] for one in shadow.losses([Kernel(OURS)])]
    assert len(found) == len(expected) == 50
    np.testing.assert_allclose(np.stack(found), np.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_windows_that_were_broken_off_are_not_compared(rows: int) -> None:
    """After a pause the window fills anew; a sample that never came is no target, and its stand-in no beginning."""
    taught = lessons(rows, 30)
    broken = [one._replace(fresh=one.fresh - 14) if t >= 14 else one for t, one in enumerate(taught)]
    assert sum(one.shape[1] for one in errors(Shadow(OURS), broken)) == rows * ((14 - 10) + (16 - 10))
    bridged = [one._replace(real=t != 20) for t, one in enumerate(taught)]
    assert sum(one.shape[1] for one in errors(Shadow(OURS), bridged)) == rows * (20 - 2)
    missed = [one for t, one in enumerate(taught) if t != 20]
    assert sum(one.shape[1] for one in errors(Shadow(OURS), missed)) == rows * 10


def test_a_series_that_has_not_moved_yet_says_nothing_about_the_models() -> None:
    still = [one._replace(s=np.ones(1), x=np.zeros(1)) for one in lessons(1, 20)]
    assert errors(Shadow(OURS), still) == []


@pytest.mark.parametrize("total", [ROWS, ROWS + 1, 1000])
def test_a_bounded_number_of_series_is_watched_spread_over_all(total: int) -> None:
    found = errors(Shadow(OURS), lessons(total, 13))
    watched = {one.shape[1] for one in found}
    assert len(found) == 3 and len(watched) == 1
    assert ROWS // 2 < watched.pop() <= ROWS


def test_series_that_are_watched_already_go_on_when_more_come() -> None:
    """Of the first 64 every other one stays, its window as it was."""
    shadow, few, many = Shadow(OURS), lessons(ROWS, 12, 1), lessons(2 * ROWS, 14, 1)
    for lesson in few:
        shadow.take(lesson)
    shadow.losses([Kernel(OURS)])
    shadow.take(many[12])
    (first,) = shadow.losses([Kernel(OURS)])
    assert first.shape == (1, ROWS // 2)


def test_a_model_that_sees_the_raw_value_is_watched_too() -> None:
    """As the textbook has it: one channel, and the forecast is the value itself."""
    import dataclasses

    weights = dataclasses.replace(OURS, kernel=OURS.kernel[:1].copy(), channels=("value",), output="value")
    shadow, taught = Shadow(weights), lessons(2, 12)
    for lesson in taught:
        shadow.take(lesson)
    found = shadow.losses([Kernel(weights)])
    window = np.stack([one.x for one in taught[1:11]], axis=1)[:, :, None].astype(np.float32)
    expected = np.abs(Kernel(weights).forward(window) - taught[11].x) / taught[10].s
    np.testing.assert_allclose(found[-1][0], expected, rtol=1e-5)
