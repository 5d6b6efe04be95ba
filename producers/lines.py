"""Samples as lines of text, `name value [time]`:
what `forecastd produce stdin` reads, so that any program can be a producer.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from math import isfinite
from typing import NamedTuple

#: A longer line is no sample: what is held of one unfinished line is bounded by this.
LINE_BYTES_MAX = 4096

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Sample(NamedTuple):
    """One line. `time` in seconds since the epoch, None where the line has none."""

    series: str
    value: float
    time: float | None


class Malformed(NamedTuple):
    """A line that is no sample: its number, counted from 1, and what is wrong with it."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


def parse(line: str, series: str = "") -> Sample:
    """The sample of a line; the value may be `nan`, which the client refuses. ValueError says what is wrong.

    With `series`, the line is `value [time]` and of that series.
    """
    words = [series, *line.split()] if series else line.split()
    if not 2 <= len(words) <= 3:
        raise ValueError(f"{line.strip()[:60]!r} is not `{'' if series else 'name '}value [time]`")
    try:
        value = float(words[1])
    except ValueError:
        raise ValueError(f"{words[1][:40]!r} is not a number") from None
    return Sample(words[0], value, seconds(words[2]) if len(words) == 3 else None)


class Splitter:
    """Turns bytes as they come, cut anywhere, into samples. Blank lines and lines that begin with `#` are passed over.

    With `series`, the lines have no names and are all of that series.
    """

    def __init__(self, series: str = "") -> None:
        self.series = series
        self.line = 0
        self._rest = b""
        self._skip = False

    def feed(self, chunk: bytes) -> Iterator[Sample | Malformed]:
        """What the lines completed by this chunk hold."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self.line += 1
            if self._skip:  # its beginning was reported when it grew too long
                self._skip = False
                continue
            yield from self._one(line)
        if len(self._rest) > LINE_BYTES_MAX:
            if not self._skip:
                yield Malformed(self.line + 1, f"longer than {LINE_BYTES_MAX} bytes")
            self._rest, self._skip = b"", True

    def end(self) -> Iterator[Sample | Malformed]:
        """What a last line without its newline holds."""
        if self._rest and not self._skip:
            self.line += 1
            yield from self._one(self._rest)
        self._rest = b""

    def _one(self, line: bytes) -> Iterator[Sample | Malformed]:
        if len(line) > LINE_BYTES_MAX:
            yield Malformed(self.line, f"longer than {LINE_BYTES_MAX} bytes")
            return
        try:
            text = line.decode()
            if text.strip() and not text.lstrip().startswith("#"):
                yield parse(text, self.series)
        except UnicodeDecodeError:
            yield Malformed(self.line, "not UTF-8 text")
        except ValueError as error:
            yield Malformed(self.line, str(error))


def seconds(text: str) -> float:
    """A point in time as seconds since the epoch: a number, or ISO 8601 (UTC if it names no zone).

    ValueError when it is neither.
    """
    try:
        number = float(text)
    except ValueError:
        try:
            return iso_seconds(text)
        except ValueError:
            raise ValueError(f"{text[:40]!r} is not a time (seconds since the epoch, or ISO 8601)") from None
    if not isfinite(number):
        raise ValueError(f"{text!r} is not a time")
    return number


def iso_seconds(text: str) -> float:
    """ISO 8601 as seconds since the epoch; UTC if it names no zone. ValueError when it is no such text."""
    moment = datetime.fromisoformat(text.strip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _BEGINNING).total_seconds()
