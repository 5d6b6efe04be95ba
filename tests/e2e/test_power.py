"""Power lost at any moment of a real run: SQLite's files and the snapshots as a disk would have them that kept only
what was synced, and of the rest what it liked.

A run is recorded call by call; then the disk is made anew as it may have been after each call.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from forecastd.daemon.keeper import models_of
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.recovery import recover
from forecastd.daemon.store import Store
from forecastd.tests.feed import live, model, settings, state, steps

WORKER = [sys.executable, str(Path(__file__).with_name("worker.py"))]
COUNT, EVERY, MOMENTS = 60, 12, 120
CALLS = "openat,write,pwrite64,ftruncate,fsync,fdatasync,rename,unlink"
#: A sector is written whole or not at all.
SECTOR = 512

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?", re.S)
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*) <unfinished \.\.\.>$", re.S)
_ENDED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (-?\d+)(?:<(.*)>)?", re.S)
_FILE = re.compile(r"^(\d+)<([^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Call(NamedTuple):
    """A call on the state: `path` it was on, `offset` and `data` of a write, `begun` its place among all calls
    when it began.
    """

    name: str
    path: str
    data: bytes
    offset: int
    begun: int


def calls(trace: str, folder: str) -> Iterator[Call]:
    """The calls of a trace that were made on `folder`, and what was said on stdout as calls named `said`, in the
    order they ended.
    """
    waiting: dict[str, tuple[str, int]] = {}
    for place, line in enumerate(trace.splitlines()):
        begun = place
        if match := _BEGUN.match(line):
            waiting[match[1]] = match[3], place
            continue
        if match := _ENDED.match(line):
            arguments, begun = waiting.pop(match[1])
            arguments += match[3]
        elif match := _CALL.match(line):
            arguments = match[3]
        else:
            continue
        name, result, opened = match[2], int(match[4]), match[5] or ""
        if result < 0:
            continue
        texts = [_bytes(text) for text in _TEXT.findall(arguments)]
        file = _FILE.match(arguments)
        path = (
            opened
            if name == "openat"
            else texts[0].decode()
            if name in ("rename", "unlink")
            else file[2]
            if file
            else ""
        )
        if name == "write" and file and file[1] == "1":
            yield Call("said", "", texts[0], 0, begun)
        elif path.startswith(folder):
            if name == "openat" and "O_CREAT" not in arguments:
                continue
            offset = int(arguments.rsplit(",", 1)[1]) if name in ("pwrite64", "ftruncate") else 0
            data = texts[1] if name == "rename" else texts[0] if "write" in name else b""
            truncating = b"truncating" if name == "openat" and "O_TRUNC" in arguments else b""
            yield Call(name, path, data or truncating, offset, begun)


def _bytes(text: str) -> bytes:
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


@dataclass
class Disk:
    """The names there are, the bytes behind them, and what is not yet safe: by call, as changes of the one or the
    other.
    """

    names: dict[str, int] = field(default_factory=dict)
    data: dict[int, bytearray] = field(default_factory=dict)

    def put(self, number: int, offset: int, data: bytes) -> None:
        content = self.data.setdefault(number, bytearray())
        content.extend(bytes(max(offset + len(data) - len(content), 0)))
        content[offset : offset + len(data)] = data

    def copy(self) -> Disk:
        return Disk(dict(self.names), {number: bytearray(data) for number, data in self.data.items()})


class Change(NamedTuple):
    """A change that is not safe yet: of the file `number`, or of the names where `number` is 0."""

    number: int
    place: int
    apply: Callable[[Disk], None]
    write: tuple[int, bytes] | None = None


def moments(made: list[Call]) -> Iterator[tuple[Disk, list[Change], int]]:
    """After each call: what the disk has for certain, what it may have, and what was acknowledged by then."""
    seen, safe = Disk(), Disk()
    waiting: list[Change] = []
    ends: dict[str, int] = {}
    acked, numbers = 0, 0
    for place, call in enumerate(made):
        number = seen.names.get(call.path, 0)
        if call.name == "said":
            acked = max([acked, *map(int, re.findall(rb"ack (\d+)", call.data))])
        elif call.name == "openat":
            ends[call.path] = 0
            if not number:
                numbers += 1
                waiting.append(Change(0, place, _named(call.path, numbers)))
                waiting[-1].apply(seen)
            elif call.data:
                waiting.append(Change(number, place, _cut(number, 0)))
        elif call.name in ("write", "pwrite64"):
            offset = call.offset if call.name == "pwrite64" else ends[call.path]
            ends[call.path] = offset + len(call.data)
            waiting.append(Change(number, place, _written(number, offset, call.data), (offset, call.data)))
        elif call.name == "ftruncate":
            waiting.append(Change(number, place, _cut(number, call.offset)))
        elif call.name == "rename":
            waiting.append(Change(0, place, _renamed(call.path, call.data.decode())))
            waiting[-1].apply(seen)
        elif call.name == "unlink":
            waiting.append(Change(0, place, _renamed(call.path, "")))
            waiting[-1].apply(seen)
        elif call.name in ("fsync", "fdatasync"):
            # what another thread wrote while the sync was under way need not be part of it
            for change in [c for c in waiting if c.number == number and made[c.place].begun < call.begun]:
                change.apply(safe)
                waiting.remove(change)
        yield safe, waiting, acked


def _named(path: str, number: int) -> Callable[[Disk], None]:
    return lambda disk: disk.names.update({path: number})


def _renamed(old: str, new: str) -> Callable[[Disk], None]:
    def rename(disk: Disk) -> None:
        number = disk.names.pop(old, None)
        if new and number is not None:
            disk.names[new] = number

    return rename


def _written(number: int, offset: int, data: bytes) -> Callable[[Disk], None]:
    return lambda disk: disk.put(number, offset, data)


def _cut(number: int, size: int) -> Callable[[Disk], None]:
    def cut(disk: Disk) -> None:
        content = disk.data.setdefault(number, bytearray())
        del content[size:]
        content.extend(bytes(size - len(content)))

    return cut


def after_the_cut(safe: Disk, waiting: list[Change], random: np.random.Generator) -> Disk:
    """What may be found: of the writes any, whole or torn at a sector; of the changes of names the first few, as
    file systems keep their order.
    """
    disk = safe.copy()
    named = [change for change in waiting if not change.number]
    for change in named[: int(random.integers(0, len(named) + 1))]:
        change.apply(disk)
    for change in waiting:
        kind = random.random()
        if not change.number or kind < 0.4:
            continue
        if kind < 0.55 and change.write:
            offset, data = change.write
            disk.put(change.number, offset, data[: SECTOR * int(random.integers(0, len(data) // SECTOR + 1))])
        else:
            change.apply(disk)
    return disk


@cache
def reference(step: int) -> bytes:
    return state(live(Pipeline(settings(), model().weights), steps(step)))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str], str]) -> tuple[Path, list[Call]]:
    """The folder of a run, and every call it made there."""
    folder = tmp_path_factory.mktemp("power") / "state"
    trace = folder.parent / "trace"
    options = ["-f", "-qq", "-y", "-x", "-s", "5000000", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(trace)]
    command = [debian("strace"), *options, *WORKER, str(folder), str(COUNT), str(EVERY)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "done" in run.stdout
    return folder, list(calls(trace.read_text("latin-1"), str(folder)))


def test_the_recording_has_all_of_the_run(recorded: tuple[Path, list[Call]]) -> None:
    """Were a write missing, what is made from the record would not be what the run left."""
    folder, made = recorded
    *_, (safe, waiting, acked) = moments(made)
    disk = safe.copy()
    for change in waiting:
        change.apply(disk)
    assert acked == COUNT
    for path in folder.iterdir():
        if path.name != "lock":
            assert bytes(disk.data[disk.names[str(path)]]) == path.read_bytes(), path.name


def test_fault_3_whenever_the_power_goes_all_that_was_acknowledged_is_there(
    recorded: tuple[Path, list[Call]], tmp_path: Path
) -> None:
    folder, made = recorded
    random = np.random.default_rng(0)
    chosen = set(random.choice(len(made), MOMENTS, replace=False).tolist())
    reached, behind = set(), 0
    for place, (safe, waiting, acked) in enumerate(moments(made)):
        if place not in chosen:
            continue
        disk, found_in = after_the_cut(safe, waiting, random), tmp_path / f"{place}"
        found_in.mkdir()
        for path, number in disk.names.items():
            # the index of the write-ahead log is made anew by whoever opens it first
            if not path.endswith("-shm"):
                (found_in / Path(path).relative_to(folder)).write_bytes(disk.data.get(number, b""))
        store = Store.open(found_in)
        found = recover(store, settings(), model().weights, models_of(store).__getitem__)
        store.close()
        assert found.whole, (place, found.reports)
        assert not found.reports + store.reports, place
        assert found.step >= acked, place
        assert state(found.pipeline) == reference(found.step), place
        reached.add(found.step)
        behind += found.step > acked
    assert len(reached) > 20, "the moments are spread over the run"
    assert behind, "some had more than was acknowledged"
