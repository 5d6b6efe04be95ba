"""Group commit: nothing is acknowledged before the disk has it, and nothing waits for the disk."""

from __future__ import annotations

import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecastd.daemon import copied
from forecastd.daemon import journal as module
from forecastd.daemon.batch import Batch, Parcel, Reply
from forecastd.daemon.database import Commit, Life
from forecastd.daemon.disk import Failed, Full
from forecastd.daemon.journal import Journal
from forecastd.daemon.lineage import Change, Lineage
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.recovery import recover
from forecastd.daemon.snapshot import capture, freeze, shaping
from forecastd.daemon.store import Store
from forecastd.daemon.writer import Writer
from forecastd.models.weights import Weights, digest
from forecastd.tests.feed import model, settings, state, steps


class Disk:
    """A disk that does as it is told: `refuse` is raised by every write while it is set."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.refuse: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        self.commits: list[Commit] = []
        self.marked = False

    def commit(self, commit: Commit, *rest: Any, copies: Mapping[int, bytes | None]) -> None:
        self.meanwhile()
        self._gate()
        self.store.commit(commit, *rest, copies=copies)
        self.commits.append(commit)

    def save(self, step: int, pieces: Iterable[bytes | memoryview]) -> None:
        self._gate()
        self.store.save(step, pieces)

    def tidy(self, through: int, before: float, bytes_max: int) -> int:
        self._gate()
        return self.store.tidy(through, before, bytes_max)

    def mark(self, suspect: bool) -> None:
        self.marked = suspect
        self.store.mark(suspect)

    def _gate(self) -> None:
        if self.refuse:
            raise self.refuse


class Rig:
    """A pipeline with its journal, without threads: the test says when the disk gets its turn, and what time it is."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.store = Store.open(folder)
        self.disk = Disk(self.store)
        self.core = Pipeline(settings(), model().weights)
        self.now = 0.0
        life = self.store.db.enter(Life(shaping(settings()), ""), 0.0)
        self.journal = Journal(self.disk, self.core.names, self.core.rows, life=life, clock=lambda: self.now, **options)
        self.stream = steps(10_000)
        self.taken = 0
        self.at_once: list[Reply] = []

    def step(
        self,
        count: int = 1,
        copies: dict[int, Weights | None] | None = None,
        changes: Sequence[Change] = (),
        replies: bool = True,
    ) -> None:
        for _ in range(count):
            batch, now = next(self.stream)
            effects = self.core.step(batch, now)
            effects.copies, effects.changes = copies or {}, list(changes)
            self.taken += 1
            told = [Reply(b"peer", ack=self.taken)] if replies else []
            self.at_once += self.journal.append(batch, now, effects, told)

    def acks(self) -> list[int]:
        return [reply.ack for reply in self.journal.durable()]

    def snapshot(self) -> None:
        assert self.journal.due()
        self.journal.keep(capture(self.core, self.journal.step))

    def recovered(self) -> Pipeline:
        reader = Store.read(self.folder)
        found = recover(reader, settings(), model().weights, {"": model().weights}.__getitem__)
        assert found.whole
        return found.pipeline


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.002)


def test_nothing_is_acknowledged_before_it_is_on_the_disk(rig: Rig) -> None:
    rig.step(3)
    assert rig.acks() == rig.at_once == []
    assert rig.journal.commit()
    assert rig.acks() == [1, 2, 3]
    assert state(rig.recovered()) == state(rig.core)


def test_of_a_flood_that_was_refused_the_disk_gets_the_counts_alone(rig: Rig) -> None:
    """And a replay counts the same; but what has numbers is kept, since those are dealt with."""
    rig.step(2)
    for seq in (0, 1):
        batch = Batch(
            [f" bad {n}" for n in range(500)], np.ones(500), np.ones(500), [Parcel(0, 500, producer="p", seq=seq)]
        )
        effects = rig.core.step(batch, rig.now)
        rig.journal.append(batch, rig.now, effects, [])
    rig.step(1)
    _, _, flood, numbered, _ = (waiting.entry for waiting in rig.journal._waiting)
    assert (len(flood.batch), flood.batch.refused) == (0, {"name": 500})
    assert len(numbered.batch) == 500
    assert rig.journal.commit()
    assert state(rig.recovered()) == state(rig.core)
    assert rig.recovered().admission.refused["name"] == 1_000


def test_names_reach_the_disk_with_the_steps_that_brought_them_and_no_sooner(rig: Rig) -> None:
    """The pipeline goes on while the disk works. A name of a step that a crash then takes would have a row that the
    next run gives to another name: all that comes after could not be read."""
    rig.step(3)
    known = list(rig.core.names)
    rig.core.names.append("of the step after")
    rig.core.rows["of the step after"] = len(known)
    assert rig.journal.commit()
    assert rig.store.names() == known


def test_what_waits_goes_in_one_commit(rig: Rig) -> None:
    rig.step(50)
    rig.journal.commit()
    rig.step(2)
    rig.journal.commit()
    assert [commit.steps for commit in rig.disk.commits] == [50, 2]
    assert not rig.journal.commit()


def test_a_group_is_cut_where_it_gets_too_large(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_MAX", 5_000)
    rig.step(60)
    while rig.journal.commit():
        pass
    assert len(rig.disk.commits) > 3
    assert sum(commit.steps for commit in rig.disk.commits) == 60
    assert rig.acks() == list(range(1, 61))
    assert state(rig.recovered()) == state(rig.core)


def test_acknowledgements_of_the_accepted_mode_do_not_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path, durable=False)
    rig.step(3)
    assert [reply.ack for reply in rig.at_once] == [1, 2, 3]
    rig.journal.commit()
    assert rig.acks() == []
    assert state(rig.recovered()) == state(rig.core)


def test_fault_4_a_full_disk_holds_acknowledgements_back_until_there_is_room(rig: Rig) -> None:
    rig.step(2)
    rig.journal.commit()
    rig.acks()
    rig.disk.refuse = Full("no room")
    rig.step(5)
    assert not rig.journal.commit()
    assert rig.acks() == []
    assert rig.journal.told()["journal_full"] == 1
    rig.step(5)
    assert not rig.journal.committable(), "a full disk is not tried again at once"
    rig.disk.refuse = None
    rig.now += module.RETRY_S
    while rig.journal.commit():
        pass
    assert rig.acks() == list(range(3, 13))
    assert rig.journal.told()["journal_full"] == 0
    assert state(rig.recovered()) == state(rig.core)


@pytest.fixture
def small(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(module, "WAITING_MAX", 20_000)
    return rig


def test_fault_4_a_disk_that_stays_full_costs_no_memory_and_a_snapshot_makes_good_for_it(small: Rig) -> None:
    """What waits is bounded; when there is room again everything is acknowledged that was taken, and all
    of it is there.
    """
    rig = small
    rig.step(2)
    rig.journal.commit()
    rig.disk.refuse = Full("no room")
    rig.step(300)
    assert rig.journal.told()["journal_waiting"] * 300 < 20_000
    assert rig.journal.told()["journal_held"] == 1
    assert rig.acks() == [1, 2]
    rig.now += 1
    rig.snapshot()
    assert not rig.journal.write()
    assert rig.acks() == []
    rig.step(3)
    rig.disk.refuse = None
    rig.now += 10
    rig.snapshot()
    rig.step(4)
    assert not rig.journal.commit(), "a commit that needs the snapshot does not come before it"
    assert rig.journal.write()
    assert max(rig.acks()) == 305
    assert rig.journal.commit()
    assert max(rig.acks()) == 309
    assert rig.journal.told()["journal_held"] == 0
    assert rig.journal.told()["journal_skipped"] > 0
    assert state(rig.recovered()) == state(rig.core)


def test_steps_let_go_of_while_a_snapshot_is_under_way_are_not_acknowledged_by_it(small: Rig) -> None:
    rig = small
    rig.disk.refuse = Full("no room")
    rig.step(300)
    rig.disk.refuse = None
    rig.now += 10
    rig.snapshot()
    rig.step(300)
    assert rig.journal.write()
    assert rig.acks() == []
    rig.now += 10
    rig.snapshot()
    rig.journal.write()
    assert max(rig.acks()) == 600
    assert state(rig.recovered()) == state(rig.core)


def test_replies_that_wait_for_a_snapshot_are_bounded(small: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand peers that come and go while the disk is full cost no memory; who is left hears of the newest."""
    monkeypatch.setattr(module, "HELD_MAX", 50)
    rig = small
    rig.disk.refuse = Full("no room")
    for number in range(1000):
        batch, now = next(rig.stream)
        replies = [Reply(b"%d" % number, ack=number), Reply(b"same", ack=number), Reply(b"%d" % number, 0, "name", 7)]
        rig.journal.append(batch, now, rig.core.step(batch, now), replies)
    rig.disk.refuse = None
    rig.now += 10
    rig.snapshot()
    rig.journal.write()
    told = rig.journal.durable()
    assert len(told) == 50
    assert Reply(b"same", ack=999) in told
    assert sum(reply.peer == b"same" for reply in told) == 1


def test_a_crash_while_acknowledgements_are_held_goes_back_to_what_was_acknowledged(small: Rig) -> None:
    rig = small
    rig.step(5)
    rig.journal.commit()
    before = state(rig.core)
    rig.disk.refuse = Full("no room")
    rig.step(300)
    assert state(rig.recovered()) == before


def test_fault_5_after_a_failure_nothing_is_ever_acknowledged_again(rig: Rig) -> None:
    """What succeeds after a failed fsync proves nothing."""
    rig.step(2)
    rig.journal.commit()
    rig.step(2)
    rig.disk.refuse = Failed("fsync: Input/output error")
    assert not rig.journal.commit()
    rig.disk.refuse = None
    assert rig.disk.marked
    rig.step(2)
    assert not rig.journal.committable()
    assert not rig.journal.commit()
    for _ in range(2):
        with pytest.raises(Failed, match="Input/output error"):
            rig.journal.durable()


def test_a_step_that_failed_halfway_is_made_good_by_a_snapshot(rig: Rig) -> None:
    rig.step(3)
    batch, now = next(rig.stream)
    rig.core.step(batch, now)
    rig.journal.lose()
    rig.step(1)
    assert not rig.journal.commit()
    assert rig.acks() == []
    rig.now += 1
    rig.snapshot()
    rig.journal.write()
    assert max(rig.acks()) == 4
    assert state(rig.recovered()) == state(rig.core)


def test_a_snapshot_is_due_when_a_replay_would_take_long(rig: Rig) -> None:
    batch, now = next(rig.stream)
    effects = rig.core.step(batch, now)
    for _ in range(9):
        rig.journal.append(batch, now, effects, [], spent_s=module.REPLAY_S / 8)
        if rig.journal.due():
            break
    else:
        pytest.fail("no snapshot is due")
    assert rig.journal.step == 9
    rig.journal.keep(capture(rig.core, rig.journal.step))
    assert not rig.journal.due(), "one at a time"
    rig.journal.commit()
    rig.now += 3
    assert rig.journal.write()
    rig.journal.append(batch, now, effects, [], spent_s=2 * module.REPLAY_S)
    assert not rig.journal.due(), "one that took three seconds is not made again at once"
    rig.now += 3 / module.SNAPSHOT_SHARE
    assert rig.journal.due()


def test_a_snapshot_waits_for_the_commits_it_contains(rig: Rig) -> None:
    """So the one before and the journal lead to the same state, should this one be damaged."""
    rig.step(3)
    rig.journal.keep(capture(rig.core, 3))
    assert not rig.journal.writable()
    rig.journal.commit()
    assert rig.journal.write()


def test_a_snapshot_waits_until_it_has_been_copied(rig: Rig) -> None:
    rig.step(3)
    kept = freeze(rig.core, 3)
    rig.journal.keep(kept)
    rig.journal.commit()
    assert not kept.whole and not rig.journal.writable()
    rig.step(3)
    while not kept.whole:
        kept.advance()
    rig.journal.whole()
    assert rig.journal.write()
    assert rig.store.snapshots() == [3]
    rig.journal.commit()
    assert state(rig.recovered()) == state(rig.core)


def test_journal_before_the_snapshot_but_one_is_forgotten_when_it_is_too_old(tmp_path: Path) -> None:
    rig = Rig(tmp_path, age_s=1.0)
    firsts = []
    for _ in range(6):
        for _ in range(70):
            rig.step()
            rig.journal.commit()
        rig.journal.keep(capture(rig.core, rig.journal.step))
        rig.journal.write()
        firsts.append(next(rig.store.commits()).step)
    assert firsts[0] == firsts[1] == 1
    assert firsts[5] > 200
    assert firsts[5] <= rig.store.snapshots()[1]
    assert state(rig.recovered()) == state(rig.core)


def test_the_loop_is_woken_when_there_is_something_to_say(rig: Rig) -> None:
    fd = rig.journal.fileno()
    writer = Writer(rig.journal)
    assert select.select([fd], [], [], 0)[0] == []
    rig.step()
    assert select.select([fd], [], [], 10)[0] == [fd]
    assert rig.acks() == [1]
    assert select.select([fd], [], [], 0)[0] == []
    rig.journal.close(5.0)
    assert writer.join(5.0)


def test_closing_waits_for_what_is_on_its_way(rig: Rig) -> None:
    writer = Writer(rig.journal)
    rig.step(200)
    rig.journal.close(10.0)
    assert writer.join(5.0)
    assert rig.acks() == list(range(1, 201))
    assert state(rig.recovered()) == state(rig.core)


def test_what_nobody_waits_for_gathers_until_somebody_does(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 60.0)
    fd, writer = rig.journal.fileno(), Writer(rig.journal)
    for _ in range(50):
        rig.step(replies=False)
    rig.step()
    assert select.select([fd], [], [], 10)[0] == [fd]
    assert [one.steps for one in rig.disk.commits] == [51]
    rig.step(replies=False)
    rig.journal.close(10.0)
    assert writer.join(5.0), "nothing more comes"
    assert [one.steps for one in rig.disk.commits] == [51, 1]


def test_what_nobody_waits_for_reaches_the_disk_soon(rig: Rig) -> None:
    writer = Writer(rig.journal)
    rig.step(replies=False)
    until(lambda: bool(rig.disk.commits), module.RETRY_S)
    rig.journal.close(5.0)
    assert writer.join(5.0)


def test_fault_32_a_slow_disk_makes_commits_larger_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    rig.now = time.monotonic()
    slow, gate = threading.Event(), threading.Semaphore(0)
    commit = rig.disk.commit

    def held(*args: Any, **changes: Any) -> None:
        slow.set()
        gate.acquire()
        commit(*args, **changes)

    monkeypatch.setattr(rig.disk, "commit", held)
    writer = Writer(rig.journal)
    rig.step()
    assert slow.wait(10)
    began = time.monotonic()
    rig.step(100)
    assert time.monotonic() - began < 5, "the loop went on"
    assert rig.acks() == []
    gate.release(10)
    until(lambda: len(rig.disk.commits) == 2)
    assert [one.steps for one in rig.disk.commits] == [1, 100]
    rig.journal.close(5.0)
    assert writer.join(5.0)
    assert rig.acks() == list(range(1, 102))


def test_whatever_goes_wrong_in_a_thread_stops_the_acknowledgements(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    rig.disk.refuse = ZeroDivisionError("a bug")
    Writer(rig.journal)
    fd = rig.journal.fileno()
    rig.step()
    assert select.select([fd], [], [], 10)[0] == [fd]
    with pytest.raises(Failed, match="a bug"):
        rig.journal.durable()


def test_fault_4_a_real_disk_without_room(tmp_path: Path) -> None:
    """With SQLite on a file system of a megabyte: forecasts go on, nothing is acknowledged, nothing is
    broken, and when there is room again all is acknowledged and there.
    """
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        (folder / "ballast").write_bytes(bytes(600 << 10))
        rig = Rig(folder)
        held = 0
        for _ in range(4000):
            rig.step()
            rig.journal.commit()
            rig.now += 1
            held = held + 1 if rig.journal.told()["journal_full"] else 0
            if held > 20:
                break
        assert held > 20
        assert max(rig.acks()) < rig.taken
        assert Store.read(folder).db.check() == []
        assert state(rig.recovered()) != state(rig.core)
        (folder / "ballast").unlink()
        rig.now += 10
        while rig.journal.commit():
            pass
        assert max(rig.acks()) == rig.taken
        assert state(rig.recovered()) == state(rig.core)
        rig.store.close()
    finally:
        subprocess.run(["umount", "-l", folder])


# ---- copies of series


def kept(rig: Rig) -> dict[int, str]:
    """The digests of the copies that the disk has."""
    sound, damaged = rig.store.copies()
    assert damaged == []
    return {row: digest(copied.decode(body)) for row, body in sound.items()}


def test_a_copy_reaches_the_disk_with_the_step_that_used_it_first(rig: Rig) -> None:
    """And goes with the step before which it was dropped; of several in a commit the last one counts."""
    first, second = model(1).weights, model(2).weights
    rig.step(1, {3: first, 4: first})
    assert kept(rig) == {}
    rig.journal.commit()
    assert kept(rig) == {3: digest(first), 4: digest(first)}
    rig.step(1, {3: None})
    rig.step(1, {3: second})
    rig.step(1, {4: None})
    rig.journal.commit()
    assert kept(rig) == {3: digest(second)}


def test_copies_of_steps_that_were_let_go_of_come_with_the_next_commit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot makes good for all else of those steps, but holds no weights."""
    first, second = model(1).weights, model(2).weights
    rig.disk.refuse = Full("no room")
    rig.step(1, {3: first, 4: first})
    assert not rig.journal.commit()
    monkeypatch.setattr(module, "WAITING_MAX", 1)
    rig.step(1, {3: second, 5: first})
    rig.step(1, {4: None})
    rig.now += 10.0
    assert not rig.journal.commit()
    rig.disk.refuse = None
    rig.snapshot()
    monkeypatch.undo()
    assert rig.journal.write()
    rig.step()
    rig.now += 10.0
    while rig.journal.commit():
        pass
    assert kept(rig) == {3: digest(second), 5: digest(first)}
    assert state(rig.recovered()) == state(rig.core)


def test_of_copies_that_were_let_go_of_the_newest_counts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the commit that fails at last has older ones than the steps that were let go of while it tried."""
    first, second = model(1).weights, model(2).weights
    monkeypatch.setattr(module, "WAITING_MAX", 1)

    def more() -> None:
        rig.disk.meanwhile = lambda: None
        rig.step(1, {3: second, 5: None})

    rig.disk.refuse, rig.disk.meanwhile = Full("no room"), more
    with monkeypatch.context() as patch:
        patch.setattr(module, "WAITING_MAX", 1 << 20)
        rig.step(1, {3: first, 4: first, 5: first})
    assert not rig.journal.commit()
    monkeypatch.undo()
    rig.disk.refuse = None
    rig.now += 10.0
    rig.snapshot()
    assert rig.journal.write()
    rig.step()
    while rig.journal.commit():
        pass
    assert kept(rig) == {3: digest(second), 4: digest(first)}


def test_a_snapshot_that_overtakes_the_steps_let_go_of_meanwhile_has_their_copies(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was made when those were still to reach the disk before it."""
    first = model(1).weights
    rig.disk.refuse = Full("no room")
    rig.step(1, {3: first})
    rig.now += 10.0
    rig.journal.keep(capture(rig.core, rig.journal.step))
    assert not rig.journal.writable()
    monkeypatch.setattr(module, "WAITING_MAX", 1)
    rig.step()
    assert rig.journal.writable()
    rig.disk.refuse = None
    assert rig.journal.write()
    found = recover(Store.read(rig.folder), settings(), model().weights, {"": model().weights}.__getitem__)
    assert {row: digest(copied.decode(body)) for row, body in found.copies.items()} == {3: digest(first)}


# ---- champions


def test_champions_reach_the_disk_with_their_step_and_in_order_also_those_that_were_let_go_of(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit that fails at last has the oldest; what was let go of meanwhile is newer."""
    lineage = Lineage()
    changes = [lineage.enter(sha256, 1.0, "tuned", b"file")[1][0] for sha256 in "abc"]
    crowns = [lineage.crown(number, "a", "promoted", now=1.0, step=number) for number in (1, 2, 3)]

    def more() -> None:
        rig.disk.meanwhile = lambda: None
        monkeypatch.setattr(module, "WAITING_MAX", 1)
        rig.step(1, changes=[changes[2], crowns[2]])

    rig.step(1, changes=[changes[0], crowns[0]])
    assert rig.store.lineage().champion() is None
    assert rig.journal.commit()
    rig.disk.refuse, rig.disk.meanwhile = Full("no room"), more
    rig.step(1, changes=[changes[1], crowns[1]])
    assert not rig.journal.commit()
    monkeypatch.undo()
    rig.disk.refuse = None
    rig.now += 10.0
    rig.snapshot()
    assert rig.journal.write()
    rig.step()
    while rig.journal.commit():
        pass
    found = rig.store.lineage()
    assert [champion.number for champion in found.champions] == [1, 2, 3]
    assert found.versions == lineage.versions
