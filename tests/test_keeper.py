"""The engine's state at its start and its end: what of a folder is used, set aside, refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forecastd.daemon import keeper as module
from forecastd.daemon.batch import Reply
from forecastd.daemon.disk import Failed, Full
from forecastd.daemon.keeper import CannotOpen, Ephemeral, Keeper
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.daemon.store import FILE, SUSPECT, Store
from forecastd.models.weights import Weights, digest
from forecastd.tests.feed import NOW, live, model, settings, state, steps


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_WAIT_S", 0.0)


def chosen(folder: Path, **changes: Any) -> Settings:
    return msgspec.structs.replace(settings(**changes), state=str(folder))


def work(keeper: Keeper, stream: Iterable[Any], snapshot: bool = False) -> list[Reply]:
    """Take steps; what the disk has acknowledged when the daemon ends."""
    for number, (batch, now) in enumerate(stream, 1):
        effects = keeper.pipeline.step(batch, now)
        assert keeper.append(batch, now, effects, [Reply(b"p", ack=number)], 10.0 if snapshot else 0.0) == []
        keeper.turn()
    return keeper.close()


def reference(count: int) -> bytes:
    return state(live(Pipeline(settings(), model().weights), steps(count)))


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_daemon_goes_on_where_the_last_one_ended(tmp_path: Path, snapshot: bool) -> None:
    for end in (30, 50, 90):
        keeper = Keeper.open(chosen(tmp_path), model(), NOW)
        assert state(keeper.pipeline) == reference(keeper._journal.step)
        work(keeper, steps(end, first=keeper._journal.step), snapshot)
    assert state(Keeper.open(chosen(tmp_path), model(), NOW).pipeline) == reference(90)
    assert bool(Store.read(tmp_path).snapshots()) == snapshot


def test_a_daemon_killed_again_and_again_has_not_more_to_replay_each_time(tmp_path: Path) -> None:
    """The time of a replay counts towards the next snapshot, so one is made soon after a start that took long."""
    ticks = iter(range(0, 10_000_000, 7))
    work(Keeper.open(chosen(tmp_path), model(), NOW), steps(30))
    keeper = Keeper.begin(Store.open(tmp_path), chosen(tmp_path), model(), NOW, clock=lambda: float(next(ticks)))
    keeper.turn()
    keeper.close()
    assert Store.read(tmp_path).snapshots() == [30]


def test_all_is_acknowledged_before_it_ends(tmp_path: Path) -> None:
    replies = work(Keeper.open(chosen(tmp_path), model(), NOW), steps(20))
    assert replies[-1] == Reply(b"p", ack=20)


def test_an_ephemeral_daemon_acknowledges_at_once_and_writes_nothing(tmp_path: Path) -> None:
    keeper = Ephemeral(chosen(tmp_path / "none"), model())
    (batch, now), *_ = steps(1)
    assert keeper.append(batch, now, keeper.pipeline.step(batch, now), [Reply(b"p", ack=1)], 0.0) == [
        Reply(b"p", ack=1)
    ]
    keeper.turn()
    assert (keeper.fileno(), keeper.durable(), keeper.told(), keeper.close()) == (None, [], {}, [])
    assert not (tmp_path / "none").exists()


def test_fault_31_a_folder_in_use_is_told_in_a_line(tmp_path: Path) -> None:
    keeper = Keeper.open(chosen(tmp_path), model(), NOW)
    with pytest.raises(CannotOpen, match=r"in use by process \d+; --state gives another"):
        Keeper.open(chosen(tmp_path), model(), NOW)
    keeper.close()
    Keeper.open(chosen(tmp_path), model(), NOW).close()


def test_a_folder_that_cannot_be_made_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotOpen, match="Not a directory"):
        Keeper.open(chosen(tmp_path / "file" / "state"), model(), NOW)


def test_fault_7_a_journal_of_a_newer_forecastd_is_refused_and_left_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.db._db.execute("PRAGMA user_version = 99")
    store.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(CannotOpen, match="use a newer forecastd"):
        Keeper.open(chosen(tmp_path), model(), NOW)
    assert (tmp_path / FILE).read_bytes() == before


def damage(folder: Path, step: int) -> None:
    store = Store.open(folder)
    store.db._db.execute("UPDATE commits SET checksum = 0 WHERE step <= ? AND step + steps > ?", (step, step))
    store.close()


def one_by_one(folder: Path, first: int, last: int) -> None:
    """A commit a step, so that a damaged one is one step."""
    for number in range(first, last):
        work(Keeper.open(chosen(folder), model(), NOW), steps(number + 1, first=number))


def test_what_comes_before_a_damaged_commit_is_kept_and_the_daemon_goes_on(tmp_path: Path) -> None:
    one_by_one(tmp_path, 0, 6)
    damage(tmp_path, 5)
    keeper = Keeper.open(chosen(tmp_path), model(), NOW)
    assert keeper.told()["journal_damaged"] > 0
    assert state(keeper.pipeline) == reference(4)
    work(keeper, steps(20, first=4))
    assert (tmp_path / f"{FILE}.1").exists()
    keeper = Keeper.open(chosen(tmp_path), model(), NOW)
    assert keeper.told()["journal_damaged"] == 0
    assert state(keeper.pipeline) == reference(20)


@pytest.mark.parametrize("stage", ["save", "set_aside", "enter"])
@pytest.mark.parametrize("fault", [Full("no room"), Failed("Input/output error")])
def test_a_disk_that_gives_out_during_the_repair_loses_nothing_more(
    tmp_path: Path, stage: str, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one(tmp_path, 0, 6)
    damage(tmp_path, 5)

    def refuse(*_: Any) -> None:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(Store, stage, refuse)
        with pytest.raises(CannotOpen):
            Keeper.open(chosen(tmp_path), model(), NOW)
    assert state(Keeper.open(chosen(tmp_path), model(), NOW).pipeline) == reference(4)


def test_fault_5_after_a_failure_of_the_disk_nothing_depends_on_what_it_was_thought_to_have(tmp_path: Path) -> None:
    """A new journal, and a new snapshot of all that could be read, before anything is acknowledged."""
    work(Keeper.open(chosen(tmp_path), model(), NOW), steps(30))
    store = Store.open(tmp_path)
    store.mark(suspect=True)
    store.close()
    keeper = Keeper.open(chosen(tmp_path), model(), NOW)
    assert state(keeper.pipeline) == reference(30)
    reader = Store.read(tmp_path)
    assert (reader.snapshots(), list(reader.commits()), reader.suspect) == ([30], [], False)
    work(keeper, steps(40, first=30))
    assert state(Keeper.open(chosen(tmp_path), model(), NOW).pipeline) == reference(40)


def test_a_change_of_settings_is_taken_over_and_can_be_gone_back_on(tmp_path: Path) -> None:
    work(Keeper.open(chosen(tmp_path), model(), NOW), steps(30))
    keeper = Keeper.open(chosen(tmp_path, horizon=3), model(), NOW)
    assert keeper.pipeline.settings.horizon == 3
    assert keeper.pipeline.samples > 0
    work(keeper, steps(50, first=30))
    after = state(keeper.pipeline)
    keeper = Keeper.open(chosen(tmp_path, horizon=3), model(), NOW)
    assert state(keeper.pipeline) == after
    keeper.close()
    assert Keeper.open(chosen(tmp_path), model(), NOW).pipeline.settings.horizon == 1


# ---- copies of series

#: What happens before which step: copies of rows, None for one that is taken back.
CHANGES: dict[int, dict[int, int | None]] = {40: {0: 1, 1: 2, 5: 3}, 60: {1: 4}, 70: {5: None}, 90: {0: 5}}


def changed(pipeline: Pipeline, step: int) -> dict[int, Weights | None]:
    """Do what is to happen before this step."""
    made = {row: None if seed is None else model(seed).weights for row, seed in CHANGES.get(step, {}).items()}
    for row, weights in made.items():
        if weights is None:
            pipeline.drop(row)
        else:
            pipeline.adopt(row, weights)
    return made


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("end", [41, 65, 75, 100])
def test_after_a_kill_the_copies_forecast_as_if_there_had_been_none(tmp_path: Path, end: int, snapshot: bool) -> None:
    """To the bit, in the state and in all that follows; some of it from a snapshot, some gone through again."""
    whole = Pipeline(settings(), model().weights)
    keeper = Keeper.open(chosen(tmp_path), model(), NOW)
    for number, (batch, now) in enumerate(steps(end), 1):
        changed(whole, number)
        whole.step(batch, now)
        copies = changed(keeper.pipeline, number)
        effects = keeper.pipeline.step(batch, now)
        effects.copies = copies
        keeper.append(batch, now, effects, [], 10.0 if snapshot and number == 50 else 0.0)
        keeper.turn()
    keeper.close()
    again = Keeper.open(chosen(tmp_path), model(), NOW)
    assert state(again.pipeline) == state(whole)
    assert whole.recurrent and again.pipeline.recurrent
    kept = {row: digest(weights) for row, weights in again.pipeline.recurrent.copies.weights.items()}
    assert kept == {row: digest(weights) for row, weights in whole.recurrent.copies.weights.items()}
    for batch, now in steps(end + 40, first=end):
        ours, theirs = again.pipeline.step(batch, now), whole.step(batch, now)
        for one, other in zip(ours, theirs, strict=True):
            assert one.mean.tobytes() == other.mean.tobytes()
            assert one.experts.tobytes() == other.experts.tobytes()
    again.close()


def begun(folder: Path) -> None:
    """A daemon with copies in rows 0 and 1."""
    keeper = Keeper.open(chosen(folder), model(), NOW)
    for number, (batch, now) in enumerate(steps(20)):
        copies: dict[int, Weights | None] = {0: model(1).weights, 1: model(2).weights} if number == 5 else {}
        for row, weights in copies.items():
            assert weights
            keeper.pipeline.adopt(row, weights)
        effects = keeper.pipeline.step(batch, now)
        effects.copies = copies
        keeper.append(batch, now, effects, [], 0.0)
    keeper.close()


def rows_after(folder: Path, **options: Any) -> tuple[list[int], list[int]]:
    """The rows with copies in a daemon that starts now, and those on the disk after its first step."""
    keeper = Keeper.open(chosen(folder), options.get("model", model()), NOW)
    assert keeper.pipeline.recurrent
    held = sorted(keeper.pipeline.recurrent.copies.weights)
    for batch, now in steps(21, first=20):
        keeper.append(batch, now, keeper.pipeline.step(batch, now), [], 0.0)
    keeper.close()
    return held, list(Store.read(folder).copies()[0])


def test_copies_of_another_model_are_dropped_and_forgotten(tmp_path: Path) -> None:
    """One of as many units could serve; one of fewer could not."""
    begun(tmp_path)
    assert rows_after(tmp_path, model=model(9)) == ([0, 1], [0, 1])
    assert rows_after(tmp_path, model=model(units=5)) == ([], [])


def test_a_damaged_copy_is_dropped_and_the_others_are_kept(tmp_path: Path) -> None:
    """Its series is forecast by the shared model again."""
    begun(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as other:
        other.execute("UPDATE copies SET body = zeroblob(length(body)) WHERE row = 0")
    other.close()
    assert rows_after(tmp_path) == ([1], [1])


def test_copies_are_kept_when_the_journal_is_set_aside(tmp_path: Path) -> None:
    """The new one has them with its first commit."""
    begun(tmp_path)
    (tmp_path / SUSPECT).touch()
    assert rows_after(tmp_path) == ([0, 1], [0, 1])
    assert (tmp_path / f"{FILE}.1").exists()
