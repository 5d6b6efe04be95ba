"""The figures of a backtest as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .contest import Match, Outcome
from .grade import Grade, Summary, summary

#: Columns where nobody says how wide the paper is.
WIDTH = 120


def show_grades(grades: Sequence[Grade], console: Console | None = None) -> None:
    """A line a series, and one for all."""
    console = console or _console()
    level = f"{100 * grades[0].level:g} %" if grades else ""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("series", overflow="fold")
    for name in ("n", "scored", "skill", "relMAE", "MASE", f"in {level}", "width"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best expert", no_wrap=True)
    for g in grades:
        table.add_row(
            g.series,
            f"{g.n:,}",
            f"{g.scored:,}",
            _skill(g.skill),
            _number(g.relmae),
            _number(g.mase),
            _percent(g.coverage),
            _short(g.width),
            _best(g),
        )
    console.print(table)
    console.print()
    console.print(sentence(summary(grades), level), highlight=False, soft_wrap=True)
    for line in remarks(grades):
        console.print(line, style="dim", highlight=False, soft_wrap=True)


def sentence(total: Summary, level: str) -> str:
    """The summary in words."""
    if not total.series:
        return "No series could be scored: they are flat, or shorter than the window."
    parts = [
        f"{total.series} series: median skill {_number(total.median_skill)}",
        f"worst {_number(total.worst_skill)} ({total.worst})",
        f"{total.above_zero:.0%} above zero",
        f"relMAE {_number(total.relmae)}",
        f"{level} intervals held {_percent(total.coverage)} (median)",
    ]
    return ", ".join(parts) + "."


def remarks(grades: Sequence[Grade]) -> list[str]:
    """What the figures leave out, a line each."""
    total = summary(grades)
    left_out = [f"{count} {word}" for count, word in ((total.flat, "flat"), (total.short, "too short")) if count]
    lines = [f"Not in the summary: {', '.join(left_out)}."] if left_out else []
    for g in grades:
        notes = [f"{count} refused as {reason}" for reason, count in g.refused.items()]
        if g.skipped:
            notes.append(f"{g.skipped} cells without a number skipped")
        if notes:
            lines.append(f"{g.series}: {', '.join(notes)}.")
    return lines


def show_matches(matches: Sequence[Match], total: Outcome, a: str, b: str, console: Console | None = None) -> None:
    """A line a series, and what they add up to."""
    console = console or _console()
    console.print(f"A: {a}\nB: {b}\n", highlight=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("series", overflow="fold")
    for name in ("scored", "skill A", "skill B", "RMSE B/A", "MAE B/A", "DM", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("better", no_wrap=True)
    for m in matches:
        one = m.steps[0]
        table.add_row(
            m.series,
            f"{one.scored:,}",
            _skill(m.a.skill),
            _skill(m.b.skill),
            _number(one.rmse_ratio),
            _number(one.mae_ratio),
            _number(one.statistic, 2),
            "<0.001" if one.p < 0.001 else _number(one.p),
            one.better.upper() or "·",
        )
    console.print(table)
    console.print()
    console.print(verdict(total), highlight=False, soft_wrap=True)


def verdict(total: Outcome) -> str:
    """Which is better, by how much, and how sure that is."""
    if not total.series:
        return "No series could be compared: they are flat, or shorter than the window."
    if not total.leader:
        return f"A and B forecast the same ({total.series} series)."
    name = total.leader.upper()
    ratio, absolute = total.rmse_ratio, total.mae_ratio
    if name == "A":
        ratio, absolute = 1 / ratio, 1 / absolute
    lead = f"{name} is better" if total.sure else f"{name} is ahead, which may be luck"
    lower = total.b_lower if name == "B" else total.a_lower
    text = f"{lead}: RMSE {_change(ratio)}, MAE {_change(absolute)}"
    if total.series == 1:
        return text + " (Diebold–Mariano test at 5 %)."
    undecided = total.series - total.a_better - total.b_better
    return (
        f"{text} (geometric mean of {total.series} series); lower RMSE on {lower} of {total.series} (sign test p = "
        f"{total.sign_p:.2g}). Beyond chance (Diebold–Mariano, 5 %): A on {total.a_better}, B on {total.b_better}, "
        f"undecided {undecided}."
    )


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _number(x: float, digits: int = 3) -> str:
    return "–" if np.isnan(x) else f"{x:.{digits}f}".replace("-", "−")


def _percent(x: float) -> str:
    return "–" if np.isnan(x) else f"{100 * x:.1f} %"


def _short(x: float) -> str:
    return "–" if np.isnan(x) else f"{x:.4g}"


def _skill(x: float) -> Text:
    return Text(_number(x), style="red" if x < 0 else "")


def _best(g: Grade) -> str:
    return f"{g.best} {_number(g.experts[g.best].skill)}" if g.best else "–"


def _change(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    return f"{abs(percent):.1f} % {'lower' if percent < 0 else 'higher'}"
