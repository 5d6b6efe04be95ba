"""Several steps ahead: the blend against repeating the last value and against the lattice fed back, step by step."""

from __future__ import annotations

import numpy as np

from forecastd.daemon.grade import Grade, geometric_mean, grade
from forecastd.daemon.replay import Trace

from .corpus import SCORE_FROM, Size, real, waves
from .section import Check, Section, figure

HORIZON = 12


def table(size: Size) -> Section:
    """Skill for each step ahead, on the waves and the real series."""
    groups = {"waves": [trace for traces in waves(size, HORIZON).values() for trace in traces]}
    if real(size, HORIZON):
        groups["real"] = real(size, HORIZON)
    tables, checks = [], []
    for name, traces in groups.items():
        grades = [grade(trace, SCORE_FROM) for trace in traces]
        rows, least, lead = _rows(grades, traces)
        header = [
            "step ahead",
            "blend, median skill",
            "worst",
            "relMAE",
            "`ar` fed back, median",
            "worst",
            "`rnn` fed back, median",
            "`path`, median",
            "90 % held",
        ]
        tables.append(([f"{name}: {header[0]}", *header[1:]], rows))
        checks.append(
            Check(f"horizon {HORIZON}, {name}: median skill, the least of the steps", least, -0.01, least=True)
        )
        checks.append(
            Check(f"horizon {HORIZON}, {name}: median skill over `ar`'s, the least of the steps", lead, 0.0, least=True)
        )
    return Section(
        f"{HORIZON} steps ahead",
        "Each step has its own blend, intervals and scores. Skill is against repeating the last value that far.",
        tables,
        checks,
    )


def _rows(grades: list[Grade], traces: list[Trace]) -> tuple[list[list[str]], float, float]:
    rows, medians, leads = [], [], []
    for h in range(HORIZON):
        steps = [g.steps[h] for g in grades]
        blend, ar = [s.skill for s in steps], [s.experts["ar"].skill for s in steps]
        rnn, path = ([s.experts[name].skill for s in steps if name in s.experts] for name in ("rnn", "path"))
        medians.append(float(np.median(blend)))
        leads.append(float(np.median(blend) - np.median(ar)))
        rows.append(
            [
                str(h + 1),
                figure(medians[-1]),
                figure(min(blend)),
                figure(geometric_mean([s.relmae for s in steps])),
                figure(float(np.median(ar))),
                figure(min(ar)),
                figure(float(np.median(rnn))) if rnn else "–",
                figure(float(np.median(path))) if path else "–",
                figure(100 * float(np.median([s.coverage for s in steps])), ".1f"),
            ]
        )
    return rows, min(medians), min(leads)
