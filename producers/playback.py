"""Recordings: CSV files as series, for `forecastd produce csv` to play and `forecastd backtest` to score.

The first column is the time, each further one a series; the first line names them. `timestamp,value` is the plain case.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .lines import iso_seconds

Floats = NDArray[np.float64]

#: What stands for "no value" in a cell, in lower case. Infinities are none either: no sensor means them.
EMPTY = frozenset(("", "nan", "na", "n/a", "null", "none", "inf", "+inf", "-inf", "infinity", "-infinity"))

#: Plain numbers above this are milliseconds: as seconds they would lie in the year 5138.
MILLISECONDS_FROM = 1e11

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Unreadable(ValueError):
    """A recording that cannot be read; the message is one line that says where (`file:line`) and what."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One series of a file. `time` (seconds since the epoch) and `value`, float64 of shape (n,), are in the order of
    the file and finite.

    `skipped` cells were empty or not a number.
    """

    name: str
    time: Floats
    value: Floats
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.value)


def read(path: str | Path) -> list[Recording]:
    """The series of a CSV file, in the order of its columns.

    A series is named by its column, or by the file when its column is called `value`. Times may be ISO 8601 with or
    without a zone (UTC if without), `YYYY-MM-DD HH:MM:SS`, `YYYYMMDD`, a plain year, or seconds or milliseconds since
    the epoch; all of a file in one form. Raises `Unreadable` where the file is none of this, OSError where there is
    no reading it.
    """
    path = Path(path)
    header, lines, columns = _columns(path)
    times = _Times(path, lines).read(columns[0])
    return [
        _recording(path, path.stem if name.lower() == "value" else name, times, lines, cells)
        for name, cells in zip(header[1:], columns[1:], strict=True)
    ]


def read_all(paths: Iterable[str | Path]) -> list[Recording]:
    """The series of several files. Where two would have one name, the file's is put in front: `file.column`."""
    found = [(Path(path), recording) for path in paths for recording in read(path)]
    names = [recording.name for _, recording in found]
    recordings = [
        recording
        if names.count(recording.name) == 1
        else Recording(f"{path.stem}.{recording.name}", recording.time, recording.value, recording.skipped)
        for path, recording in found
    ]
    taken: set[str] = set()
    for (path, _), recording in zip(found, recordings, strict=True):
        if recording.name in taken:
            raise Unreadable(f"{path}: a second series called {recording.name!r}; rename the file or the column")
        taken.add(recording.name)
    return recordings


def played(recordings: list[Recording], by_time: bool) -> Iterator[tuple[int, float, float, int]]:
    """The samples of several recordings in the order to send them: (recording, time, value, index in its recording).

    By their times where they are to keep step with each other, else one of each in turns. Within one recording the
    order of the file stays, also where its times step back.
    """
    which = np.concatenate([np.full(len(r), k) for k, r in enumerate(recordings)])
    index = np.concatenate([np.arange(len(r)) for r in recordings])
    time = np.concatenate([r.time for r in recordings])
    value = np.concatenate([r.value for r in recordings])
    due = np.concatenate([np.maximum.accumulate(r.time) for r in recordings])
    order = np.lexsort((which, index, due) if by_time else (which, index))
    return zip(which[order].tolist(), time[order].tolist(), value[order].tolist(), index[order].tolist(), strict=True)


def _columns(path: Path) -> tuple[list[str], list[int], list[tuple[str, ...]]]:
    """Names, and cells a column, with the line number of each row."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            width = len(header)
            for row in reader:
                if len(row) != width:
                    if not row:
                        continue
                    raise Unreadable(f"{path}:{reader.line_num}: {_cells(len(row))}, but the first line has {width}")
                rows.append(row)
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path}: not UTF-8 text (byte {error.start} of a block); is it a CSV file?") from None
    except csv.Error as error:
        raise Unreadable(f"{path}:{reader.line_num}: {error}") from None
    if not rows:
        raise Unreadable(f"{path}: a header and no samples")
    return header, lines, list(zip(*rows, strict=True))


def _cells(n: int) -> str:
    return f"{n} cell" if n == 1 else f"{n} cells"


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise Unreadable(f"{path}: empty; it has to start with a header such as timestamp,value")
    if len(header) == 1:
        raise Unreadable(f"{path}:1: one column; a time and a value are needed, as in timestamp,value")
    if _is_number(header[0]) or _is_iso(header[0]):
        raise Unreadable(f"{path}:1: numbers where the header should be; start the file with timestamp,value")
    for name in header[1:]:
        if not name:
            raise Unreadable(f"{path}:1: a column without a name")
        if header.count(name) > 1:
            raise Unreadable(f"{path}:1: two columns are called {name!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.lower() not in EMPTY


def _is_iso(text: str) -> bool:
    try:
        iso_seconds(text)
    except ValueError:
        return False
    return True


def _recording(path: Path, name: str, times: Floats, lines: list[int], cells: tuple[str, ...]) -> Recording:
    value = _values(path, lines, cells)
    there = np.isfinite(value)
    skipped = len(value) - int(there.sum())
    return Recording(name, times[there] if skipped else times, value[there] if skipped else value, skipped)


def _values(path: Path, lines: list[int], cells: tuple[str, ...]) -> Floats:
    """The cells as float64; NaN where one is empty."""
    try:
        return np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        pass  # an empty cell, or one that is no number: slower, cell by cell
    value = np.full(len(cells), np.nan)
    for k, cell in enumerate(cells):
        try:
            value[k] = float(cell)
        except ValueError:
            if cell.strip().lower() not in EMPTY:
                raise Unreadable(f"{path}:{lines[k]}: {cell[:40]!r} is not a number") from None
    return value


class _Times:
    """Reads a column of times: its form is told by the whole column, as 1700 alone may be a year or a second."""

    def __init__(self, path: Path, lines: list[int]) -> None:
        self.path, self.lines = path, lines

    def read(self, cells: tuple[str, ...]) -> Floats:
        """Seconds since the epoch, float64, in the order of the cells."""
        if all(len(cell) == 4 and cell.isdigit() and cell >= "0001" for cell in cells):
            return self._each(cells, _year)
        if all(len(cell) == 8 and cell.isdigit() for cell in cells) and re.fullmatch(r"\d{4}[01]\d[0-3]\d", cells[0]):
            return self._each(cells, iso_seconds)
        if _is_number(cells[0]):
            time = self._each(cells, float)
            return time / 1000 if np.abs(time).max() > MILLISECONDS_FROM else time
        return self._each(cells, iso_seconds)

    def _each(self, cells: tuple[str, ...], convert: Callable[[str], float]) -> Floats:
        try:
            time = np.fromiter(map(convert, cells), np.float64, len(cells))
        except (ValueError, OverflowError):
            raise self._wrong(cells, convert) from None
        if not np.isfinite(time).all():
            k = int(np.flatnonzero(~np.isfinite(time))[0])
            raise Unreadable(f"{self.path}:{self.lines[k]}: {cells[k][:40]!r} is not a time")
        return time

    def _wrong(self, cells: tuple[str, ...], convert: Callable[[str], float]) -> Unreadable:
        for line, cell in zip(self.lines, cells, strict=True):
            try:
                convert(cell)
            except (ValueError, OverflowError):
                form = {float: "seconds", _year: "a year"}.get(convert, "ISO 8601, as 2024-05-17T13:45:00Z")
                return Unreadable(f"{self.path}:{line}: {cell[:40]!r} is not a time in the form of this file ({form})")
        return Unreadable(f"{self.path}: the times cannot be read")


def _year(text: str) -> float:
    return (datetime(int(text), 1, 1, tzinfo=UTC) - _BEGINNING).total_seconds()
