"""What enters and leaves the pipeline: samples as columns in, forecasts as columns and replies out.

The wire fills a `Batch`; `pipeline.step` turns it into `Effects`; the engine sends those. Nothing here touches a
socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..models.expert import Products
from ..models.lessons import Lesson
from ..models.weights import Weights
from .lineage import Change

Floats = NDArray[np.float64]

#: Why a sample is refused; each has a counter, and a producer that numbers its samples is told.
REASONS = (
    "malformed",
    "oversize",
    "nonfinite",
    "duplicate",
    "late",
    "future",
    "name",
    "too_many_series",
    "too_many_producers",
    "unauthorised",
    "overload",
)


#: Of a batch of one sample: it was applied.
_LONE = np.ones(1, np.bool_)
_LONE.flags.writeable = False


class Parcel(NamedTuple):
    """Samples `start`…`stop` of a batch, which came together from one producer.

    `seq` is the number of the first one (each next is one higher), 0 where the producer does not number them. `peer`
    is where replies go (empty: nowhere); `lossless` says that what is not accepted will be sent again (ROUTER), so a
    jump in `seq` is held off there and merely counted elsewhere.

    A parcel with `refused` holds no samples: it speaks for `numbers` numbers from `seq` on that the wire could make
    no samples of, so that they count as dealt with and the next one is expected."""

    start: int
    stop: int
    peer: bytes = b""
    lossless: bool = False
    producer: str = ""
    epoch: int = 0
    seq: int = 0
    refused: str = ""
    numbers: int = 0

    @property
    def size(self) -> int:
        """How many numbers it takes up."""
        return self.numbers if self.refused else self.stop - self.start


class Batch:
    """Samples in the order they came. `value` and `time` are float64 of shape (n,), given as such or as lists; time in
    seconds since the epoch, NaN where the producer gave none. `parcels` cover 0…n in order. `refused` counts what the
    wire could not turn into samples. `rows`, shape (n,), are the rows that the series have or will get, negative where
    they have none; None where only the names say it. The journal knows them, and spares a replay to look them up."""

    __slots__ = ("_time", "_value", "parcels", "refused", "rows", "series")

    def __init__(
        self,
        series: list[str],
        value: Floats | list[float],
        time: Floats | list[float],
        parcels: list[Parcel],
        refused: dict[str, int] | None = None,
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        self.series, self._value, self._time, self.parcels, self.rows = series, value, time, parcels, rows
        self.refused: dict[str, int] = refused or {}

    @property
    def value(self) -> Floats:
        if isinstance(self._value, list):
            self._value = np.array(self._value, np.float64)
        return self._value

    @property
    def time(self) -> Floats:
        if isinstance(self._time, list):
            self._time = np.array(self._time, np.float64)
        return self._time

    def sample(self, place: int) -> tuple[float, float]:
        """Value and time of one sample, without the price of an array where there was none."""
        return float(self._value[place]), float(self._time[place])

    def __len__(self) -> int:
        return len(self.series)


class Reply(NamedTuple):
    """What a producer is told: all up to `ack` are dealt with, or sample `seq` was refused."""

    peer: bytes
    ack: int = 0
    refused: str = ""
    seq: int = 0


@dataclass(slots=True)
class Forecasts:
    """The forecasts of one round, one row a sample. H: horizon, K: experts, L: levels.

    `mean`, shape (n, H), `lower` and `upper`, shape (n, H, L), are NaN where the series is still warming; `experts`
    and `weights` have shape (n, H, K). `time` and `value` are those of the sample just seen, `step` the seconds
    between samples (NaN: not known yet). `count` is the number of samples the series has had, this one included."""

    row: NDArray[np.intp]
    series: list[str]
    time: Floats
    value: Floats
    step: Floats
    count: NDArray[np.int64]
    ready: NDArray[np.bool_]
    mean: Floats
    lower: Floats
    upper: Floats
    experts: Floats
    weights: Floats
    score: Floats
    flag: NDArray[np.bool_]
    model: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.series)


class Forecast(msgspec.Struct, gc=False):
    """One row of `Forecasts`: its fields in plain numbers, lists where a row has an axis more."""

    row: int
    series: str
    time: float
    value: float
    step: float
    count: int
    ready: bool
    mean: list[float]
    lower: list[list[float]]
    upper: list[list[float]]
    experts: list[list[float]]
    weights: list[list[float]]
    score: float
    flag: bool
    model: int


class Alone(Forecasts):
    """The forecast of a sample that came alone: `one` is all of it, and a column is made only if it is asked for."""

    __slots__ = ("one",)

    def __init__(self, one: Forecast) -> None:
        self.one = one
        self.series = [one.series]

    def __getattr__(self, name: str) -> Any:
        return np.array([getattr(self.one, name)])


class Effects(msgspec.Struct):
    """What a step asks the engine to do: publish these forecasts, send these replies, tell these events.

    `taken`, shape (n,), says which samples of the batch were applied: a lone one if nothing else is said. `recorded`
    is what the RNN said, in the order in which the step asked it: the journal keeps it for replays. `copies` are those
    that were given to series (None: taken from them) since the step before, by row, `changes` those of the shared
    model; the engine puts them in, so that the journal keeps them with it. `lessons` is what the rounds have taught,
    for whoever learns or judges by it: whole once the pipeline has finished, empty where it does not learn. `refused`,
    where it is not None, says that nothing but counting was done: so many samples of no number, by reason."""

    taken: NDArray[np.bool_] = msgspec.field(default_factory=lambda: _LONE)
    forecasts: list[Forecasts] = []
    replies: list[Reply] = []
    events: list[dict[str, Any]] = []
    recorded: list[Products] = []
    copies: dict[int, Weights | None] = {}
    changes: list[Change] = []
    lessons: list[Lesson] = []
    refused: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Forecasts]:
        return iter(self.forecasts)
