"""The rings of lessons: what comes out as a window was what the RNN saw, and its target what came next."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import channels, lessons
from forecastd.models.lessons import Lesson, Lessons
from forecastd.models.table import Array

WINDOW = 10


def lesson(row: list[int], number: int, fresh: int | None = None, real: bool = True) -> Lesson:
    """Sample `number` of each row: its value and channels say which it is."""
    n = len(row)
    x = number + 1000.0 * np.array(row)
    marks = np.full((n, 4), number, np.float32)
    return Lesson(
        np.array(row), x, np.full(n, 2.0), marks, np.full(n, number + 1 if fresh is None else fresh, np.int64), real
    )


def numbers(found: Array) -> list[int]:
    """The number of the last sample of each window."""
    assert (np.diff(found[:, :, 0], axis=1) == 1).all()
    return [int(number) for number in found[:, -1, 0]]


def test_a_window_and_its_target_are_those_of_the_recording() -> None:
    """Against the channels of a whole recording, computed by themselves."""
    values = np.sin(np.arange(300) / 7.0)[:, None] + np.random.default_rng(1).normal(0, 0.1, (300, 1))
    seen, s = channels.history(values)
    kept = Lessons(WINDOW, 4)
    for t in range(300):
        kept.take(Lesson(np.array([3]), values[t], s[t], seen[t], np.array([t + 1]), True))
    windows = kept.windows(3, 50)
    for k, end in enumerate(range(300 - 1 - 50, 299)):
        assert windows.inputs[k].tobytes() == np.ascontiguousarray(seen[end - WINDOW + 1 : end + 1, 0]).tobytes()
        assert windows.targets[k] == pytest.approx((values[end + 1, 0] - values[end, 0]) / s[end, 0], rel=1e-6)
    assert len(windows.targets) == 50


def test_the_ring_keeps_the_newest() -> None:
    kept = Lessons(WINDOW, 2)
    for number in range(lessons.LENGTH + 500):
        kept.take(lesson([7], number))
    ends = numbers(kept.windows(7, lessons.LENGTH).inputs)
    assert ends == list(range(500 + WINDOW - 1, lessons.LENGTH + 499))


def test_what_never_came_is_no_target_and_no_window_reaches_over_a_pause() -> None:
    kept = Lessons(WINDOW, 2)
    for number in range(60):
        # sample 30 is a stand-in; before sample 45 lies a pause, after which the window begins anew
        kept.take(lesson([0], number, number + 1 if number < 45 else number - 44, real=number != 30))
    windows = kept.windows(0, 1000)
    ends = numbers(windows.inputs)
    assert ends == [end for end in range(WINDOW - 1, 59) if end + 1 != 30 and not 44 <= end < 45 + WINDOW - 1]
    assert (windows.targets == 0.5).all()


def test_too_few_samples_give_no_window() -> None:
    kept = Lessons(WINDOW, 2)
    for number in range(WINDOW):
        kept.take(lesson([0], number))
    assert kept.windows(0, 5).inputs.shape == (0, WINDOW, 4)
    kept.take(lesson([0], WINDOW))
    assert len(kept.windows(0, 5).targets) == 1


def test_series_beyond_the_capacity_have_no_ring_until_one_falls_silent() -> None:
    kept = Lessons(WINDOW, 2)
    for number in range(20):
        kept.take(lesson([5, 9, 40], number))
    assert sorted(kept.rows.tolist()) == [5, 9]
    assert kept.count(np.array([5, 9, 40, 41])).tolist()[:3] == [20, 20, 0]
    for number in range(20, 20 + 2 * lessons.LENGTH + 1):
        kept.take(lesson([9], number))
    kept.take(lesson([40], 0))
    assert sorted(kept.rows.tolist()) == [9, 40]
    assert kept.count(np.array([5, 40])).tolist() == [0, 1]


def test_no_window_reaches_over_samples_that_were_lost() -> None:
    """A trainer may not have been told of some, though the series went on."""
    kept = Lessons(WINDOW, 2)
    for number in range(60):
        if number not in (20, 40, 41, 42):
            kept.take(lesson([0], number))
    ends = numbers(kept.windows(0, 1000).inputs)
    whole = [set(range(first, last)) for first, last in ((0, 20), (21, 40), (43, 60))]
    assert ends == [end for end in range(59) if any({end - WINDOW + 1, end + 1} <= part for part in whole)]
