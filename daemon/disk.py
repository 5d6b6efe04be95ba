"""Files that are whole or not there, and what may be tried again when the disk refuses.

`Full` means that nothing was written and that it may be tried again. Any other failure is `Failed`: after a failed
fsync the next one may succeed though the data is gone, so nothing can be known of what the disk has, and the process
must end.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: A file is forced to disk every so many bytes, so that no commit has to wait behind all of it.
STRIDE = 8 << 20

#: What a system call says that has written nothing and may be tried again: no room, or no descriptor for the file.
_AGAIN = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class Full(Exception):
    """There is no room on the disk, or another program holds the file: nothing was written, and it may be tried
    again.
    """


class Failed(Exception):
    """The disk failed. What it has of the last writes cannot be known, so nothing may be acknowledged any more."""


@contextmanager
def watched() -> Iterator[None]:
    """Turns the failures of SQLite and of the operating system into `Full` and `Failed`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY) or code == sqlite3.SQLITE_IOERR_SHMSIZE:
            raise Full(str(error)) from error
        raise Failed(f"the journal: {error}") from error
    except OSError as error:
        if error.errno in _AGAIN:
            raise Full(error.strerror) from error
        raise Failed(f"{error.filename or 'the state folder'}: {error.strerror}") from error


def replace(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Make `path` have the bytes of `pieces`, or leave it as it is, whatever happens meanwhile."""
    beside = path.with_name(f".{path.name}")
    try:
        _write(beside, pieces)
        beside.rename(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Force the names in `folder` to disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        since = 0
        for piece in pieces:
            left = memoryview(piece)
            while left:
                left = left[os.write(file, left) :]
            since += len(piece)
            if since > STRIDE:
                os.fdatasync(file)
                since = 0
        os.fsync(file)
    finally:
        os.close(file)
