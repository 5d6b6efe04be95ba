"""Samples on their way to the daemon:
a few at a time, as columns, and the frames they travel in (`docs/protocol.md`).
"""

from __future__ import annotations

import sys
from array import array
from math import isnan
from typing import Any

import msgspec

#: Samples of one message: the daemon takes a message whole, so a longer one would keep the others waiting. One series'
#: samples are taken in one after the other, many series' side by side, hence the two bounds.
SAMPLES_MAX = 1_000
SAMPLES_WIDE_MAX = 10_000
#: Bytes of the names in one message, well below the daemon's bound for a frame (1 MiB by default).
NAMES_BYTES_MAX = 1 << 18

# Names of a class derived from `str` (NumPy's, an enumeration's) are written as the strings they are.
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Block:
    """Samples of a message, in order.

    `series` is one name, or a list of names, one a sample. `value` has length n; `time` (seconds since the epoch)
    too, or length 1 where all are of one moment. A NaN in `time` leaves the time of that sample to the daemon.
    """

    __slots__ = ("series", "time", "value")

    def __init__(self, series: str | list[str], value: array[float], time: array[float]) -> None:
        self.series, self.value, self.time = series, value, time

    def __len__(self) -> int:
        return len(self.value)

    def part(self, start: int, stop: int) -> Block:
        """The samples start … stop - 1 as a block of their own."""
        series = self.series if isinstance(self.series, str) else self.series[start:stop]
        return Block(series, self.value[start:stop], self.time[:] if len(self.time) == 1 else self.time[start:stop])

    def split(self, most: int) -> list[Block]:
        """The block as blocks that fit into a message each, and have at most so many samples."""
        if isinstance(self.series, str):
            size = SAMPLES_MAX
        else:
            width = (
                max(map(len, self.series)) * 4 + 3
            )  # no character takes more than four bytes, quotes and comma three
            size = max(1, min(SAMPLES_WIDE_MAX, NAMES_BYTES_MAX // width))
        size = min(size, most)
        if len(self) <= size:
            return [self]
        return [self.part(at, at + size) for at in range(0, len(self), size)]

    def frames(self, producer: str, epoch: int, seq: int) -> list[bytes]:
        """The message: JSON for a single sample, columns for more; its first sample has the number `seq`."""
        n, moment = len(self), self.time[0]
        head: dict[str, Any] = {"producer": producer, "epoch": epoch, "seq": seq}
        if n == 1:
            head["series"] = self.series if isinstance(self.series, str) else self.series[0]
            head["value"] = self.value[0]
            if not isnan(moment):
                head["time"] = moment
            return [_encode(head)]
        head |= {"columns": 1, "n": n, "series": self.series}
        if len(self.time) == n:
            return [_encode(head), _little_endian(self.value), _little_endian(self.time)]
        if not isnan(moment):
            head["time0"] = moment
        return [_encode(head), _little_endian(self.value)]


def _little_endian(column: array[float]) -> bytes:
    if sys.byteorder == "big":
        column = array("d", column)
        column.byteswap()
    return column.tobytes()
