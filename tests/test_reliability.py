"""The page about faults names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()


def rows() -> dict[int, str]:
    """The rows of the fault table by number."""
    return {int(number): rest for number, rest in re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.M)}


def test_every_fault_has_a_row() -> None:
    assert sorted(rows()) == list(range(1, 33))


def test_each_row_names_tests_that_exist_or_says_that_there_is_none() -> None:
    known = {
        name for file in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    for number, row in rows().items():
        named = re.findall(r"`(test_\w+)`", row)
        assert named or "that of 3" in row or row.endswith("— "), f"row {number} names no test"
        assert set(named) <= known, f"row {number} names {set(named) - known}, which is no test"


def test_a_test_that_carries_the_number_of_a_fault_is_in_its_row() -> None:
    for file in TESTS.rglob("test_*.py"):
        for name in re.findall(r"^def (test_faults?_[\d_]+_\w+)", file.read_text(), re.M):
            for number in re.match(r"test_faults?_((?:\d+_)+)", name).group(1).strip("_").split("_"):  # type: ignore[union-attr]
                row = rows()[int(number)]
                assert name in row or "that of 3" in row or "those of 1" in row or _alike(row, number), (
                    f"{name}, {number}"
                )


def _alike(row: str, number: str) -> bool:
    """Whether the row names another test with that number: it need not name all of them."""
    return bool(re.search(rf"`test_faults?_(?:\d+_)*{number}_", row))
