"""What an expert is: something that learns from each sample and forecasts the next ones, for all rows at once.

A new expert is one file with one class, and one line in `EXPERTS` of `ensemble.py`; the promises in
`tests/test_experts.py` then run against it without asking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .channels import Instant, Moment
from .table import Array, Column, Row

#: What a `Recorded` expert's products are kept as: of n rows; of one row in plain numbers.
Products = Array | list[list[float]]


class Expert(Protocol):
    """Two verbs over the rows of a table, and the same for one row in plain numbers, which is what a quiet stream waits
    for. An expert owns the columns it declares and may read those of `channels`.

    `recorded`: whether it is a `Recorded` one, too."""

    name: str
    recorded: bool
    columns: Mapping[str, Column]

    def update(self, state: Mapping[str, Array], moment: Moment) -> None:
        """Take in one sample a row, which `channels.update` has already seen."""

    def forecast(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """The next values, shape (n, horizon), float64; NaN where the expert has nothing to say."""

    def step_one(self, row: Row, now: Instant) -> float:
        """Both for one row, one step ahead, the window being full; what the forecast does not need may go to
        `row.late`."""


class Recorded(Expert, Protocol):
    """An expert whose forecasts come from matrix products, which need not give the same bits elsewhere: what those
    gave is kept for a replay. `forecast` is what `read` makes of `products`; for one row `update_one`, `products_one`
    and `read_one` stand in for `step_one`."""

    def products(self, state: Mapping[str, Array], moment: Moment, horizon: int) -> Array:
        """What is kept, float64, n rows; `state` is left as it is."""

    def read(self, state: Mapping[str, Array], moment: Moment, products: Array, horizon: int) -> Array:
        """The forecasts, shape (n, horizon)."""

    def update_one(self, row: Row, now: Instant) -> None:
        """`update` for one row; what `products_one` does not need may go to `row.late`."""

    def products_one(self, row: Row, now: Instant) -> list[float]:
        """The row of `products`, one step ahead."""

    def read_one(self, row: Row, products: list[float]) -> float:
        """The forecast."""
