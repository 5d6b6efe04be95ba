"""Whether intervals hold what they say: coverage per series and window, and their score against rolling conformal
around naive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forecastd.daemon.grade import aligned, geometric_mean, winkler
from forecastd.daemon.replay import Trace

from .corpus import LEVELS, SCORE_FROM, Size, real, waves
from .section import Check, Section, figure

#: A header and rows.
Cells = tuple[list[str], list[list[str]]]

WINDOW = 500
ALLOWED = {0.9: 0.01, 0.8: 0.015, 0.95: 0.01, 0.99: 0.007}


class Coverage:
    """One series: coverage by level, its extremes over windows of 500 samples at the main level, and the interval
    score's ratio."""

    def __init__(self, trace: Trace) -> None:
        a = aligned(trace, int(SCORE_FROM * len(trace)))
        covered = a.covered
        self.name, self.kind = trace.name, trace.name.rpartition(".")[0]
        self.by_level = dict(zip(trace.levels, covered.mean(0).tolist(), strict=True))
        sums = np.convolve(covered[:, 0].astype(np.float64), np.ones(min(WINDOW, len(covered))), "valid")
        self.lowest, self.highest = sums.min() / min(WINDOW, len(covered)), sums.max() / min(WINDOW, len(covered))
        self.steady = bool(self.lowest >= 0.84 and self.highest <= 0.96)
        level = trace.levels[0]
        lower, upper = rolling_conformal(trace.value, level)
        reference = winkler(lower[a.target], upper[a.target], a.value, level).mean()
        self.ratio = float(winkler(a.lower[:, 0], a.upper[:, 0], a.value, level).mean() / reference)


def rolling_conformal(values: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The plain way: the last value ± the quantile of its last 500 errors, shape (n,) both; NaN for the first
    samples."""
    n = len(values)
    error = np.abs(np.diff(values, prepend=np.nan))
    width = np.full(n, np.nan)
    for t in range(20, n):
        past = error[max(t - WINDOW, 1) : t]
        rank = min(int(np.ceil((len(past) + 1) * level)), len(past)) - 1
        width[t] = np.partition(past, rank)[rank]
    last = np.concatenate([[np.nan], values[:-1]])
    return last - width, last + width


def table(size: Size) -> Section:
    """Coverage and interval score on the waves and the real series."""
    groups = {"waves": [Coverage(trace) for traces in waves(size).values() for trace in traces]}
    if real(size):
        groups["real"] = [Coverage(trace) for trace in real(size)]
    everything = [c for group in groups.values() for c in group]
    odd = [c for c in everything if not c.steady or abs(c.by_level[LEVELS[0]] - LEVELS[0]) > ALLOWED[LEVELS[0]]]
    notes = "; ".join(f"{c.name} {figure(100 * c.lowest, '.1f')} … {figure(100 * c.highest, '.1f')} %" for c in odd)
    return Section(
        "Intervals",
        f"One step ahead, over the last 70 %; every window of {WINDOW} samples counts. The interval score is given as "
        f"a ratio to that of the last value ± the quantile of its last {WINDOW} errors."
        + (f" Outside in some window or as a whole: {notes}." if notes else ""),
        [_levels(groups), _windows(groups), _each_wave(groups["waves"])],
        _checks(groups, everything),
    )


def _levels(groups: dict[str, list[Coverage]]) -> Cells:
    rows = []
    for level in sorted(LEVELS):
        for name, group in groups.items():
            found = [c.by_level[level] for c in group]
            cells = [figure(100 * x, ".1f") for x in (min(found), float(np.median(found)), max(found))]
            rows.append([f"{100 * level:g} %", name, *cells])
    return ["level", "series", "coverage, %: least", "median", "most"], rows


def _windows(groups: dict[str, list[Coverage]]) -> Cells:
    rows = []
    for name, group in groups.items():
        ratios = [c.ratio for c in group]
        lowest, highest = min(c.lowest for c in group), max(c.highest for c in group)
        inside = f"{sum(c.steady for c in group)} of {len(group)}"
        scores = [figure(x) for x in (geometric_mean(ratios), float(np.median(ratios)), max(ratios))]
        rows.append([name, inside, figure(100 * lowest, ".1f"), figure(100 * highest, ".1f"), *scores])
    scored = ["score ratio, geometric mean", "median", "most"]
    return ["series", "windows inside 84–96 %", "lowest", "highest", *scored], rows


def _each_wave(group: list[Coverage]) -> Cells:
    rows = []
    for kind in dict.fromkeys(c.kind for c in group):
        seeds = [c for c in group if c.kind == kind]
        found = [100 * c.by_level[LEVELS[0]] for c in seeds]
        ratio = geometric_mean([c.ratio for c in seeds])
        rows.append([f"`{kind}`", figure(min(found), ".1f"), figure(max(found), ".1f"), figure(ratio)])
    return ["wave", "coverage, %: least", "most", "score ratio, geometric mean"], rows


def _checks(groups: dict[str, list[Coverage]], everything: list[Coverage]) -> list[Check]:
    checks = []
    for name, group in groups.items():
        bound, aim = (0.60, 0.54) if name == "waves" else (0.65, 0.60)
        ratio = geometric_mean([c.ratio for c in group])
        checks.append(Check(f"interval score against rolling conformal, {name}", ratio, bound, aim))
    for level in LEVELS:
        off = max(abs(c.by_level[level] - level) for c in everything)
        checks.append(Check(f"{100 * level:g} % intervals: points off, the most", 100 * off, 100 * ALLOWED[level]))
    steady = 100 * float(np.mean([c.steady for c in everything]))
    lowest = 100 * min(c.lowest for c in everything)
    return [
        *checks,
        Check("windows of 500 inside 84–96 %: % of the series", steady, 95, least=True, form=".0f"),
        Check("windows of 500: lowest coverage, %", lowest, 80, least=True, form=".1f"),
        Check("interval score against rolling conformal, the most", max(c.ratio for c in everything), 1.06),
    ]
