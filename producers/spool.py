"""A producer's memory on disk: its name, its epoch, and what it has sent and not seen acknowledged.

A file of JSON lines: the first says whose it is and where it stands, each other is an event of the window since. A
restarted producer replays them and goes on in the same epoch with the same numbers, so the daemon knows what it has
already had.

When `append` returns, the event survives the death of the process; after `sync`, that of the machine. The client
syncs before it sends, for a number that the daemon has seen must never be given to another sample.
"""

from __future__ import annotations

import fcntl
import logging
import os
from array import array
from collections.abc import Iterator
from math import nan
from pathlib import Path

import msgspec

from .block import Block
from .window import Window

FORMAT = 1
#: A file this large is written anew as soon as that makes it smaller by half.
COMPACT_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class SpoolError(Exception):
    """A spool that cannot be used; the message is one line that says why, and what to do."""


class Head(msgspec.Struct, frozen=True):
    """The first line: whose the samples are. The first of them has the number `acked + 1`."""

    spool: int
    producer: str
    epoch: int
    acked: int


class Event(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A further line: samples taken in (a null time is left to the daemon), or what befell the oldest ones."""

    series: str | list[str] | None = None
    value: list[float] = []
    time: list[float | None] = []
    sent: int = 0
    ack: int = 0
    drop: int = 0
    epoch: int = 0


# Names of a class derived from `str` (NumPy's, an enumeration's) are written as the strings they are.
_encode = msgspec.json.Encoder(enc_hook=str).encode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_event = msgspec.json.Decoder(Event).decode


class Spool:
    """The open file, locked against a second producer. Who calls it sees to it that one thread does so at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._fd = self._open()
        self._bytes = os.fstat(self._fd).st_size

    def restore(self, window: Window, epoch: int) -> Head | None:
        """Replays the file into an empty window; returns whose it is now, or None where it is new.

        Damage is reported; what it hides is set aside in `PATH.damaged`, and the rest begins the new epoch `epoch`,
        because numbers may have been used that the file no longer tells.
        """
        data = os.pread(self._fd, self._bytes, 0)
        *lines, torn = data.split(b"\n")
        if not data:
            return None
        head = self._head(lines[0] if lines else torn)
        window.acked = window.sent = window.ever = head.acked
        for number, line in enumerate(lines[1:], start=2):
            try:
                head = _replay(window, head, _decode_event(line))
            except (msgspec.DecodeError, ValueError):
                logger.warning("%s: line %d is damaged; what follows it is in %s.damaged", self.path, number, self.path)
                self._set_aside(b"\n".join(lines[number - 1 :]))
                window.renumber()
                return Head(FORMAT, head.producer, max(epoch, head.epoch + 1), 0)
        return head

    def append(self, event: Event) -> None:
        """Adds an event. OSError when the disk does not take it: then nothing of it is there."""
        line = _encode(event) + b"\n"
        written = os.write(self._fd, line)
        if written != len(line):
            os.ftruncate(self._fd, self._bytes)
            raise OSError(28, "no space left for the spool", str(self.path))
        self._bytes += written

    def append_block(self, block: Block) -> None:
        """Adds samples taken in."""
        self.append(_taken(block))

    def sync(self) -> None:
        """Makes all that was appended survive a loss of power."""
        os.fdatasync(self._fd)

    def rewrite(self, head: Head, window: Window) -> None:
        """Puts a file in place that says where the window stands and nothing more;
        at no moment is there less than one whole file.
        """
        new = self.path.with_name(self.path.name + ".new")
        lines = [_encode(head), *map(_encode, _snapshot(window)), b""]
        data = b"\n".join(lines)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd, self.path)
            with os.fdopen(os.dup(fd), "wb") as file:
                file.write(data)
            os.fsync(fd)
            new.replace(self.path)
            _sync_folder(self.path.parent)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._bytes = fd, len(data)

    def tidy(self, head: Head, window: Window) -> None:
        """Writes the file anew if it has grown and holds little that still waits."""
        if self._bytes > COMPACT_BYTES and self._bytes > 100 * window.waiting:
            self.rewrite(head, window)

    def close(self) -> None:
        """Gives the file up to other producers."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> int:
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _lock(fd, self.path)
                # The holder before may have put a new file in place between the opening and the lock.
                if os.fstat(fd).st_ino == os.stat(self.path).st_ino:
                    return fd
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _head(self, line: bytes) -> Head:
        try:
            head = _decode_head(line)
        except msgspec.DecodeError:
            raise SpoolError(f"{self.path} is no spool of a producer; name another file") from None
        if head.spool != FORMAT:
            raise SpoolError(f"{self.path} has spool format {head.spool}; this forecastd reads {FORMAT}")
        return head

    def _set_aside(self, data: bytes) -> None:
        with self.path.with_name(self.path.name + ".damaged").open("ab") as file:
            file.write(data + b"\n")


def _replay(window: Window, head: Head, event: Event) -> Head:
    if event.series is not None:
        value, time = array("d", event.value), array("d", [nan if t is None else t for t in event.time])
        if len(value) != (len(event.series) if isinstance(event.series, list) else len(value)):
            raise ValueError("names and values differ in number")
        if not value or len(time) not in (1, len(value)):
            raise ValueError("values and times differ in number")
        if isinstance(event.series, str) and len(value) == 1:
            window.add(event.series, value[0], time[0])
        else:
            window.put(Block(event.series, value, time))
    if event.drop:
        window.drop(event.drop)
    if event.sent:
        window.mark(event.sent)
    if event.ack:
        window.ack(event.ack)
    if event.epoch:
        window.renumber()
        head = Head(FORMAT, head.producer, event.epoch, 0)
    return head


def _taken(block: Block) -> Event:
    return Event(series=block.series, value=[*block.value], time=[*block.time])


def _snapshot(window: Window) -> Iterator[Event]:
    for block in window.blocks():
        yield _taken(block)
    if window.ever > window.acked:
        yield Event(sent=window.ever)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SpoolError(f"{path} is in use by another producer; give each one a spool of its own") from None


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
