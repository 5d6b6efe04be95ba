"""The journal as a SQLite file: commits, the names of series, the runs of the daemon with their settings and models,
versions and champions, the copies of series, events.

SQLite keeps each transaction whole; that what is read is what was written, the checksums here say.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from .disk import watched
from .lineage import Champion, Change, Version
from .record import Damaged, Foreign, checksum

#: Pages of the write-ahead log that are let grow before they are moved into the file: 8 MB.
WAL_PAGES = 2_048
#: Commits between two looks at what may be forgotten, and how many are then forgotten at most.
TIDY_EVERY = 64
FORGOTTEN_MAX = 256

_APPLICATION = 0x66636A31
#: What leads from one version of the schema to the next. A new file goes through all of them.
_SCHEMA = (
    (
        "CREATE TABLE models (sha256 TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE lives (id INTEGER PRIMARY KEY, time REAL NOT NULL, settings BLOB NOT NULL, model TEXT NOT NULL,"
        " checksum INTEGER NOT NULL)",
        "CREATE TABLE names (row INTEGER PRIMARY KEY, body BLOB NOT NULL, checksum INTEGER NOT NULL)",
        "CREATE TABLE commits (step INTEGER PRIMARY KEY, steps INTEGER NOT NULL, samples INTEGER NOT NULL,"
        " life INTEGER NOT NULL, time REAL NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL)",
        "CREATE TABLE events (id INTEGER PRIMARY KEY, step INTEGER NOT NULL, time REAL NOT NULL, body TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE versions (number INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, time REAL NOT NULL,"
        " origin TEXT NOT NULL, checksum INTEGER NOT NULL)",
        "CREATE TABLE champions (id INTEGER PRIMARY KEY, time REAL NOT NULL, step INTEGER NOT NULL, slot TEXT NOT NULL,"
        " number INTEGER NOT NULL, root TEXT NOT NULL, reason TEXT NOT NULL, body TEXT NOT NULL,"
        " checksum INTEGER NOT NULL)",
    ),
    (
        "CREATE TABLE copies (row INTEGER PRIMARY KEY, step INTEGER NOT NULL, body BLOB NOT NULL,"
        " checksum INTEGER NOT NULL)",
    ),
)
SCHEMA = len(_SCHEMA)


class Commit(NamedTuple):
    """Steps `step`…`step + steps - 1` with their samples, refused ones included; `life` is the run of the daemon
    that took them, `time` the `now` of the last one.
    """

    step: int
    steps: int
    samples: int
    life: int
    time: float
    body: bytes


class Life(NamedTuple):
    """One run of the daemon: what its pipeline was made with. `model` is the SHA-256 of its weights, empty for none."""

    settings: Mapping[str, Any]
    model: str


class Database:
    """An open journal. One thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._written = 0
        self._commits = TIDY_EVERY
        self._used = 0

    @classmethod
    def open(cls, path: Path) -> Database:
        """The file at `path`, made if need be, for writing. Damaged where it is broken, Foreign, Full, Failed."""
        with watched():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # opened by the thread that starts the daemon, used by the one that writes
            database = cls(sqlite3.connect(path, isolation_level=None, timeout=5.0, check_same_thread=False))
            try:
                database._migrate(database._version(path))
            except BaseException as error:
                database.close()
                if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    raise Damaged(f"the journal cannot be read: {error}") from None
                raise
        return database

    @classmethod
    def read(cls, path: Path) -> Database:
        """The file at `path` for reading, also while a daemon writes it. FileNotFoundError, Damaged, Foreign."""
        if not path.is_file():
            raise FileNotFoundError(f"there is no journal in {path.parent}")
        database = cls(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
        )
        try:
            version = database._version(path)
        except sqlite3.Error as error:
            raise Damaged(f"the journal cannot be read: {error}") from None
        if version < SCHEMA:
            raise FileNotFoundError(f"the journal in {path.parent} is not up to date: start the daemon once")
        return database

    def _version(self, path: Path) -> int:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        kind = int(self._db.execute("PRAGMA application_id").fetchone()[0])
        if kind != _APPLICATION and (version or kind or self._db.execute("SELECT 1 FROM sqlite_master").fetchone()):
            raise Foreign(f"{path} is no journal of forecastd; give another state folder")
        if version > SCHEMA:
            raise Foreign(f"{path} has schema {version}, newer than the {SCHEMA} known here; use a newer forecastd")
        return version

    def _migrate(self, version: int) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        # By default a commit moves pages into the file now and then, and says nothing when that fails.
        self._db.execute("PRAGMA wal_autocheckpoint = 0")
        if version < SCHEMA:
            with self._transaction():
                for statement in (s for statements in _SCHEMA[version:] for s in statements):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {_APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    # ---- for the one that writes

    def enter(self, life: Life, now: float, model: bytes = b"", changes: Sequence[Change] = ()) -> int:
        """Note that a run of the daemon begins, and with what; the number of that run. Full, Failed."""
        settings = msgspec.json.encode(life.settings)
        with watched(), self._transaction():
            if life.model:
                self._db.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (life.model, model))
            row = (now, settings, life.model, checksum(settings, life.model))
            cursor = self._db.execute("INSERT INTO lives (time, settings, model, checksum) VALUES (?, ?, ?, ?)", row)
            self._write(changes)
        return int(cursor.lastrowid or 0)

    def commit(
        self,
        commit: Commit,
        names: Sequence[str] = (),
        first: int = 0,
        events: Sequence[Mapping[str, Any]] = (),
        changes: Sequence[Change] = (),
        copies: Mapping[int, bytes | None] = MappingProxyType({}),
    ) -> None:
        """Put one commit on the disk, with the names new in it, those of the rows from `first` on, its events, what
        changed of the models, and the copies that changed in it by row, None for one that was dropped. Full, Failed.
        """
        with watched(), self._transaction():
            if names:
                body = msgspec.msgpack.encode(list(names))
                self._db.execute("INSERT INTO names VALUES (?, ?, ?)", (first, body, checksum(body, first)))
            total = checksum(commit.body, *commit[:-1])
            self._db.execute("INSERT INTO commits VALUES (?, ?, ?, ?, ?, ?, ?)", (*commit, total))
            for event in events:
                row = (commit.step, commit.time, msgspec.json.encode(event).decode())
                self._db.execute("INSERT INTO events (step, time, body) VALUES (?, ?, ?)", row)
            self._write(changes)
            for place, copy in copies.items():
                if copy is None:
                    self._db.execute("DELETE FROM copies WHERE row = ?", (place,))
                else:
                    total = checksum(copy, place)
                    self._db.execute("REPLACE INTO copies VALUES (?, ?, ?, ?)", (place, commit.step, copy, total))
        written = len(commit.body) + sum(len(copy) for copy in copies.values() if copy)
        self._written += written // 4096 + 8
        self._commits += 1

    def change(self, changes: Sequence[Change]) -> None:
        """Put changes of the models on the disk while no daemon runs. Full, Failed."""
        with watched(), self._transaction():
            self._write(changes)

    def _write(self, changes: Sequence[Change]) -> None:
        for version, body, champion in changes:
            if version is not None:
                self._db.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (version.sha256, body))
                row = (*version, checksum(b"", *version))
                self._db.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, ?)", row)
            if champion is not None:
                *fields, figures = champion
                told = msgspec.json.encode(figures)
                self._db.execute(
                    "INSERT INTO champions (time, step, slot, number, root, reason, body, checksum)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*fields, told.decode(), checksum(told, *fields)),
                )

    def tidy(self, through: int, before: float, bytes_max: int) -> int:
        """Between two commits: move the write-ahead log into the file, and forget commits up to step `through`
        that are older than `before` or make the file too large, each only once it is worth it. The bytes in use.
        Full, Failed.
        """
        with watched():
            if self._written > WAL_PAGES:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                self._written = 0
            if self._commits < TIDY_EVERY:
                return self._used
            self._commits = 0
            self._used = self._bytes()
            with self._transaction():
                self._db.execute(
                    "DELETE FROM commits WHERE step IN (SELECT step FROM commits"
                    " WHERE step + steps - 1 <= ? AND (time < ? OR ?) ORDER BY step LIMIT ?)",
                    (through, before, self._used > bytes_max, FORGOTTEN_MAX),
                )
                self._db.execute("DELETE FROM events WHERE time < ?", (before,))
        return self._used

    def _bytes(self) -> int:
        pages, free, size = (
            self._db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    # ---- for those that read

    def commits(self, after: int = 0) -> Iterator[Commit]:
        """The commits with steps beyond `after`, in order. Damaged at the first one that is not as it was written."""
        try:
            rows = self._db.execute(
                "SELECT step, steps, samples, life, time, body, checksum FROM commits WHERE step + steps - 1 > ?1"
                " AND step >= coalesce((SELECT max(step) FROM commits WHERE step <= ?1), 0) ORDER BY step",
                (after,),
            )
            for *fields, total in rows:
                commit = Commit(*fields)
                if not isinstance(commit.body, bytes) or checksum(commit.body, *commit[:-1]) != total:
                    raise Damaged(f"the commit at step {commit.step} does not match its checksum")
                yield commit
        except sqlite3.DatabaseError as error:
            raise Damaged(f"the journal cannot be read: {error}") from None

    def names(self) -> list[str]:
        """The names of all series ever entered, by row. Damaged."""
        names: list[str] = []
        try:
            for first, body, total in self._db.execute("SELECT row, body, checksum FROM names ORDER BY row"):
                if first != len(names) or not isinstance(body, bytes) or checksum(body, first) != total:
                    raise Damaged(f"the names from row {len(names)} on do not match their checksum")
                names += msgspec.msgpack.decode(body, type=list[str])
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            raise Damaged(f"the names cannot be read: {error}") from None
        return names

    def lives(self) -> dict[int, Life]:
        """The runs of the daemon by number; those that cannot be read are left out."""
        lives = {}
        try:
            for number, settings, model, total in self._db.execute("SELECT id, settings, model, checksum FROM lives"):
                if isinstance(settings, bytes) and checksum(settings, model) == total:
                    lives[number] = Life(msgspec.json.decode(settings, type=dict[str, Any]), model)
        except (sqlite3.DatabaseError, msgspec.DecodeError):
            pass
        return lives

    def models(self) -> dict[str, bytes]:
        """The models of all runs, as files, by the SHA-256 of their weights. Damaged."""
        try:
            return dict(self._db.execute("SELECT sha256, body FROM models"))
        except sqlite3.DatabaseError as error:
            raise Damaged(f"the models cannot be read: {error}") from None

    def versions(self) -> list[Version]:
        """The versions of the shared model, by number; those that are not as they were written are left out. Damaged
        where none can be read."""
        try:
            rows = self._db.execute("SELECT number, sha256, time, origin, checksum FROM versions ORDER BY number")
            return [Version(*fields) for *fields, total in rows if checksum(b"", *fields) == total]
        except sqlite3.DatabaseError as error:
            raise Damaged(f"the versions cannot be read: {error}") from None

    def champions(self) -> list[Champion]:
        """Which versions served, oldest first; those that are not as they were written are left out. Damaged where none
        can be read."""
        try:
            rows = self._db.execute(
                "SELECT time, step, slot, number, root, reason, body, checksum FROM champions ORDER BY id"
            )
            return [
                Champion(*(*fields, msgspec.json.decode(body, type=dict[str, Any])))
                for *fields, body, total in rows
                if checksum(body.encode(), *fields) == total
            ]
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            raise Damaged(f"the champions cannot be read: {error}") from None

    def copies(self) -> tuple[dict[int, bytes], list[int]]:
        """The copies of the model by row, and the rows of those that are not as they were written. Damaged."""
        sound, damaged = {}, []
        try:
            for row, body, total in self._db.execute("SELECT row, body, checksum FROM copies ORDER BY row"):
                if isinstance(body, bytes) and checksum(body, row) == total:
                    sound[row] = body
                else:
                    damaged.append(row)
        except sqlite3.DatabaseError as error:
            raise Damaged(f"the copies cannot be read: {error}") from None
        return sound, damaged

    def events(self) -> list[dict[str, Any]]:
        """What happened to the models, oldest first."""
        rows = self._db.execute("SELECT time, step, body FROM events ORDER BY id")
        return [{"time": time, "step": step, **msgspec.json.decode(body)} for time, step, body in rows]

    def check(self) -> list[str]:
        """What SQLite itself finds wrong with the file."""
        try:
            found = [str(line) for (line,) in self._db.execute("PRAGMA integrity_check(10)")]
        except sqlite3.DatabaseError as error:
            found = [str(error)]
        return [f"the journal: {' '.join(line.split())}" for line in found if line != "ok"]

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
