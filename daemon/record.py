"""What one commit of the journal is in bytes: the steps since the last one, each as it was given to the pipeline.

A step is its batch, its `now`, and the forecasts of the RNN. Those come from a matrix product, whose last bits depend
on the machine; all else is computed again, to the bit, from the batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..models.expert import Products
from .batch import Batch, Parcel

#: A longer name, or one with unprintable characters, is refused whatever it says; it is kept as an empty one.
NAME_MAX = 1024


class Damaged(ValueError):
    """Stored bytes are not what was stored; the message says where and how it was seen."""


class Foreign(ValueError):
    """Stored by a newer forecastd, or by another program: it is left as it is; the message says what to do."""


@dataclass(slots=True)
class Entry:
    """One step. `taken`, shape (n,), says which samples were applied (None: all of them); `recorded` holds the
    RNN's forecasts, float64, one array a chunk of rows, in the order they were made.
    """

    step: int
    now: float
    batch: Batch
    recorded: Sequence[Products]
    taken: NDArray[np.bool_] | None = None

    @property
    def weight(self) -> int:
        """Bytes it holds in memory, roughly."""
        return 256 + 64 * len(self.batch) + 8 * sum(map(np.size, self.recorded))


class _Line(msgspec.Struct, array_like=True, gc=False):
    """An entry in the blob. Arrays are little-endian; `ids` are rows of the table of names, or the marks of
    `_strange`.
    """

    now: float
    ids: bytes
    value: bytes
    time: bytes
    parcels: list[list[Any]]
    refused: dict[str, int]
    strange: dict[int, str]
    recorded: list[tuple[list[int], bytes]]
    taken: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Line])


class Encoder:
    """Turns entries into blobs. `rows` is the pipeline's table of names: it may have grown since, but never
    changes what it has.
    """

    def __init__(self, rows: Mapping[str, int]) -> None:
        self.rows = rows
        self._series: list[str] = []
        self._ids = b""

    def blob(self, entries: Sequence[Entry]) -> bytes:
        """The entries, whose steps follow one another, as bytes."""
        return _encoder.encode([self._line(entry) for entry in entries])

    def _line(self, entry: Entry) -> _Line:
        batch = entry.batch
        ids, strange = self._names(batch.series)
        return _Line(
            now=entry.now,
            ids=ids,
            value=np.ascontiguousarray(batch.value, "<f8").tobytes(),
            time=b"" if np.isnan(batch.time).all() else np.ascontiguousarray(batch.time, "<f8").tobytes(),
            parcels=[_packed(parcel) for parcel in batch.parcels],
            refused=batch.refused,
            strange=strange,
            recorded=[(list(np.shape(a)), np.ascontiguousarray(a, "<f8").tobytes()) for a in entry.recorded],
            taken=b"" if entry.taken is None or entry.taken.all() else np.packbits(entry.taken).tobytes(),
        )

    def _names(self, series: list[str]) -> tuple[bytes, dict[int, str]]:
        """The rows of the names, and by place those that have none: they were refused."""
        # columns of the same header come with the very same list
        if series is self._series:
            return self._ids, {}
        try:
            ids = np.array(list(map(self.rows.__getitem__, series)), "<u4").tobytes()
        except KeyError:
            known = [self.rows.get(name, -1) for name in series]
            strange = {place: _strange(series[place]) for place, row in enumerate(known) if row < 0}
            return np.array(known, "<i4").tobytes(), strange
        self._series, self._ids = series, ids
        return ids, {}


def decode(blob: bytes, step: int, names: Sequence[str]) -> list[Entry]:
    """The entries of a blob whose first step is `step`; `names` are the names by row. Damaged where it is none."""
    try:
        return [_entry(line, step + k, names) for k, line in enumerate(_decoder.decode(blob))]
    except (msgspec.DecodeError, ValueError, LookupError, TypeError) as error:
        raise Damaged(f"the commit at step {step} cannot be read: {error}") from None


def _entry(line: _Line, step: int, names: Sequence[str]) -> Entry:
    ids = np.frombuffer(line.ids, "<i4")
    n = len(ids)
    if line.strange:
        series = [names[row] if row >= 0 else line.strange[place] for place, row in enumerate(ids.tolist())]
    else:
        series = list(map(names.__getitem__, ids.tolist()))
    value = np.frombuffer(line.value, "<f8")
    time = np.frombuffer(line.time, "<f8") if line.time else np.full(n, np.nan)
    if len(value) != n or len(time) != n or (n and ids.min() < -1):
        raise ValueError("its columns differ in length")
    parcels = [_unpacked(parcel) for parcel in line.parcels]
    batch = Batch(series, value, time, parcels, line.refused, ids.astype(np.intp))
    recorded = [np.frombuffer(raw, "<f8").reshape(shape) for shape, raw in line.recorded]
    taken = np.unpackbits(np.frombuffer(line.taken, np.uint8), count=n).astype(np.bool_) if line.taken else None
    return Entry(step, line.now, batch, recorded, taken)


def checksum(data: bytes | memoryview, *fields: object) -> int:
    """CRC-32 of the bytes and of what stands beside them."""
    return zlib.crc32(data, zlib.crc32(repr(fields).encode()))


def _strange(name: str) -> str:
    return name if len(name) <= NAME_MAX and name.isprintable() else ""


def _packed(parcel: Parcel) -> list[Any]:
    # Where replies go is of no use later. A name out of JSON may hold half a surrogate pair, which is no UTF-8.
    start, stop, _, lossless, producer, *rest = parcel
    return [start, stop, lossless, producer.encode("utf-8", "surrogatepass"), *rest]


def _unpacked(packed: list[Any]) -> Parcel:
    start, stop, lossless, producer, *rest = packed
    return Parcel(start, stop, b"", lossless, producer.decode("utf-8", "surrogatepass"), *rest)
