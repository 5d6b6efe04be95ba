"""The picture of a backtest: a row a series, the end of it close up, and error, coverage and weights over the whole
run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .grade import Grade, aligned, first_scored, grade
from .replay import Trace
from .report import trailing_mean

#: Series in one picture; the least skilful ones where there are more.
ROWS_MAX = 30
CLOSE_UP = 150
INK, SOFT, BLEND, ALARM = "#1b1f27", "#98a0ad", "#2563eb", "#dc2626"
EXPERTS = {
    "naive": "#98a0ad",
    "ses": "#d97706",
    "ar2": "#84a815",
    "ar10": "#0f9f6e",
    "ar": "#0e7490",
    "rnn": "#c026d3",
    "path": "#e11d74",
    "seasonal": "#7c5cdb",
}
OTHER = "#78716c"


def png(traces: Sequence[Trace], score_from: float) -> bytes:
    """The picture as PNG."""
    graded = [(trace, grade(trace, score_from)) for trace in traces]
    rows = [pair for pair in graded if pair[1].scored]
    if len(rows) > ROWS_MAX:
        rows = sorted(rows, key=lambda pair: np.nan_to_num(pair[1].skill, nan=np.inf))[:ROWS_MAX]
    figure = Figure(figsize=(16, 2.3 * max(len(rows), 1) + 0.7), dpi=100, layout="constrained")
    figure.suptitle(_title(len(rows), len(graded)), fontsize=11, color=INK)
    grid = figure.subplots(max(len(rows), 1), 4, squeeze=False, width_ratios=(2.4, 1.3, 1, 1))
    for (trace, g), axes in zip(rows, grid, strict=False):
        _close_up(axes[0], trace, g)
        _curves(axes[1:], trace, score_from)
    for axis, text in zip(grid[0], ("", "RMSE", "coverage", "weights"), strict=True):
        if text:
            axis.set_title(text, fontsize=9, color=INK)
    if not rows:
        for axis in grid[0]:
            axis.set_axis_off()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _title(shown: int, there: int) -> str:
    if shown == there:
        return "backtest: truth (black), forecast (blue), interval; grey ground is not scored"
    return f"backtest: {shown} of {there} series, the least skilful ones that were scored"


def _close_up(axis: Any, trace: Trace, g: Grade) -> None:
    a = aligned(trace)
    keep = a.target >= len(trace) - CLOSE_UP
    at = a.target[keep]
    axis.fill_between(at, a.lower[keep, 0], a.upper[keep, 0], color=BLEND, alpha=0.18, linewidth=0)
    axis.plot(at, a.mean[keep], color=BLEND, linewidth=1.4)
    axis.plot(at, a.value[keep], color=INK, linewidth=0.7, marker=".", markersize=3)
    flagged = at[trace.flag[at]]
    axis.plot(flagged, trace.value[flagged], "o", color=ALARM, fillstyle="none", markersize=8)
    name = g.series if len(g.series) <= 46 else g.series[:45] + "…"
    skill = "no skill: it is flat" if np.isnan(g.skill) else f"skill {g.skill:.3f}, relMAE {g.relmae:.3f}"
    axis.set_title(f"{name}: {skill}, {g.coverage:.1%} inside {g.level:.3g}", fontsize=9, color=INK, loc="left")
    _plain(axis)


def _curves(axes: Any, trace: Trace, score_from: float) -> None:
    n = len(trace)
    look_back = int(np.clip(n // 20, 50, 500))
    at = np.unique(np.linspace(min(look_back, n - 1), n - 1, 200).astype(np.intp))
    a = aligned(trace)
    known = np.full((n, 3), np.nan)
    known[a.target, 0], known[a.target, 1], known[a.target, 2] = a.error**2, a.naive**2, a.covered[:, 0]
    mean = trailing_mean(known, look_back, at)
    error, coverage, weights = axes
    error.plot(at, np.sqrt(mean[:, 1]), color=SOFT, linewidth=1.2, linestyle=":", label="naive")
    error.plot(at, np.sqrt(mean[:, 0]), color=BLEND, linewidth=1.4, label="blend")
    error.set_ylim(bottom=0)
    coverage.axhline(trace.levels[0], color=SOFT, linewidth=1, linestyle=":")
    coverage.plot(at, mean[:, 2], color=BLEND, linewidth=1.4)
    coverage.yaxis.set_major_formatter(PercentFormatter(1.0))
    shares = np.nan_to_num(trailing_mean(trace.weights, max(look_back // 4, 1), at))
    shades = [EXPERTS.get(name, OTHER) for name in trace.experts]
    weights.stackplot(at, *shares.T, labels=trace.experts, colors=shades, linewidth=0)
    weights.set_ylim(0, 1)
    weights.yaxis.set_major_formatter(PercentFormatter(1.0))
    for axis in axes:
        axis.axvspan(0, first_scored(trace, score_from), color=SOFT, alpha=0.13, linewidth=0)
        axis.set_xlim(0, n)
        _plain(axis)
    error.legend(fontsize=7, frameon=False, loc="upper right")
    weights.legend(fontsize=6, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)


def _plain(axis: Any) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(SOFT)
    axis.tick_params(labelsize=7, colors=INK, length=2)
    axis.grid(color=SOFT, alpha=0.25, linewidth=0.5)
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
