"""From the disk to the pipeline as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from forecastd.daemon.admission import Admission
from forecastd.daemon.batch import Batch
from forecastd.daemon.database import Commit, Life
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.record import Damaged, Encoder, Entry, Foreign
from forecastd.daemon.recovery import Recovery, recover
from forecastd.daemon.settings import Settings
from forecastd.daemon.snapshot import FORMAT, MAGIC, capture, encode, shaping
from forecastd.daemon.store import FILE, Store
from forecastd.models.kernel import Kernel, OpenWindows
from forecastd.models.weights import Weights, digest
from forecastd.tests.feed import live, model, settings, state, steps

Stream = Iterable[tuple[Batch, float]]


class Past:
    """A folder in which a daemon has worked: `run` takes steps, a commit for every three, and keeps a snapshot
    where it is told to.
    """

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(folder)
        self.core = Pipeline(settings(), model().weights)
        self.life = self.begin(settings(), model().weights)
        self.step = 0
        self.named = 0

    def begin(self, chosen: Settings, weights: Weights) -> int:
        self.life = self.store.db.enter(Life(shaping(chosen), digest(weights)), 0.0, b"model")
        return self.life

    def run(self, stream: Stream, snapshots: Iterable[int] = ()) -> None:
        group: list[Entry] = []
        for batch, now in stream:
            self.step += 1
            effects = self.core.step(batch, now)
            group.append(Entry(self.step, now, batch, effects.recorded, effects.taken))
            if len(group) == 3:
                self.commit(group)
                group = []
            if self.step in snapshots:
                self.store.save(self.step, encode(capture(self.core, self.step)))
        if group:
            self.commit(group)

    def commit(self, group: list[Entry]) -> None:
        names = self.core.names[self.named :]
        body = Encoder(self.core.rows).blob(group)
        self.store.commit(Commit(group[0].step, len(group), 0, self.life, group[-1].now, body), names, self.named)
        self.named = len(self.core.names)

    def recover(self, chosen: Settings | None = None, weights: Weights | None = None) -> Recovery:
        known = {digest(m.weights): m.weights for m in (model(0), model(1), model(2, units=7))}
        return recover(self.store, chosen or settings(), weights or model().weights, known.__getitem__)


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return Past(tmp_path)


@pytest.mark.parametrize("snapshots", [(), (20,), (20, 41), (60,), (1,)])
def test_fault_1_what_is_recovered_is_what_there_was_to_the_bit(past: Past, snapshots: tuple[int, ...]) -> None:
    """Wherever the snapshot falls, within a group of steps that were committed together too."""
    past.run(steps(60), snapshots)
    found = past.recover()
    assert (found.whole, found.step, found.base) == (True, 60, max(snapshots, default=0))
    assert state(found.pipeline) == state(past.core)


def test_it_goes_on_as_an_uninterrupted_run_would(past: Past) -> None:
    past.run(steps(60), (30,))
    core = past.recover().pipeline
    assert state(live(core, steps(120, first=60))) == state(live(Pipeline(settings(), model().weights), steps(120)))


def test_the_kernel_does_not_run_in_a_replay(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    past.run(steps(60))

    def never(*_: Any) -> Any:
        raise AssertionError("the kernel ran")

    monkeypatch.setattr(Kernel, "forward", never)
    monkeypatch.setattr(OpenWindows, "forecast", never)
    assert state(past.recover().pipeline) == state(past.core)


def test_a_replay_knows_the_rows_and_looks_no_name_up(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the names that are new with a step."""
    past.run(steps(60))
    looked = []

    class Rows(dict[str, int]):
        def get(self, name: str, default: Any = None) -> Any:
            looked.append(name)
            return super().get(name, default)

    begin = Admission.__init__

    def spied(self: Admission, *arguments: Any) -> None:
        begin(self, *arguments)
        self.rows = Rows()

    monkeypatch.setattr(Admission, "__init__", spied)
    found = past.recover()
    monkeypatch.undo()
    assert state(found.pipeline) == state(past.core)
    assert len(looked) < found.replayed / 4


def test_a_replay_gives_what_the_kernel_said_then_not_what_it_would_say_now(past: Past) -> None:
    """Another machine's matrix product may differ in the last bits: here it differs in all of them."""
    past.run(steps(60))
    past.store.db._db.execute("DELETE FROM models")
    known = {digest(model().weights): model(1).weights}
    found = recover(past.store, settings(), model().weights, known.__getitem__)
    assert state(found.pipeline) == state(past.core)


def test_an_empty_folder_is_a_beginning(past: Past) -> None:
    found = past.recover()
    assert (found.step, found.whole, found.reports) == (0, True, [])
    assert state(found.pipeline) == state(Pipeline(settings(), model().weights))


def test_runs_with_other_settings_and_models_are_gone_through_with_theirs(past: Past) -> None:
    """A daemon was started three times, with another horizon, then with a model of another width. Recovery gives
    the same with and without the snapshots of the time between.
    """
    past.run(steps(40), (20,))
    for chosen, weights, count in (
        (settings(horizon=3), model().weights, 70),
        (settings(horizon=3), model(2, 7).weights, 110),
    ):
        past.core = past.recover(chosen, weights).pipeline
        past.begin(chosen, weights)
        past.run(steps(count, first=past.step), (past.step + 5,))
    with_snapshots = past.recover(chosen, weights)
    assert with_snapshots.base == 75
    for step in past.store.snapshots():
        past.store.discard(step)
    without = past.recover(chosen, weights)
    assert (without.base, without.step) == (0, 110)
    assert state(with_snapshots.pipeline) == state(without.pipeline) == state(past.core)


def spoil(path: Path, place: int = 5000) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_fault_6_a_damaged_snapshot_is_passed_over_for_the_one_before(past: Past, tmp_path: Path) -> None:
    """Nothing is lost, for the journal goes back further than the newest snapshot."""
    past.run(steps(60), (20, 40))
    spoil(tmp_path / f"snapshot-{40:020d}.state")
    found = past.recover()
    assert (found.base, found.step, found.whole, found.damaged) == (20, 60, True, [40])
    assert "step 40" in found.reports[0]
    assert state(found.pipeline) == state(past.core)
    spoil(tmp_path / f"snapshot-{20:020d}.state")
    found = past.recover()
    assert (found.base, found.step, found.whole, found.damaged) == (0, 60, True, [40, 20])
    assert state(found.pipeline) == state(past.core)


def test_a_damaged_commit_ends_the_replay_before_it(past: Past) -> None:
    past.run(steps(60), (20,))
    past.store.db._db.execute("UPDATE commits SET body = zeroblob(100) WHERE step = 31")
    found = past.recover()
    assert (found.step, found.whole) == (30, False)
    assert "step 31" in found.reports[-1]
    assert state(found.pipeline) == state(live(Pipeline(settings(), model().weights), steps(30)))


def test_a_damaged_commit_before_the_snapshot_does_no_harm(past: Past) -> None:
    past.run(steps(60), (40,))
    past.store.db._db.execute("UPDATE commits SET body = zeroblob(100) WHERE step = 31")
    found = past.recover()
    assert (found.step, found.whole) == (60, True)


def test_steps_that_are_missing_are_noticed(past: Past) -> None:
    past.run(steps(60))
    past.store.db._db.execute("DELETE FROM commits WHERE step = 31")
    found = past.recover()
    assert (found.step, found.whole) == (30, False)
    assert found.reports == ["the journal lacks the steps 31 to 33"]


@pytest.mark.parametrize("table", ["names", "lives"])
def test_without_names_or_settings_the_snapshot_is_all_there_is(past: Past, table: str) -> None:
    past.run(steps(60), (20,))
    past.store.db._db.execute(f"UPDATE {table} SET checksum = 0")  # noqa: S608
    found = past.recover()
    assert (found.step, found.whole) == (20, False)
    assert state(found.pipeline) == state(live(Pipeline(settings(), model().weights), steps(20)))


def test_without_the_model_of_a_run_the_snapshot_is_all_there_is(past: Past) -> None:
    past.run(steps(60), (20,))

    def none(sha256: str) -> Weights:
        raise Damaged(f"the model {sha256[:12]} cannot be read")

    found = recover(past.store, settings(), model().weights, none)
    assert (found.step, found.whole) == (20, False)


def test_fault_7_a_snapshot_of_a_newer_forecastd_stops_it(past: Past, tmp_path: Path) -> None:
    """It is not damaged, and must not be replaced."""
    past.run(steps(60), (20,))
    path = tmp_path / f"snapshot-{20:020d}.state"
    data = bytearray(path.read_bytes())
    data[len(MAGIC)] = FORMAT + 1
    path.write_bytes(data)
    with pytest.raises(Foreign):
        past.recover()


def test_fault_2_a_log_cut_short_anywhere_gives_a_state_there_was(past: Past, tmp_path: Path) -> None:
    """The write-ahead log is cut at every 97th byte, as a crash may leave it. What was committed before
    the cut is there.
    """
    past.run(steps(30))
    states = [state(Pipeline(settings(), model().weights))]
    core = Pipeline(settings(), model().weights)
    for batch, now in steps(30):
        core.step(batch, now)
        states.append(state(core))
    database, log = (tmp_path / FILE).read_bytes(), (tmp_path / f"{FILE}-wal").read_bytes()
    reached = set()
    for number, cut in enumerate(range(0, len(log), 4099)):
        folder = tmp_path / f"cut-{number}"
        folder.mkdir()
        (folder / FILE).write_bytes(database)
        (folder / f"{FILE}-wal").write_bytes(log[:cut])
        store = Store.open(folder)
        found = recover(store, settings(), model().weights, lambda sha256: model().weights)
        assert found.whole
        assert state(found.pipeline) == states[found.step]
        reached.add(found.step)
        store.close()
    assert max(reached) >= 27
    assert len(reached) > 5


def test_the_file_says_what_sqlite_would_say(past: Past, tmp_path: Path) -> None:
    """The state can be looked at with nothing but sqlite3."""
    past.run(steps(6))
    rows = sqlite3.connect(tmp_path / FILE).execute("SELECT step, steps, life FROM commits").fetchall()
    assert rows == [(1, 3, 1), (4, 3, 1)]
