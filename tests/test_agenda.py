"""Which rows are tuned next, and why."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from forecastd.daemon.agenda import Agenda
from forecastd.daemon.settings import Learning


class Ripe:
    """A learner for which these rows are due, and any that is asked for."""

    def __init__(self, *rows: int) -> None:
        self.rows = rows

    def due(self, asked: Iterable[int] = ()) -> list[int]:
        return [*self.rows, *(row for row in asked if row not in self.rows)]


OPTIONS = Learning(cooldown_s=10.0)


def test_what_is_due_is_tuned_but_not_again_before_its_cool_down_is_over() -> None:
    """Each row has its own."""
    agenda, learner = Agenda(OPTIONS), Ripe(3, 4)
    assert agenda.due(learner, 0.0) == [3, 4]
    assert agenda.done(3, 0.0) == "samples"
    assert agenda.due(learner, 9.9) == [4]
    agenda.done(4, 9.9)
    assert agenda.due(learner, 10.0) == [3]


def test_what_was_asked_for_comes_first_and_says_why() -> None:
    """The first cause counts, and once."""
    agenda, learner = Agenda(OPTIONS), Ripe(3)
    agenda.ask([7], "drift")
    agenda.ask([7], "asked")
    assert agenda.due(learner, 0.0) == [7, 3]
    assert agenda.done(7, 0.0) == "drift"
    assert agenda.done(7, 20.0) == "samples"


def test_what_is_asked_for_waits_for_its_cool_down_too() -> None:
    """And is not forgotten."""
    agenda, learner = Agenda(OPTIONS), Ripe()
    agenda.done(7, 0.0)
    agenda.ask([7], "drift")
    assert agenda.due(learner, 5.0) == []
    assert agenda.due(learner, 10.0) == [7]


def test_everybody_is_all_that_were_tuned_before() -> None:
    """The others come anyway once they have taught enough."""
    agenda = Agenda(OPTIONS)
    agenda.done(1, 0.0)
    agenda.done(2, 0.0)
    agenda.ask(None, "asked")
    assert agenda.due(Ripe(), 10.0) == [1, 2]


def test_after_so_many_seconds_a_row_is_due_whatever_has_come() -> None:
    """Where the settings say so."""
    agenda = Agenda(msgspec.structs.replace(OPTIONS, every_s=60.0))
    agenda.done(1, 0.0)
    assert agenda.due(Ripe(), 59.0) == []
    assert agenda.due(Ripe(), 60.0) == [1]
    assert agenda.done(1, 60.0) == "time"
    assert agenda.due(Ripe(), 61.0) == []
