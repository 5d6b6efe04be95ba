"""Whether intervals hold what they say: coverage per series and window, and their score against rolling conformal
around naive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forecastd.daemon.grade import aligned, geometric_mean, winkler
from forecastd.daemon.replay import Trace

from .corpus import LEVELS, SCORE_FROM, Size, real, waves
from .section import Check, Section, figure

WINDOW = 500
ALLOWED = {0.9: 0.01, 0.8: 0.015, 0.95: 0.01, 0.99: 0.007}


class Coverage:
    """One series: coverage by level, its extremes over windows of 500 samples at the main level, and the interval
    score's ratio."""

    def __init__(self, trace: Trace) -> None:
        a = aligned(trace, int(SCORE_FROM * len(trace)))
        covered = a.covered
        self.name = trace.name
        self.by_level = dict(zip(trace.levels, covered.mean(0).tolist(), strict=True))
        sums = np.convolve(covered[:, 0].astype(np.float64), np.ones(min(WINDOW, len(covered))), "valid")
        self.lowest, self.highest = sums.min() / min(WINDOW, len(covered)), sums.max() / min(WINDOW, len(covered))
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
    rows = []
    for level in sorted(LEVELS):
        for name, group in groups.items():
            found = [c.by_level[level] for c in group]
            cells = [figure(100 * x, ".1f") for x in (min(found), float(np.median(found)), max(found))]
            rows.append([f"{100 * level:g} %", name, *cells])
    windows, checks = [], []
    for name, group in groups.items():
        inside = sum(c.lowest >= 0.84 and c.highest <= 0.96 for c in group)
        ratios = [c.ratio for c in group]
        lowest, highest = min(c.lowest for c in group), max(c.highest for c in group)
        cells = [f"{inside} of {len(group)}", figure(100 * lowest, ".1f"), figure(100 * highest, ".1f")]
        windows.append(
            [name, *cells, figure(geometric_mean(ratios)), figure(float(np.median(ratios))), figure(max(ratios))]
        )
        bound, aim = (0.60, 0.54) if name == "waves" else (0.65, 0.60)
        checks.append(Check(f"interval score against rolling conformal, {name}", geometric_mean(ratios), bound, aim))
    worst = {level: max(abs(c.by_level[level] - level) for c in everything) for level in LEVELS}
    inside_share = np.mean([c.lowest >= 0.84 and c.highest <= 0.96 for c in everything])
    checks += [
        Check(f"{100 * level:g} % intervals: points off, the most", 100 * worst[level], 100 * ALLOWED[level])
        for level in LEVELS
    ]
    checks += [
        Check("windows of 500 inside 84–96 %: % of the series", 100 * float(inside_share), 95, least=True, form=".0f"),
        Check(
            "windows of 500: lowest coverage, %", 100 * min(c.lowest for c in everything), 80, least=True, form=".1f"
        ),
        Check("interval score against rolling conformal, the most", max(c.ratio for c in everything), 1.06),
    ]
    odd = [
        c
        for c in everything
        if not (c.lowest >= 0.84 and c.highest <= 0.96) or abs(c.by_level[0.9] - 0.9) > ALLOWED[0.9]
    ]
    notes = "; ".join(f"{c.name} {figure(100 * c.lowest, '.1f')} … {figure(100 * c.highest, '.1f')} %" for c in odd)
    return Section(
        "Intervals",
        f"One step ahead, over the last 70 %; every window of {WINDOW} samples counts. The interval score is given as "
        f"a ratio to that of the last value ± the "
        f"quantile of its last {WINDOW} errors."
        + (f" Outside in some window or as a whole: {notes}." if notes else ""),
        [
            (["level", "series", "coverage, %: least", "median", "most"], rows),
            (
                [
                    "series",
                    "windows inside 84–96 %",
                    "lowest",
                    "highest",
                    "score ratio, geometric mean",
                    "median",
                    "most",
                ],
                windows,
            ),
        ],
        checks,
    )
