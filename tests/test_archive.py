"""`.keras` files are read without running anything of them, and only where the architecture is ours."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from forecastd.models import archive, rnn
from forecastd.models.checkpoint import CheckpointError
from forecastd.models.weights import VALUE, digest

WEIGHTS = rnn.initial(1, units=6)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    rnn.export(tmp_path / "m.keras", WEIGHTS)
    return tmp_path / "m.keras"


def edited(path: Path, change: Callable[[Any], None] = lambda config: None, content: bytes | None = None) -> Path:
    """A copy of the archive whose configuration, or weights file, is another."""
    copy = path.with_name("edited.keras")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        config = json.loads(old.read("config.json"))
        change(config)
        new.writestr("config.json", json.dumps(config))
        new.writestr("model.weights.h5", content or old.read("model.weights.h5"))
    return copy


def test_what_is_exported_is_read_back_as_it_was(exported: Path) -> None:
    model = archive.read(exported)
    assert digest(model.weights) == digest(WEIGHTS) == model.manifest["sha256"]
    assert model.name == "m" and model.manifest["recipe"] == "imported"


def test_keras_loads_an_export_and_answers_the_same(exported: Path) -> None:
    import keras

    windows = np.random.default_rng(0).normal(size=(5, 10, 4)).astype(np.float32)
    answer = np.asarray(keras.models.load_model(exported)(windows))[:, 0]
    np.testing.assert_allclose(answer, rnn.forward(WEIGHTS, windows), rtol=1e-6)


@pytest.mark.parametrize("apart", [True, False])
def test_the_textbooks_model_is_read_as_keras_saved_it(tmp_path: Path, apart: bool) -> None:
    """Its last relu in the Dense layer or in one of its own."""
    import keras

    layers = keras.layers
    ends = [layers.Dense(1), layers.Activation("relu")] if apart else [layers.Dense(1, activation="relu")]
    model = keras.Sequential([keras.Input((10, 1)), layers.SimpleRNN(100, activation="relu"), *ends])
    model.save(tmp_path / "t.keras")
    weights = archive.read(tmp_path / "t.keras").weights
    assert (weights.channels, weights.output, weights.activation) == (VALUE, "value", "relu")
    windows = np.random.default_rng(0).normal(size=(5, 10, 1)).astype(np.float32)
    np.testing.assert_allclose(rnn.forward(weights, windows), np.asarray(model(windows))[:, 0], rtol=1e-5, atol=1e-6)


def test_reading_imports_no_keras(exported: Path) -> None:
    code = (
        "import sys; from forecastd.models import archive; archive.read(sys.argv[1]);"
        "sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(exported)], timeout=60).returncode == 0


def add_lambda(config: Any) -> None:
    config["config"]["layers"].insert(2, {"class_name": "Lambda", "config": {"function": "os.system"}})


def sets(layer: int, **fields: Any) -> Callable[[Any], None]:
    return lambda config: config["config"]["layers"][layer]["config"].update(fields)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (add_lambda, "Lambda"),
        (lambda config: config.update(class_name="Functional"), "layers"),
        (sets(1, activation="tanh"), "tanh"),
        (sets(1, go_backwards=True), "go_backwards"),
        (sets(1, units=7), "kernel"),
        (sets(1, units=10**9), "units"),
        (sets(2, units=2), "Dense"),
        (sets(3, activation="softmax"), "softmax"),
        (sets(0, batch_shape=[None, 10, 3]), "3 channels"),
        (sets(0, batch_shape=[None, None, 4]), "None"),
        (lambda config: config.pop("config"), "config"),
    ],
)
def test_another_architecture_is_refused_by_what_is_wrong(
    exported: Path, change: Callable[[Any], None], word: str
) -> None:
    with pytest.raises(CheckpointError, match=word) as caught:
        archive.read(edited(exported, change))
    assert "\n" not in str(caught.value)


def test_arrays_that_lie_in_other_files_are_not_fetched(exported: Path, tmp_path: Path) -> None:
    """HDF5 links and external storage can name any file of the machine."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(24 * 4))
    for trick in ("link", "storage"):
        with zipfile.ZipFile(exported) as old:
            content = io.BytesIO(old.read("model.weights.h5"))
        with h5py.File(content, "r+") as file:
            cell = file["layers/simple_rnn/cell/vars"]
            del cell["0"]
            if trick == "link":
                cell["0"] = h5py.ExternalLink(str(secret), "/x")
            else:
                cell.create_dataset("0", (4, 6), "<f4", external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        with pytest.raises(CheckpointError, match="vars/0"):
            archive.read(edited(exported, content=content.getvalue()))


@pytest.mark.parametrize("data", [b"", b"PK", bytes(5000)])
def test_what_is_no_archive_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.keras").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"m\.keras") as caught:
        archive.read(tmp_path / "m.keras")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    import dataclasses

    broken = dataclasses.replace(WEIGHTS, bias=WEIGHTS.bias * np.float32(np.nan))
    rnn.export(tmp_path / "m.keras", broken)
    with pytest.raises(CheckpointError, match="finite"):
        archive.read(tmp_path / "m.keras")


def test_a_flipped_byte_of_the_file_is_an_error_or_changes_nothing(exported: Path) -> None:
    data = bytearray(exported.read_bytes())
    for place in range(0, len(data), 97):
        data[place] ^= 0x10
        exported.write_bytes(data)
        try:
            assert digest(archive.read(exported).weights) == digest(WEIGHTS)
        except CheckpointError:
            pass
        data[place] ^= 0x10


def test_code_in_a_strangers_file_is_not_run(tmp_path: Path) -> None:
    """A file that does run it where Keras loads it as it is; here it is refused by name, and nothing has happened."""
    import keras

    mark = tmp_path / "mark"
    code = eval(f"lambda x: __import__('pathlib').Path({str(mark)!r}).touch() or x")  # noqa: S307 - Keras keeps its bytecode
    layers = [keras.Input((10, 4)), keras.layers.Lambda(code, output_shape=(10, 4)), keras.layers.SimpleRNN(6)]
    keras.Sequential([*layers, keras.layers.Dense(1)]).save(tmp_path / "foreign.keras")
    mark.unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="Lambda"):
        archive.read(tmp_path / "foreign.keras")
    command = [sys.executable, "-m", "forecastd", "run", "--ephemeral", "--model", str(tmp_path / "foreign.keras")]
    free = ["--ingest", "tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0", "--web", ""]
    said = subprocess.run([*command, *free], capture_output=True, text=True, timeout=60)
    assert said.returncode == 2 and said.stderr.splitlines()[-1].startswith("Error: model ")
    assert not mark.exists()
    keras.models.load_model(tmp_path / "foreign.keras", safe_mode=False)(np.zeros((1, 10, 4), np.float32))
    assert mark.exists(), "it is a file that does harm"
