"""Groups of series with a shared model of their own, from the configuration to what is published."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.champion import Unfit
from forecastd.daemon.engine import load_groups
from forecastd.daemon.keeper import Ephemeral, Keeper
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Group, Settings
from forecastd.daemon.standings import standings
from forecastd.daemon.store import Store
from forecastd.models.checkpoint import Checkpoint, load, save, seal
from forecastd.models.groups import Groups
from forecastd.models.kernel import Kernel
from forecastd.models.lessons import Lesson
from forecastd.models.weights import digest
from forecastd.tests.feed import NOW, model, state

ALL, BOILERS, PUMPS = seal(model(0)), seal(model(1, units=7)), seal(model(2))
GROUPED = (Group(match="boiler.*", model="b"), Group(match="pump?", model="p"), Group(match="*.late", model="b"))
NAMES = ["tank", "boiler.1", "pump1", "boiler.late", "pump", "x.late", "boiler.2"]
OF = [0, 1, 2, 1, 0, 3, 1]
SETTINGS = Settings(experts=("naive", "rnn"), levels=(), models=GROUPED)


def feed(pipeline: Pipeline, rounds: int, together: bool = True, seed: int = 0) -> list[Any]:
    """Random walks; what was published of each round, in the order of the names."""
    random, found = np.random.default_rng(seed), []
    values = np.cumsum(random.normal(size=(rounds, len(NAMES))), axis=0)
    for t, row in enumerate(values):
        if together:
            batches = [Batch(NAMES, row, np.full(len(NAMES), NOW + t), [Parcel(0, len(NAMES))])]
        else:
            batches = [Batch([n], row[k : k + 1], np.array([NOW + t]), [Parcel(0, 1)]) for k, n in enumerate(NAMES)]
        rounds_ = [one for batch in batches for one in pipeline.step(batch, NOW + t)]
        found.append(
            (np.concatenate([one.experts[:, :, 1] for one in rounds_]), np.concatenate([one.model for one in rounds_]))
        )
    return found


def alone(weights: Any, rounds: int, horizon: int = 1) -> Any:
    """What one model would have said to all of them."""
    pipeline = Pipeline(msgspec.structs.replace(SETTINGS, models=(), horizon=horizon), weights)
    return np.stack([said for said, _ in feed(pipeline, rounds)])


@pytest.mark.parametrize(("together", "horizon"), [(True, 1), (False, 1), (True, 3)])
def test_each_series_is_forecast_by_the_model_of_the_first_pattern_it_matches(together: bool, horizon: int) -> None:
    """Whether many come at once or one by one, and for all steps ahead."""
    settings = msgspec.structs.replace(SETTINGS, horizon=horizon)
    pipeline = Ephemeral(settings, ALL, [BOILERS, PUMPS, BOILERS]).pipeline
    found = feed(pipeline, 20, together)
    said = np.stack([one for one, _ in found])
    by_model = [alone(one.weights, 20, horizon) for one in (ALL, BOILERS, PUMPS, BOILERS)]
    for k, group in enumerate(OF):
        np.testing.assert_allclose(said[:, k], by_model[group][:, k], rtol=1e-5, atol=1e-5, err_msg=NAMES[k])
    assert np.isfinite(said[-1]).all()
    assert found[-1][1].tolist() == [[1, 2, 3, 2][group] for group in OF]


def test_the_scoreboard_tells_which_version_forecasts_a_series() -> None:
    pipeline = Ephemeral(SETTINGS, ALL, [BOILERS, PUMPS, BOILERS]).pipeline
    feed(pipeline, 3)
    assert standings(pipeline, NOW + 3).columns["model"].tolist() == [1, 2, 3, 2, 1, 2, 2]


def test_groups_are_known_again_after_a_restart_and_may_be_others(tmp_path: Path) -> None:
    """The state is the same to the bit; who forecasts whom is what the settings say now."""
    settings = msgspec.structs.replace(SETTINGS, state=str(tmp_path))

    def opened(models: tuple[Group, ...], *groups: Checkpoint) -> Keeper:
        return Keeper.open(msgspec.structs.replace(settings, models=models), ALL, NOW, groups)

    keeper = opened(GROUPED, BOILERS, PUMPS, BOILERS)
    random = np.random.default_rng(0)
    for t in range(12):
        batch = Batch(NAMES, random.normal(size=7), np.full(7, NOW + t), [Parcel(0, 7)])
        keeper.append(batch, NOW + t, keeper.pipeline.step(batch, NOW + t), [], 0.0)
    before = state(keeper.pipeline)
    keeper.close()
    keeper = opened(GROUPED, BOILERS, PUMPS, BOILERS)
    assert state(keeper.pipeline) == before
    rows = np.arange(7)
    assert keeper.pipeline.versions_of(rows).tolist() == [1, 2, 3, 2, 1, 2, 2]
    keeper.close()
    keeper = opened((Group(match="tank", model="p"),), PUMPS)
    assert keeper.pipeline.versions_of(rows).tolist() == [3, 1, 1, 1, 1, 1, 1]
    keeper.close()
    lineage = Store.read(tmp_path).lineage()
    assert len(lineage.versions) == 3, "a version is a model, whoever it serves"
    assert lineage.slots == ["", "boiler.*", "pump?", "*.late", "tank"]


def test_a_group_has_a_champion_of_its_own(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, state=str(tmp_path), models=GROUPED[:1])
    better = seal(model(5, units=7))
    keeper = Keeper.open(settings, ALL, NOW, [BOILERS])
    shared, boilers = keeper.champions
    number, _ = boilers.enter(better, NOW, "tuned")
    with pytest.raises(Unfit, match="units"):
        shared.enter(better, NOW, "tuned")
    keeper._store.db.change([*boilers.start(NOW, 0, rewrite=True), boilers.crown(number, "promoted", NOW, 1)])
    keeper.close()
    keeper = Keeper.open(settings, ALL, NOW, [BOILERS])
    assert [champions.number for champions in keeper.champions] == [1, 3]
    assert keeper.pipeline.versions == [1, 3]
    assert keeper.pipeline.recurrent is not None
    assert digest(keeper.pipeline.recurrent.groups.models[1].weights) == better.sha256
    keeper.close()


def test_a_model_that_does_not_go_with_the_others_is_refused_by_its_group(tmp_path: Path) -> None:
    """And so is one that is none."""
    odd = replace(load("general").weights, window=12)
    save(tmp_path / "odd.npz", Checkpoint(odd, {"name": "odd"}))
    for file, why in (("odd.npz", "boiler.*window"), ("none.npz", "cannot be read")):
        settings = Settings(models=(Group(match="boiler.*", model=str(tmp_path / file)),))
        with pytest.raises(ValueError, match=why):
            load_groups(settings)
    assert load_groups(Settings(models=(Group(match="a", model="sine"),)))[0].name == "sine"


def test_lessons_of_a_group_are_numbered_within_it() -> None:
    """So that a shadow watches them evenly, wherever their rows are."""
    groups = Groups(ALL.weights)
    groups.use(BOILERS.weights, 1)
    for row in range(40):
        groups.assign(row, row % 2)
    rows = np.array([3, 4, 37])
    column = np.array([1.0, 2.0, 3.0])
    lesson = Lesson(rows, column, column, np.zeros((3, 4), np.float32), rows, True)
    mine = groups.only(lesson, 1)
    assert mine is not None and (mine.row.tolist(), mine.x.tolist()) == ([1, 18], [1.0, 3.0])
    assert groups.only(lesson._replace(row=np.array([2, 4, 6])), 1) is None


def test_rows_of_several_groups_go_through_their_own_kernels() -> None:
    groups, random = Groups(ALL.weights), np.random.default_rng(0)
    groups.use(BOILERS.weights, 1)
    for row in range(9):
        groups.assign(row, int(row > 3))
    windows = random.normal(size=(9, 10, 4)).astype(np.float32)
    found = groups.through(np.arange(9), windows)
    np.testing.assert_array_equal(found[:4], Kernel(ALL.weights).forward(windows[:4]))
    np.testing.assert_array_equal(found[4:], Kernel(BOILERS.weights).forward(windows[4:]))
