"""Two settings on the same recordings: which forecasts better, by how much, and whether that could be luck.

What both scored is compared, sample by sample: a moment at which one of them was still warming counts for neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from ..models import diebold
from .batch import Floats
from .grade import NAN, Aligned, Grade, aligned, first_scored, geometric_mean, grade
from .replay import Trace

#: The chance of a mistake that is accepted when one is called better.
ALPHA = 0.05


class Comparison(msgspec.Struct, frozen=True):
    """One step ahead of one series, A against B. Ratios are B / A: below 1 B is better; NaN where A makes no error at
    all.

    `statistic` and `p` are of the Diebold–Mariano test on squared errors: above zero B is better. `better` is `a` or
    `b` where that is beyond chance, else empty.
    """

    step: int
    scored: int
    rmse_ratio: float
    mae_ratio: float
    statistic: float
    p: float
    better: str


class Match(msgspec.Struct, frozen=True):
    """One series under both settings, each with its own grade; `steps` has a comparison for each step ahead that both
    made.
    """

    series: str
    a: Grade
    b: Grade
    steps: list[Comparison]


class Outcome(msgspec.Struct, frozen=True):
    """All series together, one step ahead. `leader` is `a`, `b` or empty (no difference), `sure` whether its lead is
    beyond chance.

    `rmse_ratio` and `mae_ratio` are geometric means of B / A; `a_lower`, `b_lower` count the series with the lower
    RMSE, whose split has the chance `sign_p`; `a_better`, `b_better` those where that is beyond chance.
    """

    series: int
    rmse_ratio: float
    mae_ratio: float
    median_skill_a: float
    median_skill_b: float
    a_lower: int
    b_lower: int
    sign_p: float
    a_better: int
    b_better: int
    leader: str
    sure: bool


def match(a: Trace, b: Trace, score_from: float) -> Match:
    """Compare two traces of the same recording."""
    steps = range(1, min(a.mean.shape[1], b.mean.shape[1]) + 1)
    start = first_scored(a, score_from)
    return Match(
        series=a.name,
        a=grade(a, score_from),
        b=grade(b, score_from),
        steps=[_compare(aligned(a, start, step), aligned(b, start, step), step) for step in steps],
    )


def outcome(matches: Sequence[Match]) -> Outcome:
    """What the matches add up to."""
    ones = [m.steps[0] for m in matches if not np.isnan(m.steps[0].rmse_ratio)]
    a_lower, b_lower = sum(c.rmse_ratio > 1.0 for c in ones), sum(c.rmse_ratio < 1.0 for c in ones)
    sign_p = diebold.sign_test(a_lower, b_lower)
    ratio = geometric_mean([c.rmse_ratio for c in ones]) if ones else NAN
    leader = "b" if ratio < 1.0 else "a" if ratio > 1.0 else ""
    more = a_lower if leader == "a" else b_lower
    # a single series is decided by its own test; several by how many of them agree
    sure = ones[0].better == leader if len(ones) == 1 else sign_p < ALPHA and more > len(ones) / 2
    return Outcome(
        series=len(ones),
        rmse_ratio=ratio,
        mae_ratio=geometric_mean([c.mae_ratio for c in ones]) if ones else NAN,
        median_skill_a=_median([m.a.skill for m in matches]),
        median_skill_b=_median([m.b.skill for m in matches]),
        a_lower=a_lower,
        b_lower=b_lower,
        sign_p=sign_p,
        a_better=sum(c.better == "a" for c in ones),
        b_better=sum(c.better == "b" for c in ones),
        leader=leader,
        sure=bool(leader) and sure,
    )


def _compare(a: Aligned, b: Aligned, step: int) -> Comparison:
    _, in_a, in_b = np.intersect1d(a.target, b.target, assume_unique=True, return_indices=True)
    one, other = a.error[in_a], b.error[in_b]
    verdict = diebold.compare(one, other, step)
    better = ("b" if verdict.statistic > 0 else "a") if verdict.p < ALPHA else ""
    return Comparison(
        step=step,
        scored=len(one),
        rmse_ratio=_ratio(np.square(other), np.square(one)) ** 0.5,
        mae_ratio=_ratio(np.abs(other), np.abs(one)),
        statistic=verdict.statistic,
        p=verdict.p,
        better=better,
    )


def _ratio(upper: Floats, lower: Floats) -> float:
    below = float(lower.mean()) if len(lower) else 0.0
    return float(upper.mean()) / below if below > 0.0 else NAN


def _median(skills: Sequence[float]) -> float:
    known = [skill for skill in skills if not np.isnan(skill)]
    return float(np.median(known)) if known else NAN
