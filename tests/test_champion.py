"""Who serves after a start, and who may take the champion's place."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from forecastd.daemon.champion import Champions, Unfit
from forecastd.daemon.keeper import Keeper
from forecastd.daemon.lineage import Champion, Lineage
from forecastd.daemon.settings import Settings
from forecastd.daemon.store import Store
from forecastd.models.checkpoint import Checkpoint, CheckpointError, load, seal
from forecastd.models.weights import digest
from forecastd.tests.feed import NOW, live, model, state, steps

ROOT, OTHER = seal(model(0)), seal(model(1))


def open_keeper(folder: Path, root: Checkpoint = ROOT, **changes: object) -> Keeper:
    settings = msgspec.structs.replace(Settings(state=str(folder), experts=("naive", "rnn"), levels=()), **changes)
    return Keeper.open(settings, root, NOW)


def crown(folder: Path, other: Checkpoint = OTHER, reason: str = "by_hand") -> None:
    """Make another model champion of a folder that no daemon uses."""
    store = Store.open(folder)
    champions = Champions(ROOT, store.lineage(), store.models())
    number, changes = champions.enter(other, NOW, "imported")
    store.db.change([*changes, champions.crown(number, reason, NOW, 3, evidence=120.0)])
    store.close()


def served(keeper: Keeper) -> tuple[int, str]:
    weights = keeper.pipeline.forecaster.experts[1].weights  # type: ignore[attr-defined]
    return keeper.pipeline.version, digest(weights)


def test_the_configured_model_is_the_first_champion(tmp_path: Path) -> None:
    keeper = open_keeper(tmp_path)
    assert served(keeper) == (1, ROOT.sha256)
    keeper.close()
    lineage = Store.read(tmp_path).lineage()
    assert lineage.champions == [Champion(NOW, 0, "", 1, ROOT.sha256, "configured", {})]


def test_a_start_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    for _ in range(3):
        open_keeper(tmp_path).close()
    lineage = Store.read(tmp_path).lineage()
    assert (len(lineage.versions), len(lineage.champions)) == (1, 1)


def test_the_champion_survives_a_restart(tmp_path: Path) -> None:
    open_keeper(tmp_path).close()
    crown(tmp_path)
    for _ in range(2):
        keeper = open_keeper(tmp_path)
        assert served(keeper) == (2, OTHER.sha256)
        keeper.close()
    champion = Store.read(tmp_path).lineage().champion()
    assert champion is not None and (champion.reason, champion.figures) == ("by_hand", {"evidence": 120.0})


def test_naming_another_model_begins_another_line_and_naming_the_first_one_again_a_third(tmp_path: Path) -> None:
    open_keeper(tmp_path).close()
    crown(tmp_path)
    keeper = open_keeper(tmp_path, seal(model(2)))
    assert served(keeper)[0] == 3
    keeper.close()
    keeper = open_keeper(tmp_path)
    assert served(keeper) == (1, ROOT.sha256), "it was told to forecast with this one, and numbers stay what they are"
    keeper.close()


def test_a_champion_whose_file_is_damaged_is_passed_over(tmp_path: Path) -> None:
    open_keeper(tmp_path).close()
    crown(tmp_path)
    with sqlite3.connect(tmp_path / "journal.db") as other:
        other.execute("UPDATE models SET body = x'00' WHERE sha256 = ?", (OTHER.sha256,))
    other.close()
    keeper = open_keeper(tmp_path)
    assert served(keeper) == (1, ROOT.sha256)
    keeper.close()


@pytest.mark.parametrize(("table", "column"), [("versions", "sha256"), ("champions", "number")])
def test_what_was_changed_behind_our_back_is_not_believed(tmp_path: Path, table: str, column: str) -> None:
    open_keeper(tmp_path).close()
    crown(tmp_path)
    with sqlite3.connect(tmp_path / "journal.db") as other:
        other.execute(f"UPDATE {table} SET {column} = 9 WHERE rowid = 2")  # noqa: S608
    other.close()
    champion = Store.read(tmp_path).lineage().champion()
    assert champion is not None and champion.number == 1


def test_a_journal_that_is_set_aside_leaves_the_champion_where_it_is(tmp_path: Path) -> None:
    """The disk had failed: the state goes into a new journal, and the models with it."""
    open_keeper(tmp_path).close()
    crown(tmp_path)
    keeper = open_keeper(tmp_path)
    live(keeper.pipeline, steps(5))
    keeper.close()
    before = Store.read(tmp_path).lineage()
    (tmp_path / "suspect").touch()
    keeper = open_keeper(tmp_path)
    assert served(keeper) == (2, OTHER.sha256)
    keeper.close()
    after = Store.read(tmp_path).lineage()
    assert (after.versions, after.champions) == (before.versions, before.champions)


def test_the_state_is_the_same_to_the_bit_whichever_model_serves_next(tmp_path: Path) -> None:
    """What was forecast is in the journal, so recovery needs no weights."""
    keeper = open_keeper(tmp_path)
    for batch, now in steps(30):
        effects = keeper.pipeline.step(batch, now)
        keeper.append(batch, now, effects, [], 0.0)
    before = state(keeper.pipeline)
    keeper.close()
    crown(tmp_path)
    keeper = open_keeper(tmp_path)
    assert served(keeper)[0] == 2
    assert state(keeper.pipeline) == before
    keeper.close()


def test_the_way_ahead_stays_the_configured_ones(tmp_path: Path) -> None:
    """With several steps ahead another model helps out; a champion gets the same help."""
    general, path = load("general"), load("path")
    root = Checkpoint(replace(general.weights, ahead=path.weights), general.manifest)
    champions = Champions(root, Lineage(), {})
    champions.start(NOW, 0)
    sine = load("sine")
    number, _ = champions.enter(sine, NOW, "imported")
    champions.crown(number, "by_hand", NOW, 1)
    assert champions.model.sha256 == sine.sha256
    assert champions.weights.ahead is path.weights


def test_a_model_of_another_shape_cannot_take_the_champions_place() -> None:
    champions = Champions(ROOT, Lineage(), {})
    champions.start(NOW, 0)
    weights = OTHER.weights
    for other, what in (
        (replace(weights, window=12), "window"),
        (replace(weights, output="value"), "output"),
        (model(1, units=3).weights, "units"),
        (replace(weights, channels=("level", "difference", "ar", "residual")), "input channels"),
    ):
        with pytest.raises(Unfit, match=f"its {what} .* --model"):
            champions.enter(Checkpoint(other, {}), NOW, "imported")
    nan = replace(weights, bias=np.full_like(weights.bias, np.nan))
    with pytest.raises(ValueError, match="not finite"):
        champions.enter(Checkpoint(nan, {}), NOW, "tuned")
    assert list(champions.lineage.versions) == [1]
    with pytest.raises(CheckpointError, match="no version 7"):
        champions.crown(7, "by_hand", NOW, 1)
    assert champions.number == 1
