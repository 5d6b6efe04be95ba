"""State folders as each version of the formats left them: what was written once can be read for ever.

`golden/state-N` was made by a forecastd whose newest formats were those of N; a new format adds a folder and changes
none. Each holds 30 samples each of `boiler` and `tank α` by the producer `plc-7`, the first 20 of them in a snapshot.
From `state-2` on a second version of the model serves, from `state-3` on `boiler` has a copy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from forecastd.daemon.database import SCHEMA
from forecastd.daemon.inventory import samples, verify
from forecastd.daemon.keeper import Keeper
from forecastd.daemon.settings import Settings
from forecastd.daemon.snapshot import FORMAT
from forecastd.daemon.store import Store
from forecastd.tests.feed import NOW, model

GOLDEN = sorted((Path(__file__).parent / "golden").glob("state-*"))
SETTINGS = Settings(experts=("naive", "ses", "ar2", "ar10", "ar", "rnn"), horizon=2, levels=(0.8,))


@pytest.fixture(params=GOLDEN, ids=[folder.name for folder in GOLDEN])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


def test_fault_7_every_format_there_was_has_a_folder() -> None:
    assert len(GOLDEN) == max(SCHEMA, FORMAT)


def test_fault_7_an_old_folder_is_read_and_gone_on_with(folder: Path, request: pytest.FixtureRequest) -> None:
    settings = msgspec.structs.replace(SETTINGS, state=str(folder))
    keeper = Keeper.open(settings, model(units=3), NOW)
    assert keeper.told()["journal_damaged"] == 0
    assert keeper.pipeline.names == ["boiler", "tank α"]
    assert keeper.pipeline.samples == 60
    account = keeper.pipeline.admission.ledger.accounts["plc-7"]
    assert (account.epoch, account.seq, account.samples) == (3, 60, 60)
    assert np.isclose(keeper.pipeline.forecaster.table["last"], [np.sin(29 / 3), 14.5]).all()
    versions = 1 if "state-1" in request.node.name else 2
    assert keeper.pipeline.version == versions
    keeper.close()
    found = verify(Store.read(folder))
    assert (found.ok, found.samples, found.snapshots, found.models) == (True, 60, 1, versions)
    assert found.copies == (request.node.callspec.id not in ("state-1", "state-2"))


def test_fault_7_an_old_journal_alone_gives_the_same_samples(folder: Path) -> None:
    """Without the snapshot all of it is gone through again."""
    for snapshot in folder.glob("snapshot-*"):
        snapshot.unlink()
    keeper = Keeper.open(msgspec.structs.replace(SETTINGS, state=str(folder)), model(units=3), NOW)
    assert (keeper.pipeline.samples, keeper.told()["journal_damaged"]) == (60, 0)
    keeper.close()
    taken = list(samples(Store.read(folder)))
    assert [sample.seq for sample in taken] == list(range(1, 61))
    assert [sample.value for sample in taken[1::2]] == [number * 0.5 for number in range(30)]
