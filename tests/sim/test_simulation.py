"""Two hundred small worlds with everything going wrong in them; `python -m forecastd.tests.sim 0 10000` has more.

The invariants are those of `World.check` and `World.audit`.
"""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest

from forecastd.daemon.database import Commit
from forecastd.daemon.disk import Failed
from forecastd.tests.sim.disk import Disk, Folder
from forecastd.tests.sim.world import World

WORLDS = int(os.environ.get("FORECASTD_WORLDS", "200"))
GROUPS = 20


@pytest.fixture(autouse=True)
def quiet() -> object:
    """What the daemon warns of is what the worlds do to it."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("group", range(GROUPS))
def test_faults_1_2_3_4_5_6_10_11_12_19_32_nothing_acknowledged_is_lost_nothing_applied_twice(group: int) -> None:
    """In all mixtures; after each recovery the state is that of a run without interruption, to the bit."""
    for seed in range(group, WORLDS, GROUPS):
        World(seed).run()


def test_a_seed_gives_the_same_world_again() -> None:
    """In each there is trouble; so a world that fails can be looked at."""
    one, other = World(64).run(), World(64).run()
    assert one.log == other.log
    assert one.seen == other.seen
    assert one.seen["recoveries"] > 2


def test_the_worlds_have_all_kinds_of_trouble_in_them() -> None:
    """What never happens is not shown to be survived."""
    seen = sum((World(seed).run().seen for seed in range(40)), start=World(0).seen)
    for what in ("killed", "power lost", "stopped", "the disk is nearly full", "killed in the middle of a write"):
        assert seen[what], what
    for what in ("snapshots", "skipped", "cannot start", "a snapshot was damaged"):
        assert seen[what], what
    assert seen["acked"] > 5_000


def commit(step: int) -> Commit:
    return Commit(step, 1, 1, 1, 0.0, b"x" * 50)


def test_the_simulated_disk_forgets_what_was_not_synced() -> None:
    disk = Disk(np.random.default_rng(0))
    kept = set()
    for _ in range(30):
        disk.create("a")
        disk.sync("")
        disk.write("a", 0, b"old")
        disk.sync("a")
        disk.write("a", 0, b"new")
        disk.lose_power()
        kept.add(disk.seen.read("a"))
    assert {b"old", b"new"} < kept, "and torn ones in between"


def test_the_simulated_disk_lies_after_a_failed_sync() -> None:
    disk = Disk(np.random.default_rng(0))
    disk.create("a")
    disk.sync("")
    disk.write("a", 0, b"data")

    def fault(operation: str) -> None:
        disk.fault = lambda operation: None
        raise Failed("Input/output error")

    disk.fault = fault
    with pytest.raises(Failed):
        disk.sync("a")
    disk.sync("a")
    assert disk.seen.read("a") == b"data"
    disk.lose_power()
    assert disk.seen.read("a") == b""


def test_the_simulated_folder_keeps_what_it_said_it_has() -> None:
    """It keeps what it promises as SQLite does, so that what the worlds find is not its own fault."""
    for seed in range(50):
        disk = Disk(np.random.default_rng(seed))
        folder = Folder(disk)
        for step in range(1, 4):
            folder.commit(commit(step))
        folder.save(3, [b"snap", b"shot"])
        disk.write("journal", folder._end, b"half a record that was never committed")
        disk.lose_power()
        found = Folder(disk)
        assert [one.step for one in found.commits()] == [1, 2, 3]
        assert found.load(3) == b"snapshot"
        found.commit(commit(4))
        assert [one.step for one in Folder(disk).commits()] == [1, 2, 3, 4]
