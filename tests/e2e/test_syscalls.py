"""Real processes and a real disk that refuses: killed, or lied to, at single system calls of a commit and of a
snapshot.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from forecastd.daemon.keeper import models_of
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.recovery import Recovery, recover
from forecastd.daemon.store import Store
from forecastd.tests.feed import live, model, settings, state, steps

COUNT, EVERY = 36, 9
WORKER = [sys.executable, str(Path(__file__).with_name("worker.py"))]
#: Calls a run makes on files of its state, by name, at least; the tests kill at some of them, `make soak` at all.
CALLS = ("pwrite64", "fdatasync", "write", "fsync", "rename", "unlink", "openat")
ALL = bool(os.environ.get("FORECASTD_SOAK"))

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(debian: Callable[[str], str], tmp_path: Path) -> Run:
    """`run(*injections)`: the worker under strace, on the folder of this test."""
    strace = debian("strace")

    def start(
        *injections: str, folder: Path = tmp_path / "state", limit_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        traced = ",".join({injection.split(":")[0] for injection in injections}) or "none"
        options = [strace, "-f", "-qq", "-o", str(tmp_path / "trace"), "-e", f"trace={traced}"]
        for injection in injections:
            options += ["-e", f"inject={injection}"]
        if injections:
            options += [option for path in state_files(folder) for option in ("-P", path)]
        command = [*options, *WORKER, str(folder), str(COUNT), str(EVERY)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60.0)

    return start


@cache
def reference(step: int) -> bytes:
    return state(live(Pipeline(settings(), model().weights), steps(step)))


def acked(output: str) -> int:
    return max(map(int, re.findall(r"^ack (\d+)$", output, re.M)), default=0)


def recovered(folder: Path) -> Recovery:
    store = Store.open(folder)
    try:
        return recover(store, settings(), model().weights, models_of(store).__getitem__)
    finally:
        store.close()


def check(folder: Path, told: int) -> None:
    """What was acknowledged is there, and the state is one that an uninterrupted run had."""
    found = recovered(folder)
    assert found.whole
    assert found.step >= told
    assert state(found.pipeline) == reference(found.step)


def points(calls: int) -> Iterator[int]:
    yield from range(1, calls + 1) if ALL else sorted({1, 2, calls // 3, calls // 2, calls - 1, calls} - {-1, 0})


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, debian: Callable[[str], str]) -> dict[str, int]:
    """How often one thread of an undisturbed run makes each call on its state: strace counts by thread."""
    folder = tmp_path_factory.mktemp("calls")
    paths = [option for path in state_files(folder / "state") for option in ("-P", path)]
    command = [debian("strace"), "-f", "-qq", "-o", str(folder / "trace"), "-e", f"trace={','.join(CALLS)}", *paths]
    subprocess.run([*command, *WORKER, str(folder / "state"), str(COUNT), str(EVERY)], check=True, capture_output=True)
    made = Counter(re.findall(r"^(\d+) +(\w+)\(", (folder / "trace").read_text(), re.M))
    return {call: max(count for (_, name), count in made.items() if name == call) for call in CALLS}


def state_files(folder: Path) -> list[str]:
    """Strace is to look at these alone: an interpreter opens a thousand files of its own."""
    names = ["journal.db", "journal.db-wal", "journal.db-journal"]
    for step in range(0, COUNT + 1, EVERY):
        names += [f".snapshot-{step:020d}.state", f"snapshot-{step:020d}.state"]
    return [str(folder), *(str(folder / name) for name in names)]


@pytest.mark.parametrize("call", CALLS)
def test_faults_1_2_killed_at_a_call_it_recovers_all_it_acknowledged_to_the_bit(
    call: str, calls: dict[str, int], run: Run, tmp_path: Path
) -> None:
    """Commits and snapshots run side by side, and the kill falls into either. The run after it
    goes on to the end.
    """
    assert calls[call]
    for number in points(calls[call]):
        folder = tmp_path / f"{number}"
        killed = run(f"{call}:signal=KILL:when={number}", folder=folder)
        assert killed.returncode != 0 or "done" in killed.stdout
        check(folder, acked(killed.stdout))
        rest = run(folder=folder)
        assert "done" in rest.stdout
        check(folder, COUNT)


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_fault_5_a_failed_sync_ends_it_and_is_never_tried_again(
    call: str, calls: dict[str, int], run: Run, tmp_path: Path
) -> None:
    """The call fails once, all later ones succeed, which proves nothing. Nothing is acknowledged after
    it; the next run trusts only what it has written anew.
    """
    for number in points(calls[call]):
        folder = tmp_path / f"{number}"
        failed = run(f"{call}:error=EIO:when={number}", folder=folder)
        if "INJECTED" not in (tmp_path / "trace").read_text():
            continue  # the last ones are not made by every run
        assert failed.returncode == 1, failed.stderr
        assert "Traceback" not in failed.stderr
        lines = failed.stdout.splitlines()
        assert lines[-1].startswith("failed")
        check(folder, acked(failed.stdout))
        rest = run(folder=folder)
        assert "done" in rest.stdout
        assert list(folder.glob("journal.db.[0-9]*")), "the old journal is not written to again"
        check(folder, COUNT)


def test_fault_4_a_disk_that_is_full_for_a_while_stops_acknowledgements_for_that_while(
    calls: dict[str, int], run: Run, tmp_path: Path
) -> None:
    half = calls["pwrite64"] // 2
    folder = tmp_path / "state"
    full = run(f"pwrite64:error=ENOSPC:when={half}..{half + 3}", folder=folder)
    assert full.returncode == 0, full.stderr
    assert acked(full.stdout) == COUNT
    check(folder, COUNT)


def test_fault_32_a_slow_disk_loses_nothing(run: Run, tmp_path: Path) -> None:
    """Every sync takes 100 ms."""
    folder = tmp_path / "state"
    slow = run("fdatasync:delay_enter=100000", folder=folder)
    assert slow.returncode == 0, slow.stderr
    assert acked(slow.stdout) == COUNT
    check(folder, COUNT)
