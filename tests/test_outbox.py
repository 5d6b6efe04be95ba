"""The outbox and its spool: at whatever moment the process ends, the spool holds the window as it was."""

from __future__ import annotations

import tempfile
from array import array
from math import nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from forecastd.producers.block import Block
from forecastd.producers.outbox import Outbox, WindowFull
from forecastd.producers.spool import Spool
from forecastd.producers.window import Window


def standing(window: Window) -> tuple[Any, ...]:
    """All that matters of a window to its next life."""
    samples = [
        (name, value, time)
        for block in window.blocks()
        for name, value, time in zip(
            [block.series] * len(block) if isinstance(block.series, str) else block.series,
            block.value,
            [*block.time] * (len(block) if len(block.time) == 1 else 1),
            strict=True,
        )
    ]
    return window.acked, window.ever, window.waiting, samples


class Lives(RuleBasedStateMachine):
    """All that can happen to an outbox, and after each step a look at what would be found if the process died now."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.spool = Spool(Path(self.folder.name) / "spool")
        self.outbox = Outbox(20, "drop_oldest", "plc-7", 3, self.spool)
        self.value = 0.0

    @rule()
    def add(self) -> None:
        self.value += 1
        self.outbox.add("a", self.value, self.value)

    @rule(n=st.integers(1, 30), names=st.booleans())
    def put(self, n: int, names: bool) -> None:
        values = array("d", [self.value + k + 1 for k in range(n)])
        self.value += n
        one_time = names and n % 2 == 0
        series: str | list[str] = [f"s{k}" for k in range(n)] if names else "b"
        self.outbox.put(Block(series, values, array("d", [7.0]) if one_time else array("d", values)))

    @rule()
    def send(self) -> None:
        self.outbox.messages()

    @rule(n=st.integers(0, 25))
    def hear(self, n: int) -> None:
        self.outbox.heard(self.outbox.window.acked + n, [])

    @rule()
    def rewind(self) -> None:
        self.outbox.rewind()

    @rule()
    def renumber(self) -> None:
        self.outbox.renumber()

    @rule()
    def rewrite(self) -> None:
        self.spool.rewrite(self.outbox._here(), self.outbox.window)

    @rule()
    def next_life(self) -> None:
        self.spool.close()
        self.spool = Spool(self.spool.path)
        self.outbox = Outbox(20, "drop_oldest", None, 99, self.spool)

    @invariant()
    def found_as_it_is(self) -> None:
        copy = Path(self.folder.name) / "copy"
        copy.write_bytes(self.spool.path.read_bytes())
        found, window = Spool(copy), Window(20)
        head = found.restore(window, 99)
        found.close()
        assert head is not None
        assert (head.producer, head.epoch) == ("plc-7", self.outbox.head.epoch)
        assert standing(window) == standing(self.outbox.window)

    def teardown(self) -> None:
        self.spool.close()
        self.folder.cleanup()


Lives.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestLives = Lives.TestCase


def test_when_full_is_one_of_three() -> None:
    with pytest.raises(ValueError, match="not 'wait'"):
        Outbox(10, "wait", "p", 1, None)  # type: ignore[arg-type]


def test_a_window_that_a_spool_overfills_takes_nothing_more_until_there_is_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    before = Outbox(20, "block", "p", 1, spool)
    for k in range(10):
        before.add("a", k, k)
    before.messages()
    spool.close()
    after = Outbox(4, "raise", "p", 1, Spool(tmp_path / "spool"))
    with pytest.raises(WindowFull, match="10 of 4"):
        after.add("a", 10, nan)
    assert after.window.room == -6
    assert [n for n, _ in after.messages()] == [2]
    after.heard(9, [])
    after.add("a", 10, 10)
    assert after.window.waiting == 2
    after.shut()
