"""Rows of arrays that grow."""

from __future__ import annotations

from functools import partial
from weakref import ref

import numpy as np
import pytest

from forecastd.models import frozen
from forecastd.models import table as table_module
from forecastd.models.table import Column, Rows, Table

COLUMNS = {"a": Column(), "b": Column((2,), 7.0), "n": Column(dtype=np.int64)}


def test_growing_keeps_the_rows_and_makes_new_ones_as_declared() -> None:
    table = Table(COLUMNS, capacity=2)
    table.append(2)
    table.arrays["b"][1] = 3.0
    assert table.append(5) == slice(2, 7)
    np.testing.assert_array_equal(table["b"], [[7, 7], [3, 3], *[[7, 7]] * 5])
    assert table["n"].dtype == np.int64


def test_a_large_table_grows_by_a_leap_and_its_new_rows_are_as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in memory that was in use before."""
    monkeypatch.setattr(table_module, "SMALL", 8)
    monkeypatch.setattr(table_module, "RESERVED", 5_000)
    table = Table(COLUMNS, capacity=8)
    table.append(8)
    table.arrays["b"][...] = 3.0
    table.append(1)
    assert table.capacity == 5_000
    np.testing.assert_array_equal(table["b"], [*[[3, 3]] * 8, [7, 7]])
    table.append(4_990)
    assert (table["b"][8:] == 7.0).all() and (table["n"] == 0).all()
    table.append(2)
    assert table.capacity == 10_000


def test_a_slice_is_a_view_and_stays_one_after_growth() -> None:
    table = Table(COLUMNS, capacity=2)
    table.append(2)
    table.take(slice(0, 1))["a"][0] = 1.0
    table.append(9)
    table.take(slice(0, 1))["a"][0] += 1.0
    assert table["a"][0] == 2.0


def test_rows_by_index_are_copies_until_they_are_put_back() -> None:
    table = Table(COLUMNS)
    table.append(4)
    rows = np.array([3, 1])
    taken = table.take(rows)
    taken["a"][:] = [30.0, 10.0]
    assert not table["a"].any()
    table.put(rows, taken)
    np.testing.assert_array_equal(table["a"], [0, 10, 0, 30])


def test_a_reset_row_is_as_new() -> None:
    table = Table(COLUMNS)
    table.append(2)
    table.arrays["b"][:] = 0.0
    table.reset(slice(0, 1))
    np.testing.assert_array_equal(table["b"], [[7, 7], [0, 0]])


MIXED = {"a": Column(), "n": Column(dtype=np.int64), "pair": Column((2, 1)), "whole": Column((3,), plain=False)}


def test_a_lent_row_is_in_plain_numbers_and_back_in_the_table_for_whoever_asks() -> None:
    table = Table(MIXED)
    table.append(2)
    table.arrays["pair"][1] = [[1.0], [2.0]]
    row = table.lend(1)
    assert (row.a, row.n, row.pair, row.whole.shape) == (0.0, 0, [1.0, 2.0], (3,))
    row.a, row.n, row.pair = 0.5, 7, [3.0, 4.0]
    row.late.append(lambda: row.whole.fill(9.0))
    assert table.lend(1) is row
    assert table["a"].tolist() == [0.0, 0.5]
    assert table["n"].dtype == np.int64
    assert table["pair"][1].tolist() == [[3.0], [4.0]]
    assert table["whole"][1].tolist() == [9.0, 9.0, 9.0], "what was late is done"


def test_what_is_written_into_the_arrays_is_in_the_row_when_it_is_lent_again() -> None:
    table = Table(MIXED)
    table.append(2)
    table.lend(0).memo["sum"] = 0.0
    table.arrays["a"][0] = 4.0
    assert table.lend(0).a == 4.0
    assert not table.lend(0).memo


@pytest.mark.parametrize("rows", [slice(1, 3), np.array([2, 1])])
def test_what_is_written_into_some_rows_leaves_the_others_lent(rows: Rows) -> None:
    table = Table(MIXED)
    table.append(4)
    for number in range(4):
        table.lend(number).memo["sum"] = 0.0
        table.lend(number).pair = [1.0, 2.0]
    taken = table.take(rows)
    taken["pair"] += 1.0
    table.put(rows, taken)
    assert [table.lend(number).pair for number in range(4)] == [[1.0, 2.0], [2.0, 3.0], [2.0, 3.0], [1.0, 2.0]]
    assert [bool(table.lend(number).memo) for number in range(4)] == [True, False, False, True]


def test_a_frozen_table_stays_as_it_was_whatever_way_it_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "PIECE", 3)
    random = np.random.default_rng(0)
    table = Table(MIXED, capacity=4)
    table.append(4)
    finished = 0
    for _ in range(300):
        kept = table.freeze()
        before = {name: table[name].copy() for name in MIXED}
        for _ in range(int(random.integers(0, 12))):
            rows: Rows = np.unique(random.integers(0, table.length, 3))
            match int(random.integers(0, 6)):
                case 0:
                    row = table.lend(int(rows[0]))
                    row.a, row.pair = random.random(), [1.0, random.random()]
                    row.late.append(partial(row.whole.fill, random.random()))
                case 1:
                    rows = slice(int(rows[0]), int(rows[-1]) + 1)
                    table.take(rows)["n"][...] = random.integers(9)
                case 2:
                    table.put(rows, {"a": random.random(len(rows)), "whole": random.random((len(rows), 3))})
                case 3:
                    table.reset(rows)
                case 4 if table.length < 40:
                    table.append(2)
                case _:
                    kept.advance()
        finished += kept.whole
        while not kept.whole:
            kept.advance()
        for name, column in before.items():
            np.testing.assert_array_equal(kept.columns[name], column, err_msg=name)
        table.arrays["a"][...] = random.random()
    assert 10 < finished < 290


def test_a_frozen_table_is_copied_before_all_of_it_is_written_to() -> None:
    table = Table(MIXED)
    table.append(3)
    kept = table.freeze()
    table.arrays["a"][...] = 1.0
    again = table.freeze()
    assert kept.whole and not kept.columns["a"].any()
    table.freeze()
    assert again.whole, "another one has the last copied"


def test_a_frozen_table_is_gone_when_nobody_wants_it_any_more() -> None:
    table = Table(MIXED)
    table.append(3)
    kept = table.freeze()
    kept.advance()
    gone = ref(kept)
    del kept
    assert gone() is None
    table.lend(0).a = 1.0
    assert table["a"][0] == 1.0


def test_who_reads_between_two_samples_takes_no_row_away() -> None:
    table = Table(MIXED)
    table.append(2)
    row = table.lend(0)
    row.a, row.memo["sum"] = 4.0, 4.0
    assert table["a"].tolist() == [4.0, 0.0]
    assert table.lend(0).memo == {"sum": 4.0}
    with pytest.raises(ValueError, match="read-only"):
        table["a"][0] = 5.0


def test_many_rows_may_be_lent_while_the_table_grows() -> None:
    table = Table(MIXED, capacity=2)
    for number in range(200):
        table.append()
        table.lend(number).n = number
        table.lend(number // 2).a += 1.0
    np.testing.assert_array_equal(table["n"], np.arange(200))
    np.testing.assert_array_equal(table["a"], np.bincount(np.arange(200) // 2, minlength=200))


def test_more_rows_lent_in_turn_than_are_kept_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "VIEWS_MAX", 8)
    table = Table(MIXED)
    table.append(20)
    for _ in range(3):
        for number in range(20):
            table.lend(number).n += number
    np.testing.assert_array_equal(table["n"], 3 * np.arange(20))


def test_a_row_takes_no_attribute_that_is_no_column() -> None:
    table = Table(MIXED)
    table.append(1)
    with pytest.raises(AttributeError):
        table.lend(0).misspelt = 1.0
