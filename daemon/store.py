"""The state folder: the journal (a SQLite file), snapshots (files beside it), and a lock that one daemon holds.

Whatever returns from here without an exception is on the disk. `Full` may be tried again; `Failed` ends the daemon.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import disk
from .database import Commit, Database, Life
from .lineage import Change, Lineage
from .record import Damaged

FILE = "journal.db"
LOCK = "lock"
#: Left behind when the disk failed: what the operating system shows of a file need not be what the disk has.
SUSPECT = "suspect"
SNAPSHOTS_KEPT = 2
#: Damaged files of a kind that are kept, to be looked at.
ASIDE_KEPT = 2
_ENDS = ("", "-wal", "-shm")


class Locked(Exception):
    """Another daemon uses this folder."""


class Store:
    """A state folder. `Store.open` takes its lock; `Store.read` looks at it while a daemon may be using it."""

    db: Database

    def __init__(self, folder: Path, lock: int | None) -> None:
        self.folder = folder
        self._lock = lock
        #: What was set aside, a line each.
        self.reports: list[str] = []

    @classmethod
    def open(cls, folder: str | Path, wait_s: float = 0.0) -> Store:
        """The folder for writing, made if need be, its owner's alone. Locked when another daemon has it for longer
        than `wait_s`; Foreign, Full, Failed. A journal that cannot be read is set aside.
        """
        folder = Path(folder)
        with disk.watched():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid == os.geteuid():
                folder.chmod(0o700)
            store = cls(folder, _take_lock(folder / LOCK, wait_s))
            try:
                for left in folder.glob(".snapshot-*"):
                    left.unlink()
                try:
                    store.db = Database.open(folder / FILE)
                except Damaged as damage:
                    store._begin(str(damage))
                disk.sync(folder)
            except BaseException as error:
                if isinstance(error, (disk.Failed, OSError)):
                    store.mark(suspect=True)
                store._release()
                raise
        return store

    @classmethod
    def read(cls, folder: str | Path) -> Store:
        """The folder for reading. FileNotFoundError when there is no journal in it, Damaged when it cannot be
        read, Foreign.
        """
        store = cls(Path(folder), None)
        store.db = Database.read(store.folder / FILE)
        return store

    # ---- the journal

    def enter(self, life: Life, now: float, model: bytes = b"", changes: Sequence[Change] = ()) -> int:
        return self.db.enter(life, now, model, changes)

    def commit(
        self,
        commit: Commit,
        names: Sequence[str] = (),
        first: int = 0,
        events: Sequence[Mapping[str, Any]] = (),
        changes: Sequence[Change] = (),
        copies: Mapping[int, bytes | None] = MappingProxyType({}),
    ) -> None:
        self.db.commit(commit, names, first, events, changes, copies)

    def tidy(self, through: int, before: float, bytes_max: int) -> int:
        return self.db.tidy(through, before, bytes_max)

    def commits(self, after: int = 0) -> Iterator[Commit]:
        return self.db.commits(after)

    def names(self) -> list[str]:
        return self.db.names()

    def lives(self) -> dict[int, Life]:
        return self.db.lives()

    def models(self) -> dict[str, bytes]:
        return self.db.models()

    def lineage(self) -> Lineage:
        """The versions of the shared model and the champions among them. Damaged."""
        return Lineage(self.db.versions(), self.db.champions())

    def copies(self) -> tuple[dict[int, bytes], list[int]]:
        return self.db.copies()

    def set_aside(self, why: str) -> None:
        """Begin a new journal, and keep the one there was under another name. Full, Failed."""
        self.db.close()
        self._begin(why)

    def _begin(self, why: str) -> None:
        numbers = [int(path.suffix[1:]) for path in self.folder.glob(f"{FILE}.*") if path.suffix[1:].isdecimal()]
        number = 1 + max(numbers, default=0)
        self.reports.append(f"the journal was set aside as {FILE}.{number}: {why}")
        with disk.watched():
            for end in _ENDS:
                if (self.folder / f"{FILE}{end}").exists():
                    (self.folder / f"{FILE}{end}").rename(self.folder / f"{FILE}.{number}{end}")
                (self.folder / f"{FILE}.{number - ASIDE_KEPT}{end}").unlink(missing_ok=True)
            self.db = Database.open(self.folder / FILE)
            disk.sync(self.folder)

    # ---- snapshots

    def save(self, step: int, pieces: Iterable[bytes | memoryview]) -> None:
        """Put the snapshot of step `step` on the disk, whole or not at all, and remove those no longer needed.
        Full, Failed.
        """
        with disk.watched():
            disk.replace(self._snapshot(step), pieces)
            for old in self.snapshots()[SNAPSHOTS_KEPT:]:
                self._snapshot(old).unlink(missing_ok=True)

    def snapshots(self) -> list[int]:
        """The steps there are snapshots of, newest first."""
        steps = [path.stem.removeprefix("snapshot-") for path in self.folder.glob("snapshot-*.state")]
        return sorted((int(step) for step in steps if step.isdecimal()), reverse=True)

    def load(self, step: int) -> bytes:
        """The snapshot of step `step`. Damaged where it cannot be read."""
        try:
            return self._snapshot(step).read_bytes()
        except OSError as error:
            raise Damaged(f"it cannot be read: {error.strerror}") from None

    def discard(self, step: int) -> None:
        """Take a damaged snapshot out of the way. Full, Failed."""
        with disk.watched():
            self._snapshot(step).rename(self.folder / f"damaged-{step:020d}.state")
            for old in sorted(self.folder.glob("damaged-*.state"))[:-ASIDE_KEPT]:
                old.unlink()

    def _snapshot(self, step: int) -> Path:
        return self.folder / f"snapshot-{step:020d}.state"

    # ---- the folder

    @property
    def suspect(self) -> bool:
        """Whether the disk failed when this folder was last used."""
        return (self.folder / SUSPECT).exists()

    def mark(self, suspect: bool) -> None:
        """Leave word that the disk failed, or take it back. The word need not survive a loss of power: what is
        read after that is what the disk has.
        """
        try:
            if suspect:
                (self.folder / SUSPECT).touch(0o600)
            else:
                (self.folder / SUSPECT).unlink(missing_ok=True)
        except OSError:
            # A disk that takes no mark takes no journal either, and the next start will say so.
            pass

    def close(self) -> None:
        """Let go of the folder."""
        self.db.close()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _take_lock(path: Path, wait_s: float) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
                os.close(lock)
                raise Locked(f"the state folder {path.parent} is in use by process {holder or 'unknown'}") from None
            time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
