"""Versions and champions: numbers that never mean another model, and who served before."""

from __future__ import annotations

from forecastd.daemon.lineage import Champion, Lineage, Version


def crown(lineage: Lineage, *numbers: int, root: str = "r", slot: str = "") -> None:
    for number in numbers:
        lineage.crown(number, root, "by_hand", now=1.0, step=1, slot=slot)


def filled() -> Lineage:
    lineage = Lineage()
    for sha256 in "abc":
        lineage.enter(sha256, 1.0, "imported", b"file")
    return lineage


def test_a_model_keeps_its_number_and_is_written_once() -> None:
    lineage = filled()
    assert lineage.enter("b", 2.0, "tuned", b"file") == (2, [])
    number, changes = lineage.enter("d", 2.0, "tuned", b"new")
    assert number == 4
    assert changes == [(Version(4, "d", 2.0, "tuned"), b"new", None)]


def test_a_number_that_was_used_is_never_used_again() -> None:
    """Also where versions in between cannot be read any more."""
    lineage = Lineage([Version(7, "g", 1.0, "tuned")])
    assert lineage.enter("h", 1.0, "tuned", b"")[0] == 8


def test_the_last_one_crowned_serves_and_the_other_one_before_it_is_its_predecessor() -> None:
    lineage = filled()
    assert lineage.champion() is None and lineage.predecessor() is None
    crown(lineage, 1)
    assert lineage.predecessor() is None
    crown(lineage, 2, 2, 3)
    champion = lineage.champion()
    assert champion is not None and champion.number == 3
    assert lineage.predecessor() == 2
    crown(lineage, 2)
    assert lineage.predecessor() == 3, "after a rollback it is the one that lost"


def test_another_root_begins_another_line() -> None:
    """What served before the settings named another model is no predecessor."""
    lineage = filled()
    crown(lineage, 1, 2)
    crown(lineage, 3, root="other")
    assert lineage.predecessor() is None


def test_slots_do_not_see_each_other() -> None:
    lineage = filled()
    crown(lineage, 1)
    crown(lineage, 2, 3, slot="boiler.*")
    crown(lineage, 2)
    assert (lineage.predecessor(), lineage.predecessor("boiler.*")) == (1, 2)


def test_a_champion_whose_version_is_gone_is_left_out() -> None:
    champions = [Champion(1.0, 1, "", number, "r", "by_hand", {}) for number in (1, 2)]
    lineage = Lineage([Version(1, "a", 1.0, "imported")], champions)
    champion = lineage.champion()
    assert champion is not None and champion.number == 1
