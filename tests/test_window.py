"""The window of unacknowledged samples: bounded, and whatever the connection does, each sample once and in order."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forecastd.producers.block import SAMPLES_MAX, Block
from forecastd.producers.window import Window


def block(*values: float) -> Block:
    return Block("s", array("d", values), array("d", values))


def filled(n: int, size: int = 100) -> Window:
    window = Window(size)
    for k in range(1, n + 1):
        window.add("s", k, k)
    return window


def taken(window: Window) -> list[tuple[int, list[float]]]:
    found = []
    while item := window.take():
        found.append((item[0], item[1].value.tolist()))
    return found


def test_samples_that_wait_together_travel_together_and_are_numbered_from_one() -> None:
    window = filled(3)
    assert taken(window) == [(1, [1, 2, 3])]
    window.add("s", 4, 4)
    window.put(block(5, 6))
    window.add("s", 7, 7)
    assert taken(window) == [(4, [4]), (5, [5, 6]), (7, [7])]
    assert (window.waiting, window.flying, window.total_sent) == (7, 7, 7)


def test_a_gathered_message_is_bounded() -> None:
    window = filled(SAMPLES_MAX + 1, size=10 * SAMPLES_MAX)
    assert [len(values) for _, values in taken(window)] == [SAMPLES_MAX, 1]


def test_at_most_half_the_window_is_under_way_and_an_acknowledgement_gives_credit() -> None:
    window = Window(8)
    for k in range(4):
        window.put(block(2 * k, 2 * k + 1))
    assert window.room == 0
    assert [first for first, _ in taken(window)] == [1, 3]
    assert not window.ready and window.unsent
    assert window.ack(2) == 2
    assert [first for first, _ in taken(window)] == [5]
    assert (window.room, window.flying) == (2, 4)


def test_a_block_larger_than_the_credit_is_cut_though_not_into_crumbs() -> None:
    window = Window(16)
    window.put(block(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12))
    assert taken(window) == [(1, [1, 2, 3, 4, 5, 6, 7, 8])]
    window.ack(1)
    assert taken(window) == []
    window.ack(2)
    assert taken(window) == [(9, [9, 10])]
    window.ack(8)
    assert taken(window) == [(11, [11, 12])]


def test_after_a_break_the_unacknowledged_come_again_in_order_before_the_fresh() -> None:
    window = filled(3)
    taken(window)
    window.put(block(4, 5))
    taken(window)
    window.ack(2)
    window.add("s", 6, 6)
    window.rewind()
    assert taken(window) == [(3, [3]), (4, [4, 5]), (6, [6])]
    assert (window.total_sent, window.total_resent) == (6, 3)


def test_an_acknowledgement_of_what_was_sent_on_an_earlier_connection_is_believed() -> None:
    window = filled(4)
    taken(window)
    window.rewind()
    assert window.ack(3) == 3
    assert taken(window) == [(4, [4])]


def test_an_acknowledgement_of_what_was_never_sent_is_not_believed() -> None:
    window = filled(2)
    taken(window)
    window.add("s", 3, 3)
    assert window.ack(99) == 2
    assert window.ack(99) == 0
    assert taken(window) == [(3, [3])]


def test_the_oldest_fresh_samples_are_dropped_without_a_hole_in_the_numbers() -> None:
    window = Window(8)
    for k in range(1, 9):
        window.put(block(k))
    assert [first for first, _ in taken(window)] == [1, 2, 3, 4]
    assert window.drop(2) == 2
    window.put(block(9, 10))
    window.ack(4)
    assert taken(window) == [(5, [7]), (6, [8]), (7, [9, 10])]
    assert window.total_dropped == 2


def test_what_was_sent_is_never_dropped() -> None:
    window = Window(8)
    window.put(block(1, 2, 3, 4))
    taken(window)
    assert window.drop(1) == 0
    window.rewind()
    assert window.drop(1) == 0
    assert window.waiting == 4


def test_half_a_block_can_be_dropped_and_half_a_block_acknowledged() -> None:
    window = Window(100)
    window.put(block(1, 2, 3))
    assert window.drop(1) == 1
    window.put(Block(["a", "b", "c"], array("d", [4, 5, 6]), array("d", [9])))
    taken(window)
    window.ack(3)
    window.rewind()
    item = window.take()
    assert item is not None
    first, rest = item
    assert (first, rest.series, rest.value.tolist(), rest.time.tolist()) == (4, ["b", "c"], [5, 6], [9])


def test_a_new_epoch_numbers_what_waits_from_one() -> None:
    window = filled(5)
    taken(window)
    window.ack(2)
    window.add("s", 6, 6)
    window.renumber()
    assert (window.acked, window.sent, window.ever, window.waiting) == (0, 0, 0, 4)
    assert taken(window) == [(1, [3, 4, 5]), (4, [6])]


def test_a_refusal_is_counted_once_and_does_not_stand_for_an_acknowledgement() -> None:
    window = filled(3)
    taken(window)
    window.refuse("late", 2)
    window.refuse("late", 2)
    window.refuse("late", 0)
    window.refuse("late", 4)
    assert window.refused == {"late": 1}
    assert window.waiting == 3
    window.ack(3)
    window.refuse("future", 3)
    assert window.refused == {"late": 1, "future": 1}
    assert (window.total_acked, window.total_told) == (3, 2)


def test_samples_marked_as_sent_in_an_earlier_life_come_again() -> None:
    window = filled(5)
    window.mark(3)
    window.mark(2)
    assert window.drop(9) == 2
    assert taken(window) == [(1, [1, 2, 3])]
    assert (window.total_sent, window.total_resent) == (0, 3)


def test_a_window_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Window(1)


class Line(RuleBasedStateMachine):
    """A window, a connection that loses and breaks, and a daemon that takes only the next number and may forget all."""

    def __init__(self) -> None:
        super().__init__()
        self.window = Window(20)
        self.made = 0
        self.dropped: set[int] = set()
        self.wire: list[tuple[int, Block]] = []
        self.position = 0
        self.stored: list[float] = []
        self.answers: list[int] = []
        self.confirmed = False

    @precondition(lambda self: self.window.room > 0)
    @rule(n=st.integers(1, 9), single=st.booleans())
    def sample(self, n: int, single: bool) -> None:
        values = [float(self.made + k + 1) for k in range(min(n, self.window.room))]
        self.made += len(values)
        if single:
            for value in values:
                self.window.add("s", value, value)
        else:
            self.window.put(block(*values))

    @rule(n=st.integers(1, 30))
    def drop(self, n: int) -> None:
        before = [value for each in self.window.blocks() for value in each.value]
        dropped = self.window.drop(n)
        after = [value for each in self.window.blocks() for value in each.value]
        gone = set(before) - set(after)
        assert len(gone) == dropped
        self.dropped |= gone

    @rule()
    def send(self) -> None:
        if item := self.window.take():
            self.wire.append(item)

    @precondition(lambda self: self.wire)
    @rule()
    def arrive(self) -> None:
        first, message = self.wire.pop(0)
        if first <= self.position + 1:
            new = message.value.tolist()[self.position + 1 - first :]
            self.stored += new
            self.position += len(new)
        self.answers.append(self.position)

    @precondition(lambda self: self.answers)
    @rule()
    def answer(self) -> None:
        ack = self.answers.pop(0)
        if not self.confirmed and ack < self.window.acked:
            self.wire.clear()
            self.answers.clear()
            self.window.renumber()
            self.position = 0
        self.confirmed = True
        self.window.ack(ack)

    @rule(forget=st.booleans())
    def cut(self, forget: bool) -> None:
        self.wire.clear()
        self.answers.clear()
        self.confirmed = False
        self.window.rewind()
        if forget and self.window.acked == self.position:  # a daemon without a journal, restarted
            self.position = 0

    @rule()
    def wait_too_long(self) -> None:
        self.window.rewind()

    @invariant()
    def in_order_once(self) -> None:
        assert self.stored == sorted(set(self.stored))

    @invariant()
    def bounded(self) -> None:
        assert self.window.waiting <= self.window.size
        assert 0 <= self.window.flying <= self.window.credit
        assert sum(map(len, self.window.blocks())) == self.window.waiting

    def teardown(self) -> None:
        """In the end all arrives that was not dropped."""
        for _ in range(200):
            self.cut(False)
            while self.window.ready:
                self.send()
            while self.wire:
                self.arrive()
            while self.answers:
                self.answer()
        assert self.window.waiting == 0
        assert self.stored == [v for v in range(1, self.made + 1) if v not in self.dropped]


Line.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLine = Line.TestCase
