"""The learning benchmark: its section of the page is written anew, and the rest of the page stays."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the package

from benchmarks.learning import HEADING, PAGE, QUICK, inserted, swaps  # noqa: E402
from benchmarks.section import Check, Section  # noqa: E402


def test_what_is_measured_takes_the_place_of_what_was_measured_before() -> None:
    """And comes last; what people wrote stays."""
    first, second = (Section(name, "Words.", [], [Check(name, 2.0, 1.0)]) for name in ("One", "Two"))
    text = inserted("# Learning\n\nProse.\n", [first], quick=False)
    assert text.startswith("# Learning\n\nProse.\n\n## Measured\n")
    assert "### One" in text and "| One | 2.000 | ≤ 1.000 |  | **missed** |" in text
    again = inserted(text, [second], quick=True)
    assert again.startswith("# Learning\n\nProse.\n\n## Measured\n")
    assert "One" not in again and "### Two" in again and "A quick run" in again
    assert again.count(HEADING) == 1


def test_what_a_swap_of_copies_costs_is_measured_and_has_a_promise() -> None:
    """Whether that is kept a machine with nothing else to do says, and the page."""
    section = swaps(QUICK)
    (check,) = section.checks
    assert section.title == "A swap" and check.value > 0.0 and check.bound == 3.0


def test_the_page_that_is_published_has_all_of_it() -> None:
    """Not of a quick run."""
    measured = PAGE.read_text().partition(HEADING)[2]
    assert "A quick run" not in measured
    assert all(title in measured for title in ("200 series at 1 Hz", "Round trips", "A swap", "Memory"))
