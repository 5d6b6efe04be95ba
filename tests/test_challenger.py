"""A challenger: better on what it has not seen, or none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from forecastd.models import channels, checkpoint
from forecastd.models.challenger import challenge
from forecastd.models.lessons import Lesson, Lessons
from forecastd.models.table import Array
from forecastd.models.tuning import Tuner

GENERAL = checkpoint.load("general").weights


def taught(values: Array) -> Lessons:
    """The lessons of recordings, shape (T, n)."""
    seen, s = channels.history(values)
    rows, kept = np.arange(values.shape[1]), Lessons(GENERAL.window, 64)
    for t in range(len(values)):
        kept.take(Lesson(rows, values[t], s[t], seen[t], np.full(len(rows), t + 1, np.int64), True))
    return kept


def ruled(series: int, n: int, seed: int = 0) -> Array:
    """Series that jump by one rule, which the shared model does not know."""
    random = np.random.default_rng(seed)
    place = (np.arange(n)[:, None] + np.arange(series)) % 5 == 0
    return np.cumsum(np.where(place, 3.0, -0.75) + random.normal(0, 0.05, (n, series)), axis=0)


def test_it_learns_what_the_series_have_in_common() -> None:
    found = challenge(Tuner(GENERAL), GENERAL, taught(ruled(6, 400)), seed=1)
    assert found is not None
    assert found.after < 0.9 * found.before
    assert found.series == 6
    assert np.isfinite(found.weights.recurrent).all()


def test_the_same_lessons_give_the_same_bytes() -> None:
    tuner, lessons = Tuner(GENERAL), taught(ruled(3, 400))
    one, two = (challenge(tuner, GENERAL, lessons, seed=5) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.weights.kernel.tobytes() == two.weights.kernel.tobytes()


def test_too_few_lessons_make_none() -> None:
    assert challenge(Tuner(GENERAL), GENERAL, taught(ruled(2, 100)), seed=0) is None
    assert challenge(Tuner(GENERAL), GENERAL, Lessons(GENERAL.window, 64), seed=0) is None


def test_where_nothing_can_be_learnt_there_is_none() -> None:
    """Of weights that are not finite comes nothing that is."""
    broken = replace(GENERAL, kernel=np.full_like(GENERAL.kernel, np.nan))
    assert challenge(Tuner(GENERAL), broken, taught(ruled(3, 400)), seed=0) is None
