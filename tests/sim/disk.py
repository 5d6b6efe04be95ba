"""A disk that forgets what was not synced, and a state folder on it.

What programs see (`seen`) and what would be there after a loss of power (`kept`) are two things. A write changes the
first; an fsync takes the writes of one file over into the second, an fsync of the folder the names. A failed fsync
leaves the data seen and never takes it over, and the next one succeeds: that is what makes a retry worthless.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from forecastd.daemon.database import Commit, Life
from forecastd.daemon.disk import Failed, Full
from forecastd.daemon.lineage import Lineage
from forecastd.daemon.record import Damaged


class Crash(BaseException):
    """The process was killed, at this very operation."""


class Image:
    """Files as somebody finds them: `names` lead to numbers, numbers to bytes."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.data: dict[int, bytes] = {}

    def copy(self) -> Image:
        other = Image()
        other.names, other.data = dict(self.names), dict(self.data)
        return other

    def read(self, name: str) -> bytes:
        return self.data.get(self.names[name], b"") if name in self.names else b""


Change = Callable[[Image], None]
#: Changes of names belong to the folder, which has this number.
FOLDER = 0


class Disk:
    """Each operation asks `fault` first, with its name; that may raise."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.seen, self.kept = Image(), Image()
        self.fault: Callable[[str], None] = lambda operation: None
        self.room = 1 << 40
        self.operations = 0
        self._files = FOLDER
        self._unsynced: list[tuple[int, Change]] = []

    @property
    def used(self) -> int:
        return sum(len(self.seen.read(name)) for name in self.seen.names)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """In two pieces, each of which a crash may follow, or a loss of power keep or lose."""
        half = max(len(data) // 2, 1)
        for start in range(0, len(data), half):
            piece, place = data[start : start + half], offset + start
            self._begin("write")
            if self.used + len(piece) > self.room:
                raise Full("no room")
            number = self.seen.names[name]
            self._change(number, lambda image, n=number, place=place, piece=piece: _put(image, n, place, piece))

    def truncate(self, name: str, size: int) -> None:
        self._begin("truncate")
        number = self.seen.names[name]
        self._change(number, lambda image: image.data.update({number: image.data.get(number, b"")[:size]}))

    def create(self, name: str) -> None:
        self._begin("create")
        self._files += 1
        number = self._files
        self._change(FOLDER, lambda image: image.names.update({name: number}))

    def rename(self, old: str, new: str) -> None:
        self._begin("rename")
        number = self.seen.names[old]
        self._change(FOLDER, lambda image: _rename(image, old, new, number))

    def unlink(self, name: str) -> None:
        self._begin("unlink")
        number = self.seen.names.get(name)
        if number is not None:
            self._change(FOLDER, lambda image: _unlink(image, name, number))

    def sync(self, name: str) -> None:
        """Keep what was written to `name`; the names of all files where it is empty."""
        number = self.seen.names[name] if name else FOLDER
        mine = [change for owner, change in self._unsynced if owner == number]
        others = [item for item in self._unsynced if item[0] != number]
        try:
            self._begin("sync")
        except Failed:
            # what was not written is forgotten, and the next sync will say that all is well
            self._unsynced = others
            raise
        self._unsynced = others
        for change in mine:
            change(self.kept)

    def lose_power(self) -> None:
        """Of what was not synced anything may be there, whole or torn, or nothing, in any order."""
        for _, change in self._unsynced:
            if self.random.random() < 0.5:
                change(self.kept)
        self._unsynced = []
        self.seen = self.kept.copy()

    def spoil(self, name: str) -> None:
        """Turn a bit over, for good."""
        for image in (self.seen, self.kept):
            if data := bytearray(image.read(name)):
                data[len(data) // 3] ^= 16
                image.data[image.names[name]] = bytes(data)

    def _begin(self, operation: str) -> None:
        self.operations += 1
        self.fault(operation)

    def _change(self, owner: int, change: Change) -> None:
        change(self.seen)
        self._unsynced.append((owner, change))


def _put(image: Image, number: int, place: int, piece: bytes) -> None:
    old = image.data.get(number, b"")
    image.data[number] = old[:place].ljust(place, b"\0") + piece + old[place + len(piece) :]


def _rename(image: Image, old: str, new: str, number: int) -> None:
    if image.names.get(old) == number:
        del image.names[old]
    image.names[new] = number


def _unlink(image: Image, name: str, number: int) -> None:
    if image.names.get(name) == number:
        del image.names[name]


class Folder:
    """What `daemon.store.Store` is, on such a disk. The journal is a log of records with checksums: what cannot be
    read at its end was never committed, as with SQLite's write-ahead log.
    """

    JOURNAL = "journal"

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.reports: list[str] = []
        for name in [name for name in disk.seen.names if name.startswith(".")]:
            disk.unlink(name)
        if self.JOURNAL not in disk.seen.names:
            disk.create(self.JOURNAL)
            disk.sync("")
        self._end = sum(size for _, size in self._records())

    # ---- journal

    def enter(self, life: Life, now: float, model: bytes = b"", changes: Sequence[Any] = ()) -> int:
        number = len(self.lives()) + 1
        self._append(["life", number, dict(life.settings), life.model, model])
        return number

    def commit(
        self,
        commit: Commit,
        names: Sequence[str] = (),
        first: int = 0,
        events: Sequence[Mapping[str, Any]] = (),
        changes: Sequence[Any] = (),
        copies: Mapping[int, bytes | None] = MappingProxyType({}),
    ) -> None:
        self._append(["commit", list(commit), dict(copies), first, list(names)])

    def tidy(self, through: int, before: float, bytes_max: int) -> int:
        if self._end > bytes_max:
            kept = []
            for record, _ in self._records():
                if record[0] != "commit" or record[1][0] + record[1][1] - 1 > through:
                    kept.append(record)
                else:
                    kept.append(["rest", *record[2:]])
            data = b"".join(map(_packed, kept))
            self._replace(self.JOURNAL, [data])
            self._end = len(data)
        return self._end

    def commits(self, after: int = 0) -> Iterator[Commit]:
        for record, _ in list(self._records()):
            if record[0] == "commit":
                commit = Commit(*record[1])
                if commit.step + commit.steps - 1 > after:
                    yield commit

    def names(self) -> list[str]:
        names: list[str] = []
        for record, _ in self._records():
            if record[0] in ("commit", "rest"):
                first, new = record[-2:]
                if new and first != len(names):
                    raise Damaged("names are missing")
                names += new
        return names

    def lives(self) -> dict[int, Life]:
        return {r[1]: Life(r[2], r[3]) for r, _ in self._records() if r[0] == "life"}

    def models(self) -> dict[str, bytes]:
        return {r[3]: r[4] for r, _ in self._records() if r[0] == "life"}

    def lineage(self) -> Lineage:
        return Lineage()

    def copies(self) -> tuple[dict[int, bytes], list[int]]:
        copies: dict[int, bytes | None] = {}
        for record, _ in self._records():
            if record[0] in ("commit", "rest"):
                copies |= record[-3]
        return {row: body for row, body in copies.items() if body is not None}, []

    def set_aside(self, why: str) -> None:
        self.reports.append(why)
        self.disk.rename(self.JOURNAL, "aside")
        self.disk.create(self.JOURNAL)
        self.disk.sync("")
        self._end = 0

    def _append(self, record: list[Any]) -> None:
        data = _packed(record)
        try:
            self.disk.write(self.JOURNAL, self._end, data)
        except Full:
            self.disk.truncate(self.JOURNAL, self._end)
            raise
        self.disk.sync(self.JOURNAL)
        self._end += len(data)

    def _records(self) -> Iterator[tuple[list[Any], int]]:
        data, place = self.disk.seen.read(self.JOURNAL), 0
        while place + 8 <= len(data):
            size, total = int.from_bytes(data[place : place + 4], "little"), data[place + 4 : place + 8]
            body = data[place + 8 : place + 8 + size]
            if len(body) != size or zlib.crc32(body).to_bytes(4, "little") != total or not size:
                return
            yield msgspec.msgpack.decode(body), 8 + size
            place += 8 + size

    # ---- snapshots

    def save(self, step: int, pieces: Iterable[bytes | memoryview]) -> None:
        self._replace(f"snapshot-{step}", pieces)
        for old in self.snapshots()[2:]:
            self.disk.unlink(f"snapshot-{old}")

    def snapshots(self) -> list[int]:
        steps = [name.removeprefix("snapshot-") for name in self.disk.seen.names if name.startswith("snapshot-")]
        return sorted(map(int, steps), reverse=True)

    def load(self, step: int) -> bytes:
        return self.disk.seen.read(f"snapshot-{step}")

    def discard(self, step: int) -> None:
        self.disk.rename(f"snapshot-{step}", "damaged")

    def _replace(self, name: str, pieces: Iterable[bytes | memoryview]) -> None:
        beside, place = f".{name}", 0
        try:
            self.disk.create(beside)
            for piece in pieces:
                self.disk.write(beside, place, bytes(piece))
                place += len(piece)
            self.disk.sync(beside)
            self.disk.rename(beside, name)
        except (Full, Failed):
            self.disk.unlink(beside)
            raise
        self.disk.sync("")

    # ---- the folder

    @property
    def suspect(self) -> bool:
        return "suspect" in self.disk.seen.names

    def mark(self, suspect: bool) -> None:
        try:
            if suspect:
                self.disk.create("suspect")
            else:
                self.disk.unlink("suspect")
        except Failed:
            pass

    def close(self) -> None:
        """Nothing is held."""


def _packed(record: list[Any]) -> bytes:
    body = msgspec.msgpack.encode(record)
    return len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body
