"""Rows of arrays that grow."""

from __future__ import annotations

import numpy as np

from forecastd.models.table import Column, Table

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
