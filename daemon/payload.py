"""The payloads samples come in, each read on its own: JSON, number as text, columns. `daemon/wire.py` makes batches of
them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from .batch import Floats

NAN = math.nan
#: Characters of a number as text. Every float64 fits into 25, and a longer text costs time quadratic in its length.
NUMBER_BYTES_MAX = 64
#: Digits of an integer that is finite as a float64.
DIGITS_MAX = 310
#: Bytes of the column headers that are kept decoded (their names take some ten times that). A producer of columns
#: whose header has neither `seq` nor `time0` sends the same one again and again.
HEADER_BYTES_MAX = 1 << 20

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Label = Annotated[str, Meta(max_length=200)]


class Sample(msgspec.Struct, gc=False):
    """One sample as JSON: `time` in seconds since the epoch (None: when it arrived), `seq` 0 where none are
    numbered."""

    series: str
    value: float
    time: float | None = None
    seq: Count = 0
    producer: Label = ""
    epoch: Count = 0


class Header(msgspec.Struct, gc=False):
    """The first frame of columns, format 1: what the float64 values of the second frame are.

    `series` is one name (the values are its samples, oldest first) or a list of k names (the values are rounds of k,
    one value a name, oldest round first). The rounds' times are `time0 + i * step`, or a third frame, or the moment of
    arrival.
    """

    columns: Annotated[int, Meta(ge=1, le=1)]
    series: str | Annotated[list[str], Meta(min_length=1)]
    n: Count | None = None
    time0: float | None = None
    step: float | None = None
    seq: Count = 0
    producer: Label = ""
    epoch: Count = 0


class Numbered(msgspec.Struct, gc=False):
    """What is read of a payload that is refused: which numbers of which producer it would have been."""

    seq: Count = 0
    producer: Label = ""
    epoch: Count = 0
    n: Count | None = None


#: What reading a payload may raise.
Unreadable = (ValueError, RecursionError, msgspec.DecodeError)

samples = msgspec.json.Decoder(Sample | list[Sample]).decode
sample_of = partial(msgspec.convert, type=Sample)
from_frame = msgspec.json.Decoder(Numbered).decode
from_object = partial(msgspec.convert, type=Numbered)
_header = msgspec.json.Decoder(Header).decode


class Headers:
    """Headers by their bytes, decoded. Those that have `seq` or `time0` cannot come again and are not kept."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Header] = {}
        self._size = 0

    def decode(self, frame: bytes) -> Header:
        """The header in a frame; one of `Unreadable` is raised where there is none."""
        header = self._kept.get(frame)
        if header is None:
            header = _header(frame)
            if not header.seq and header.time0 is None and len(frame) <= HEADER_BYTES_MAX:
                self._keep(frame, header)
        return header

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._kept)

    def _keep(self, frame: bytes, header: Header) -> None:
        self._size += len(frame)
        if self._size > HEADER_BYTES_MAX:
            self._kept.clear()
            self._size = len(frame)
        self._kept[frame] = header


def columns(header: Header, frames: Sequence[bytes]) -> tuple[list[str], Floats, Floats] | None:
    """Names, values and times out of the frames of columns, each of length n; None where they do not fit together."""
    if any(len(frame) % 8 for frame in frames[1:]):
        return None
    value = np.frombuffer(frames[1], "<f8")
    n, k = len(value), 1 if isinstance(header.series, str) else len(header.series)
    if not n or n % k or (header.n is not None and header.n != n):
        return None
    rounds = n // k
    if len(frames) == 3:
        time = np.frombuffer(frames[2], "<f8")
        if len(time) != n:
            if len(time) != rounds:
                return None
            time = np.repeat(time, k)
    elif header.time0 is None:
        time = np.full(n, NAN)
    elif header.step is None and rounds > 1:
        return None
    else:
        with np.errstate(over="ignore"):
            time = np.repeat(header.time0 + np.arange(rounds) * (header.step or 0.0), k)
    names = [header.series] if isinstance(header.series, str) else header.series
    return (names if rounds == 1 else names * rounds), value, time


def loosely(frame: bytes, error: Exception) -> Any:
    """The payload as plain objects; NaN, Infinity and 1e400, which JSON lacks but many encoders write, become
    floats."""
    if isinstance(error, RecursionError):
        raise error
    # Single bytes are found at 30 GB/s, words at 1.
    if (b"N" in frame and b"NaN" in frame) or (b"I" in frame and b"Infinity" in frame) or "out of range" in str(error):
        return json.loads(frame, parse_int=_integer)
    return msgspec.json.decode(frame)


def _integer(text: str) -> float:
    """An integer that no field can take becomes a float, infinite in the end, so that it is refused by its size."""
    if len(text) < DIGITS_MAX:
        return int(text) if len(text) < 20 else float(text)
    return math.inf


def numbered(read: Callable[[Any], Numbered], payload: Any) -> Numbered | None:
    """The numbers of a payload that is refused, None where even those cannot be read. `read` is how its kind is read:
    `from_frame` or `from_object`."""
    try:
        return read(payload)
    except Unreadable:
        return None


def number(text: bytes) -> float | None:
    """A number as text, None where it is none; NaN and infinities are numbers here."""
    # Python's own grammar has underscores in numbers; nobody else's has.
    if len(text) > NUMBER_BYTES_MAX or b"_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None
