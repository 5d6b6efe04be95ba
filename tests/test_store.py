"""The state folder: its lock, its snapshots, and what is damaged in it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forecastd.daemon.database import Commit
from forecastd.daemon.record import Damaged
from forecastd.daemon.store import FILE, SNAPSHOTS_KEPT, Locked, Store

HOLD = """
import sys
from forecastd.daemon.store import Store
store = Store.open(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def one(step: int) -> Commit:
    return Commit(step, 1, 1, 1, float(step), b"body")


def test_fault_31_a_second_daemon_is_refused_and_told_who_holds_the_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked, match=f"in use by process {holder.pid}"):
            Store.open(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        Store.open(tmp_path).close()
    finally:
        holder.kill()
        holder.communicate()


def test_a_folder_is_free_as_soon_as_it_is_closed(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    Store.open(tmp_path).close()


def test_a_folder_can_be_read_while_a_daemon_uses_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.commit(one(1))
    reader = Store.read(tmp_path)
    assert [commit.step for commit in reader.commits()] == [1]
    store.commit(one(2))
    assert [commit.step for commit in reader.commits()] == [1, 2]


def test_a_folder_without_a_journal_is_not_made_by_looking_at_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no journal"):
        Store.read(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_its_owners_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    store = Store.open(folder)
    store.save(1, [b"x"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    store.close()
    folder.chmod(0o755)
    Store.open(folder).close()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_newest_snapshots_are_kept(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for step in range(1, 6):
        store.save(step, [b"of ", b"%d" % step])
    assert store.snapshots() == [5, 4]
    assert len(store.snapshots()) == SNAPSHOTS_KEPT
    assert store.load(5) == b"of 5"


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> object:
        yield b"begun"
        raise KeyboardInterrupt

    store = Store.open(tmp_path)
    store.save(1, [b"whole"])
    with pytest.raises(KeyboardInterrupt):
        store.save(1, broken())  # type: ignore[arg-type]
    assert store.load(1) == b"whole"
    assert not list(tmp_path.glob(".snapshot*"))


def test_what_a_killed_daemon_left_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    (tmp_path / ".snapshot-00000000000000000007.state").write_bytes(b"half")
    store = Store.open(tmp_path)
    assert store.snapshots() == []
    assert not list(tmp_path.glob(".snapshot*"))


def test_a_snapshot_that_is_not_there_is_damage_and_nothing_worse(tmp_path: Path) -> None:
    with pytest.raises(Damaged):
        Store.open(tmp_path).load(3)


def test_a_damaged_snapshot_is_kept_to_be_looked_at_and_no_longer_used(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for step in range(1, 5):
        store.save(step, [b"spoilt"])
        store.discard(step)
    assert store.snapshots() == []
    assert len(list(tmp_path.glob("damaged-*"))) == 2


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, bytes(8192)])
def test_a_file_that_is_no_journal_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    store = Store.open(tmp_path)
    store.commit(one(1))
    store.close()
    if content.strip(b"\0"):
        assert (tmp_path / f"{FILE}.1").read_bytes() == content
        assert "set aside" in store.reports[0]
    assert [commit.step for commit in Store.read(tmp_path).commits()] == [1]


def test_a_journal_that_is_set_aside_is_still_whole_under_its_new_name(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for number in range(4):
        store.commit(one(number + 1))
        store.set_aside("for a test")
    assert list(store.commits()) == []
    assert sorted(path.name for path in tmp_path.glob(f"{FILE}.*") if path.suffix[1:].isdecimal()) == [
        f"{FILE}.3",
        f"{FILE}.4",
    ]
    store.close()
    for end in ("", "-wal", "-shm"):
        if (tmp_path / f"{FILE}.4{end}").exists():
            os.replace(tmp_path / f"{FILE}.4{end}", tmp_path / f"{FILE}{end}")
    assert [commit.step for commit in Store.read(tmp_path).commits()] == [4]


def test_the_word_that_the_disk_failed_can_be_left_and_taken_back(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    assert not store.suspect
    store.mark(suspect=True)
    assert store.suspect
    store.mark(suspect=False)
    assert not store.suspect
