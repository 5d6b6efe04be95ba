"""Recipes and `forecastd train`: repeatable, gated, and the shipped models as good as promised."""

from __future__ import annotations

import csv
import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from forecastd.daemon import train as command
from forecastd.models import checkpoint, rnn, train
from forecastd.models.evaluation import score, summary
from forecastd.models.train import GENERAL, SINE, TUTORIAL, WAVE_FLOOR, TrainingError

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
SMALL = dataclasses.replace(GENERAL, series=40, length=200, steps=200, batch=64)


@pytest.fixture(scope="module")
def small() -> checkpoint.Checkpoint:
    return train.train(SMALL, seed=3).checkpoint


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command.train, arguments)


def test_the_textbooks_wave_is_made_as_in_the_textbook() -> None:
    np.random.seed(0)
    x = np.linspace(0, 15, 150)
    textbook = np.sin(x) + 1 + np.random.uniform(-0.15, 0.15, 150)
    np.testing.assert_allclose(train.wave(150, np.random.RandomState(0)), textbook, rtol=0, atol=1e-14)


def test_the_textbooks_recipe_gives_the_textbooks_model() -> None:
    """150 points, 10 epochs: better than naive, far from the floor; its picture is the curve it learned from."""
    outcome = train.train(TUTORIAL)
    weights, scores = outcome.checkpoint.weights, outcome.checkpoint.manifest["scores"]
    assert (weights.channels, weights.output, weights.activation) == (("value",), "value", "relu")
    assert (weights.units, weights.window, len(outcome.losses)) == (100, 10, 10)
    assert 1.05 * WAVE_FLOOR < scores["rmse"] < 0.125 < scores["naive_rmse"]
    (panel,) = outcome.panels
    np.testing.assert_array_equal(panel.truth, train.wave(150, np.random.RandomState(0)))
    assert np.isnan(panel.forecast[:10]).all() and np.isfinite(panel.forecast[10:]).all()


def test_a_small_model_made_twice_gives_the_same_bytes(small: checkpoint.Checkpoint) -> None:
    assert checkpoint.encode(train.train(SMALL, seed=3).checkpoint) == checkpoint.encode(small)


def test_another_process_gives_the_same_bytes_too(tmp_path: Path) -> None:
    """Nothing of the hour, the folder or the order of a set gets into the file."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        call = [sys.executable, "-m", "forecastd", "train", "--recipe", "tutorial", "--out", "m.npz"]
        done = subprocess.run(call, cwd=tmp_path / folder, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "oneDNN" not in done.stderr and "CUDA" not in done.stderr
    assert (tmp_path / "a/m.npz").read_bytes() == (tmp_path / "b/m.npz").read_bytes()


def test_a_dead_model_is_an_error() -> None:
    """With this seed the textbook's last relu answers 0 to everything."""
    with pytest.raises(TrainingError, match="died"):
        train.train(TUTORIAL, seed=2)


def test_a_diverged_model_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"diverged|failed|died"):
        train.train(dataclasses.replace(SMALL, rate=1e30, steps=20))


def test_a_model_worse_than_naive_is_an_error() -> None:
    with pytest.raises(TrainingError, match="worse than repeating the last value"):
        train.train(dataclasses.replace(SMALL, steps=1, rate=0.05))


def test_a_wave_model_is_judged_on_the_wave() -> None:
    recipe = dataclasses.replace(SINE, series=20, length=300, steps=600, batch=64)
    scores = train.train(recipe).checkpoint.manifest["scores"]
    assert WAVE_FLOOR < scores["rmse"] < 0.115 and scores["naive_rmse"] == pytest.approx(0.1417, abs=0.002)


def test_the_targets_are_the_samples_after_the_windows() -> None:
    """Of recordings of unequal length, none reaching into the next."""
    recordings = [np.arange(0.0, 20.0), np.arange(100.0, 112.0)]
    raw = rnn.initial(0, units=2, channels=("value",), output="value")
    windows = train._windows(raw, recordings)
    seen = windows.rows[windows.ends[:, None] + np.arange(-9, 1), 0]
    np.testing.assert_array_equal(seen[:, -1] + 1, windows.target)
    np.testing.assert_array_equal(seen[:, 0] + 10, windows.target)
    assert len(windows.target) == (20 - 10) + (12 - 10)


def recordings(count: int = 2, length: int = 400) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    return [np.sin(np.arange(length) * (0.4 + 0.1 * k)) + random.normal(scale=0.1, size=length) for k in range(count)]


def test_a_model_is_tuned_to_recordings_and_remembers_its_parent() -> None:
    parent = checkpoint.load("general")
    tuned = train.refine(parent, recordings(), steps=200).checkpoint
    assert tuned.manifest["parent"] == {"name": "general", "sha256": parent.sha256}
    assert tuned.manifest["scores"]["relative_mae"] < tuned.manifest["scores"]["parent_relative_mae"]
    assert tuned.sha256 != parent.sha256


def test_tuning_that_helps_nothing_is_an_error(small: checkpoint.Checkpoint) -> None:
    """There is nothing to learn in a random walk."""
    walk = [np.cumsum(np.random.default_rng(2).normal(size=300))]
    weights = small.weights
    naive = dataclasses.replace(weights, readout=weights.readout * 0, readout_bias=weights.readout_bias * 0)
    with pytest.raises(TrainingError, match="no better model"):
        train.refine(checkpoint.Checkpoint(naive, small.manifest), walk, steps=300)


def test_the_command_writes_model_manifest_and_picture(tmp_path: Path) -> None:
    out, plot = tmp_path / "wave.npz", tmp_path / "wave.png"
    done = run("--recipe", "tutorial", "--out", str(out), "--plot", str(plot))
    assert done.exit_code == 0, done.output
    assert "RMSE" in done.output and "naive" in done.output and str(out) in done.output
    model = checkpoint.load(out)
    assert model.manifest["command"] == "forecastd train --recipe tutorial --seed 0 --out wave.npz"
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["wave.json", "wave.npz", "wave.png"]


def test_the_command_tunes_to_csv_files(tmp_path: Path) -> None:
    files = []
    for number, values in enumerate(recordings()):
        files.append(tmp_path / f"r{number}.csv")
        with files[-1].open("w", newline="") as file:
            csv.writer(file).writerows([("timestamp", "value"), *((k, v) for k, v in enumerate(values))])
    done = run(*(f"--data={file}" for file in files), "--steps", "200", "--out", str(tmp_path / "mine.npz"))
    assert done.exit_code == 0, done.output
    assert checkpoint.load(tmp_path / "mine.npz").manifest["data"]["series"] == 2


def test_a_failed_training_ends_with_1_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    done = run("--recipe", "tutorial", "--seed", "2", "--out", str(tmp_path / "m.npz"))
    assert done.exit_code == 1
    assert done.output.strip().splitlines()[-1].startswith("Error: the training died")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--out", "m.keras"], "must end in .npz"),
        (["--plot", "m.jpg"], "must end in .png"),
        (["--out", "/nowhere/m.npz"], "/nowhere"),
        (["--recipe", "sine", "--data", __file__], "exclude"),
        (["--recipe", "best"], "best"),
        (["--data", __file__], "test_train.py"),
        (["--parent", "unheard-of", "--data", __file__], "unheard-of"),
    ],
)
def test_wrong_usage_ends_with_2_before_any_training(arguments: list[str], word: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert word in done.output and "Traceback" not in done.output


def test_a_sparkline_goes_from_its_lowest_to_its_highest() -> None:
    assert command.spark([3.0, 2.0, 1.0]) == "█▄▁"
    assert command.spark([1.0] * 100) == "▁" * 24
    assert len(command.spark([float(k) for k in range(5)])) == 5


def test_the_shipped_sine_reaches_the_floor_of_the_wave() -> None:
    """Its autoregressive channels remember more than ten samples: it may pass that bound, but never the noise."""
    fresh = [train.wave(20_000, np.random.default_rng(77 + k), phase=k) for k in range(3)]
    for result in score(checkpoint.load("sine").weights, fresh, 0.0):
        assert 0.0860 < result.rmse < 0.0925
        assert result.naive_rmse == pytest.approx(math.hypot(WAVE_FLOOR * math.sqrt(2), 0.0711), rel=0.02)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the recordings lie beside the checkout")
def test_the_shipped_general_model_forecasts_recordings_it_has_never_seen() -> None:
    found = []
    for path in sorted(SHARED.rglob("*.csv")):
        with path.open(newline="") as file:
            found.append(np.array([float(row[1]) for row in list(csv.reader(file))[1:] if row[1]]))
    assert len(found) > 20
    scores = summary(score(checkpoint.load("general").weights, found))
    assert scores["median_skill"] >= 0.16
    assert scores["worst_skill"] >= -0.04
    assert scores["relative_mae"] <= 0.82
