"""What a benchmark says: a table with its words, and what of it was promised."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Check:
    """One promise: `value` should be at most (or, with `least`, at least) `bound`, and better still `aim`."""

    what: str
    value: float
    bound: float
    aim: float | None = None
    least: bool = False
    form: str = ".3f"

    @property
    def kept(self) -> bool:
        return self._within(self.bound)

    def row(self) -> list[str]:
        """The cells of the table of promises."""
        sign = "≥" if self.least else "≤"
        aim = "" if self.aim is None else f"{sign} {figure(self.aim, self.form)}"
        reached = "" if self.aim is None else (", aim reached" if self._within(self.aim) else "")
        verdict = f"kept{reached}" if self.kept else "**missed**"
        return [self.what, figure(self.value, self.form), f"{sign} {figure(self.bound, self.form)}", aim, verdict]

    def _within(self, bound: float) -> bool:
        return bool(self.value >= bound if self.least else self.value <= bound)


@dataclass
class Section:
    """A heading, words (Markdown), tables (header and rows of cells) and the promises they show."""

    title: str
    words: str
    tables: list[tuple[Sequence[str], list[list[str]]]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def markdown(self) -> str:
        """The section as Markdown."""
        parts = [f"## {self.title}", self.words, *(table(header, rows) for header, rows in self.tables)]
        return "\n\n".join(part for part in parts if part)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


def figure(x: float, form: str = ".3f") -> str:
    """A number for a table; – where there is none."""
    return "–" if np.isnan(x) else format(x, form).replace("-", "−")


def machine() -> str:
    """What this runs on, in a line."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        model = f"{named['model name']}, {float(named['cpu MHz']) / 1000:.1f} GHz"
        if "avx512f" in named["flags"]:
            model += ", AVX-512"
    except (OSError, KeyError, ValueError):
        pass
    cores = os.cpu_count()
    return f"{cores} cores of {model}; {platform.system()}, Python {platform.python_version()}, numpy {np.__version__}"
