"""The journal as a SQLite file."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from forecastd.daemon.database import FORGOTTEN_MAX, SCHEMA, TIDY_EVERY, Commit, Database, Life
from forecastd.daemon.disk import Full
from forecastd.daemon.record import Damaged, Foreign

LOOK = """
import sys
from pathlib import Path
from forecastd.daemon.database import Database
database = Database.read(Path(sys.argv[1]))
print([commit.step for commit in database.commits()], database.names())
"""


def commit(step: int, size: int = 10, steps: int = 1, time: float | None = None) -> Commit:
    return Commit(step, steps, steps, 1, float(step if time is None else time), os.urandom(size))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_what_is_committed_is_read_back_in_order(path: Path) -> None:
    database = Database.open(path)
    made = [commit(1), commit(2, steps=3), commit(5)]
    for one in made:
        database.commit(one)
    assert list(database.commits()) == made
    assert [one.step for one in database.commits(after=1)] == [2, 5]
    assert [one.step for one in database.commits(after=3)] == [2, 5], (
        "the commit that holds the next step is the one before"
    )
    assert [one.step for one in database.commits(after=4)] == [5]
    assert list(database.commits(after=5)) == []


def test_another_process_sees_a_commit_as_soon_as_it_has_returned(path: Path) -> None:
    database = Database.open(path)
    database.commit(commit(1), ["a", "b"])
    out = subprocess.run([sys.executable, "-c", LOOK, str(path)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[1] ['a', 'b']"


def test_names_runs_models_and_events_are_kept(path: Path) -> None:
    database = Database.open(path)
    run = database.enter(Life({"horizon": 2}, "abc"), 1.0, b"model")
    assert database.enter(Life({"horizon": 2}, "abc"), 2.0, b"model") == run + 1
    database.commit(commit(1), ["a", "b"], 0, [{"kind": "promotion", "model": 2}])
    database.commit(commit(2), ["c"], 2)
    database.close()
    database = Database.read(path)
    assert database.names() == ["a", "b", "c"]
    assert database.lives()[run] == Life({"horizon": 2}, "abc")
    assert database.models() == {"abc": b"model"}
    assert database.events() == [{"time": 1.0, "step": 1, "kind": "promotion", "model": 2}]


@pytest.mark.parametrize(
    "table, column", [("commits", "body"), ("commits", "time"), ("commits", "steps"), ("commits", "life")]
)
def test_a_commit_that_was_changed_is_noticed_and_the_ones_before_are_not_lost(
    path: Path, table: str, column: str
) -> None:
    database = Database.open(path)
    for step in (1, 2, 3):
        database.commit(commit(step))
    value = b"\0" if column == "body" else 99
    with sqlite3.connect(path) as other:
        other.execute(f"UPDATE {table} SET {column} = ? WHERE step = 2", (value,))  # noqa: S608
    seen = []
    with pytest.raises(Damaged, match="step 2"):
        for one in database.commits():
            seen.append(one.step)
    assert seen == [1]


def test_names_that_were_changed_are_noticed(path: Path) -> None:
    database = Database.open(path)
    database.commit(commit(1), ["a", "b"])
    with sqlite3.connect(path) as other:
        other.execute("UPDATE names SET body = replace(body, 'b', 'c')")
    with pytest.raises(Damaged, match="names"):
        database.names()


def test_broken_pages_are_damage_and_nothing_worse(path: Path) -> None:
    """Each page in turn is filled with noise. Whatever is read up to there is what was written."""
    database = Database.open(path)
    made = {step: commit(step, 3000) for step in range(1, 40)}
    for one in made.values():
        database.commit(one)
    database.close()
    whole = path.read_bytes()
    noticed = 0
    for page in range(len(whole) // 4096):
        path.write_bytes(whole[: page * 4096] + os.urandom(4096) + whole[(page + 1) * 4096 :])
        read = 0
        try:
            for one in (database := Database.read(path)).commits():
                assert one == made[one.step]
                read += 1
        except (Damaged, Foreign):
            noticed += 1
            continue
        finally:
            database.close()
        # a page of another table, or one that nothing uses
        assert read == len(made)
    assert noticed > 30


def test_fault_7_a_newer_schema_is_refused_and_the_file_left_as_it_is(path: Path) -> None:
    Database.open(path).close()
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    other.close()
    before = path.read_bytes()
    for way in (Database.open, Database.read):
        with pytest.raises(Foreign, match="use a newer forecastd"):
            way(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(Foreign, match="give another state folder"):
        Database.open(path)
    assert path.read_bytes() == before


def test_the_file_is_its_owners_alone(path: Path) -> None:
    database = Database.open(path)
    database.commit(commit(1))
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_the_journal_forgets_by_age_but_never_what_recovery_needs(path: Path) -> None:
    database = Database.open(path)
    for step in range(1, 101):
        database.commit(commit(step, time=float(step)))
    database.tidy(through=50, before=40.0, bytes_max=1 << 30)
    assert [one.step for one in database.commits()] == list(range(40, 101))
    for step in range(101, 101 + TIDY_EVERY):
        database.commit(commit(step, time=float(step)))
    database.tidy(through=50, before=1e9, bytes_max=1 << 30)
    assert next(database.commits()).step == 51


def test_the_journal_forgets_by_size_and_its_file_stops_growing(path: Path) -> None:
    database = Database.open(path)
    step = 0
    sizes = []
    for _ in range(30):
        for _ in range(TIDY_EVERY):
            step += 1
            database.commit(commit(step, 4000))
        sizes.append(database.tidy(through=step - 10, before=0.0, bytes_max=1 << 20))
    assert max(sizes) < (1 << 20) + 2 * FORGOTTEN_MAX * 8192
    assert path.stat().st_size < 4 << 20
    assert list(database.commits())[-1].step == step


def test_the_write_ahead_log_stays_small(path: Path) -> None:
    database = Database.open(path)
    for step in range(1, 120):
        database.commit(commit(step, 1 << 18))
        database.tidy(0, 0.0, 1 << 40)
    assert path.with_name("journal.db-wal").stat().st_size < 16 << 20


def test_a_file_that_another_program_holds_is_tried_again_later(path: Path) -> None:
    database = Database.open(path)
    database._db.execute("PRAGMA busy_timeout = 0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Full):
        database.commit(commit(1))
    other.execute("ROLLBACK")
    database.commit(commit(1))
    assert [one.step for one in database.commits()] == [1]


def test_copies_are_kept_by_row_until_they_are_dropped(path: Path) -> None:
    """Each commit changes those it names; one that was changed on the disk is told apart, and the others are read."""
    database = Database.open(path)
    database.commit(commit(1), copies={3: b"three", 4: b"four", 5: b"five"})
    database.commit(commit(2), copies={4: None, 5: b"fifth", 9: None})
    assert database.copies() == ({3: b"three", 5: b"fifth"}, [])
    with sqlite3.connect(path) as other:
        other.execute("UPDATE copies SET body = ? WHERE row = 3", (b"thrice",))
    other.close()
    assert database.copies() == ({5: b"fifth"}, [3])
