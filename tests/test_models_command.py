"""`forecastd models` on a state folder that no daemon uses, and on the models of the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from forecastd.daemon.cli import main
from forecastd.daemon.keeper import Keeper
from forecastd.daemon.settings import Settings
from forecastd.daemon.store import Store
from forecastd.models import archive, checkpoint, rnn
from forecastd.models.weights import digest
from forecastd.tests.feed import NOW, model


def says(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["models", *map(str, arguments)], catch_exceptions=False)


def told(*arguments: object) -> Any:
    result = says(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder with `general` in service."""
    state = tmp_path / "state"
    Keeper.open(Settings(state=str(state)), checkpoint.serving("general", ("rnn",), 1), NOW).close()
    return state


@pytest.fixture
def sine(tmp_path: Path) -> Path:
    """A file with another model."""
    path = tmp_path / "plant.npz"
    checkpoint.save(path, checkpoint.load("sine"))
    return path


def test_without_a_state_folder_the_models_of_the_package_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [(one["name"], one["status"], one["version"]) for one in told("list")] == [
        (name, "shipped", None) for name in ("general", "path", "sine")
    ]
    assert "a61beb26b1e8" in says("list").stdout


def test_a_folder_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    said = says("list", "--state", tmp_path / "nowhere")
    assert said.exit_code == 2 and "there is no journal in" in said.stderr


def test_the_champion_and_its_predecessor_are_told(folder: Path, sine: Path) -> None:
    assert [one["status"] for one in told("list", "--state", folder)] == ["champion", "shipped", "shipped"]
    said = says("import", sine, "--state", folder, "--promote")
    assert said.stdout == "version 2: sine, serves\n"
    assert [(one["version"], one["name"], one["status"]) for one in told("list", "--state", folder)] == [
        (1, "general", "predecessor"),
        (2, "sine", "champion"),
        (None, "path", "shipped"),
    ]


def test_what_is_imported_is_a_version_and_serves_only_if_asked_to(folder: Path, sine: Path) -> None:
    says("import", sine, "--state", folder, "--name", "plant")
    one = told("show", "plant", "--state", folder)
    assert (one["version"], one["status"], one["origin"], one["recipe"]) == (2, "", "imported", "sine")
    assert one["decisions"] == [] and one["scores"]["skill"] == 0.370723
    again = says("import", sine, "--state", folder)
    assert again.stdout.startswith("version 2:"), "the same numbers are the same version"


def test_a_model_is_found_by_number_name_checksum_and_file(folder: Path, sine: Path) -> None:
    says("import", sine, "--state", folder, "--name", "plant")
    for name in ("2", "plant", "e2e4d34d", sine):
        assert told("show", name, "--state", folder)["sha256"].startswith("e2e4d34d"), name
    assert told("show", "1", "--state", folder)["decisions"][0]["reason"] == "configured"


def test_what_is_tuned_tells_of_its_ancestors(folder: Path, tmp_path: Path) -> None:
    general = checkpoint.load("general")
    parent = {"name": "general", "sha256": general.sha256}
    weights = rnn.initial(3)
    checkpoint.save(tmp_path / "tuned.npz", checkpoint.Checkpoint(weights, {"name": "tuned", "parent": parent}))
    says("import", tmp_path / "tuned.npz", "--state", folder)
    assert told("show", "tuned", "--state", folder)["ancestors"] == [general.sha256]
    assert "general (version 1)" in says("show", "tuned", "--state", folder).stdout


def test_what_is_shown_has_lineage_recipe_range_and_scores() -> None:
    said = says("show", "general").stdout
    for part in ("100 units, window of 10", "--recipe general --seed 0", "-34.81 to 38.83", "relative mae", "0.6607"):
        assert part in said


@pytest.mark.parametrize("suffix", [".npz", ".keras"])
def test_what_is_exported_is_imported_again_as_the_same_model(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"copy{suffix}"
    assert says("export", "general", path, "--state", folder).stdout == f"{path}: general, checksum a61beb26b1e8\n"
    found = archive.read(path) if suffix == ".keras" else checkpoint.load(path)
    assert digest(found.weights) == checkpoint.load("general").sha256
    assert says("import", path, "--state", folder).stdout.startswith("version 1:")


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "general.npz"
    path.write_text("mine")
    said = says("export", "general", path)
    assert (said.exit_code, path.read_text()) == (1, "mine") and "--force" in said.stderr
    assert says("export", "general", path, "--force").exit_code == 0
    assert checkpoint.load(path).name == "general"


def test_a_model_with_a_way_ahead_has_no_keras_file(tmp_path: Path) -> None:
    said = says("export", "path", tmp_path / "path.keras")
    assert said.exit_code == 2 and "export it as .npz" in said.stderr


def test_what_is_no_model_or_does_not_fit_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    small, torn = tmp_path / "small.npz", tmp_path / "torn.npz"
    checkpoint.save(small, model(units=3))
    torn.write_bytes(small.read_bytes()[:-500])
    before = told("list", "--state", folder)
    for path, why in ((small, "its units are 3, the running model's 100"), (torn, "damaged")):
        said = says("import", path, "--state", folder, "--promote")
        assert said.exit_code == 2 and why in said.stderr and said.stderr.count("\n") == 1
    assert told("list", "--state", folder) == before


def test_an_unknown_name_is_one_line_with_a_guess(folder: Path) -> None:
    said = says("show", "genera", "--state", folder)
    assert said.exit_code == 2 and "did you mean 'general'?" in said.stderr


def test_a_folder_in_use_is_read_but_not_written(folder: Path, sine: Path) -> None:
    store = Store.open(folder)
    assert told("list", "--state", folder)[0]["status"] == "champion"
    said = says("import", sine, "--state", folder)
    assert said.exit_code == 1 and "takes no orders" in said.stderr
    store.close()


def test_a_folder_without_a_champion_takes_a_model_but_has_none_serve(tmp_path: Path, sine: Path) -> None:
    state = tmp_path / "new"
    assert says("import", sine, "--state", state).exit_code == 0
    said = says("import", sine, "--state", state, "--promote")
    assert said.exit_code == 2 and "start the daemon once" in said.stderr
