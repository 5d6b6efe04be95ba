"""Rows of arrays that grow."""

from __future__ import annotations

import numpy as np

from forecastd.models.table import LENT_MAX, Column, Table

COLUMNS = {"a": Column(), "b": Column((2,), 7.0), "n": Column(dtype=np.int64)}


def test_growing_keeps_the_rows_and_makes_new_ones_as_declared() -> None:
    table = Table(COLUMNS, capacity=2)
    table.append(2)
    table["b"][1] = 3.0
    assert table.append(5) == slice(2, 7)
    np.testing.assert_array_equal(table["b"], [[7, 7], [3, 3], *[[7, 7]] * 5])
    assert table["n"].dtype == np.int64


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
    table["b"][:] = 0.0
    table.reset(slice(0, 1))
    np.testing.assert_array_equal(table["b"], [[7, 7], [0, 0]])


MIXED = {"a": Column(), "n": Column(dtype=np.int64), "pair": Column((2, 1)), "whole": Column((3,), plain=False)}


def test_a_lent_row_is_in_plain_numbers_and_back_in_the_table_for_whoever_asks() -> None:
    table = Table(MIXED)
    table.append(2)
    table["pair"][1] = [[1.0], [2.0]]
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
    table["a"][0] = 4.0
    assert table.lend(0).a == 4.0
    assert not table.lend(0).memo


def test_many_rows_may_be_lent_while_the_table_grows() -> None:
    table = Table(MIXED, capacity=2)
    for number in range(3 * LENT_MAX):
        table.append()
        table.lend(number).n = number
        table.lend(number // 2).a += 1.0
    counts = np.bincount(np.arange(3 * LENT_MAX) // 2, minlength=3 * LENT_MAX)
    np.testing.assert_array_equal(table["n"], np.arange(3 * LENT_MAX))
    np.testing.assert_array_equal(table["a"], counts)


def test_rows_lent_in_turn_lose_nothing() -> None:
    table = Table(MIXED)
    table.append(2 * LENT_MAX)
    for _ in range(3):
        for number in range(2 * LENT_MAX):
            table.lend(number).n += number
    np.testing.assert_array_equal(table["n"], 3 * np.arange(2 * LENT_MAX))
