"""Models as files: what is read is what was written, or a one-line error."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from forecastd.models import checkpoint
from forecastd.models.checkpoint import Checkpoint, CheckpointError
from forecastd.models.weights import CHANNELS, Floats, Weights, digest, structure


def small(units: int = 3, channels: tuple[str, ...] = CHANNELS, seed: int = 0) -> Weights:
    """Random weights of a few units."""
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> Floats:
        return np.asarray(random.normal(size=shape), np.float32)

    return Weights(draw(len(channels), units), draw(units, units), draw(units), draw(units), draw(), channels=channels)


def equal(a: Weights, b: Weights) -> bool:
    return structure(a) == structure(b) and all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)


@pytest.fixture
def model() -> Checkpoint:
    return checkpoint.seal(Checkpoint(small(), {"name": "small", "recipe": "test", "seed": 1, "scores": {"rmse": 0.5}}))


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path, model: Checkpoint) -> None:
    checkpoint.save(tmp_path / "m.npz", model)
    back = checkpoint.load(tmp_path / "m.npz")
    assert equal(back.weights, model.weights)
    assert back.manifest == model.manifest
    assert back.manifest["sha256"] == digest(model.weights)
    assert back.weights.readout_bias.shape == () and back.weights.kernel.dtype == np.float32


def test_the_same_model_gives_the_same_bytes_and_another_gives_others(tmp_path: Path, model: Checkpoint) -> None:
    assert checkpoint.encode(model) == checkpoint.encode(Checkpoint(small(), dict(reversed(model.manifest.items()))))
    assert checkpoint.encode(model) != checkpoint.encode(Checkpoint(small(seed=1), model.manifest))
    checkpoint.save(tmp_path / "a.npz", model)
    assert (tmp_path / "a.npz").read_bytes() == checkpoint.encode(model)


def test_numpy_itself_reads_the_file_without_pickle(tmp_path: Path, model: Checkpoint) -> None:
    checkpoint.save(tmp_path / "m.npz", model)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["recurrent"], model.weights.recurrent)
        assert json.loads(arrays["manifest"].tobytes()) == model.manifest
    assert json.loads((tmp_path / "m.json").read_text()) == model.manifest


def test_the_checksum_covers_arrays_and_structure(model: Checkpoint) -> None:
    weights = model.weights
    assert digest(dataclasses.replace(weights, output="value")) != model.sha256
    assert digest(dataclasses.replace(weights, window=11)) != model.sha256
    assert digest(dataclasses.replace(weights, bias=weights.bias + 1)) != model.sha256


def test_any_flipped_bit_is_an_error_or_changes_nothing(model: Checkpoint) -> None:
    """Bytes of the zip that mean nothing may flip unseen; no flip may ever give another model."""
    data = bytearray(checkpoint.encode(model))
    caught = 0
    for place in range(len(data)):
        for bit in (0x01, 0x80):
            data[place] ^= bit
            try:
                back = checkpoint.decode(bytes(data))
            except CheckpointError as error:
                assert "\n" not in str(error)
                caught += 1
            else:
                assert equal(back.weights, model.weights) and back.manifest == model.manifest
            data[place] ^= bit
    assert caught > 1.5 * len(data)


def test_a_file_cut_short_anywhere_is_an_error(model: Checkpoint) -> None:
    data = checkpoint.encode(model)
    for length in range(len(data)):
        with pytest.raises(CheckpointError):
            checkpoint.decode(data[:length])


@pytest.mark.parametrize(
    "data", [b"", bytes(1000), b"PK\x03\x04" + bytes(500), b"hello", bytes(checkpoint.FILE_BYTES_MAX + 1)]
)
def test_what_is_no_model_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.decode(data)
    assert "\n" not in str(caught.value)


def rewritten(model: Checkpoint, **members: np.ndarray) -> bytes:
    """A well-formed file with some members replaced."""
    file = io.BytesIO()
    manifest = np.frombuffer(json.dumps(model.manifest).encode(), np.uint8)
    np.savez(file, **{"manifest": manifest, **model.weights.arrays, **members})
    return file.getvalue()


def says(**fields: object) -> np.ndarray:
    model = checkpoint.seal(Checkpoint(small(), {}))
    return np.frombuffer(json.dumps({**model.manifest, **fields}).encode(), np.uint8)


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"bias": np.zeros(4, np.float32)}, "bias"),
        ({"bias": np.zeros(3, np.float64)}, "bias"),
        ({"recurrent": np.array([[{}] * 3] * 3, object)}, "recurrent"),
        ({"kernel": np.zeros((4, 3), np.float32)}, "checksum"),
        ({"manifest": says(format=2)}, "newer"),
        ({"manifest": says(format="1")}, "format"),
        ({"manifest": says(units=10**9)}, "units"),
        ({"manifest": says(units=-1)}, "units"),
        ({"manifest": says(channels=["os", "system", "x", "y"])}, "channels"),
        ({"manifest": says(activation="eval")}, "activation"),
        ({"manifest": np.frombuffer(b"[1]", np.uint8)}, "manifest"),
        ({"manifest": np.frombuffer(b"[" * 100_000, np.uint8)}, "damaged"),
    ],
)
def test_a_well_formed_file_of_the_wrong_content_is_refused_by_what_is_wrong(
    members: dict[str, np.ndarray], word: str
) -> None:
    with pytest.raises(CheckpointError, match=word) as caught:
        checkpoint.decode(rewritten(checkpoint.seal(Checkpoint(small(), {})), **members))
    assert "\n" not in str(caught.value)


def test_a_compressed_member_is_refused_before_it_is_unpacked(model: Checkpoint) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.npy", bytes(1 << 26))
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.decode(file.getvalue())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_no_model(tmp_path: Path, value: float) -> None:
    weights = small()
    broken = dataclasses.replace(weights, bias=weights.bias * np.float32(value))
    with pytest.raises(CheckpointError, match="finite"):
        checkpoint.save(tmp_path / "m.npz", Checkpoint(broken, {}))
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_shipped_and_a_file_that_is_not_there_say_so() -> None:
    with pytest.raises(CheckpointError, match="no model is called 'unheard-of'"):
        checkpoint.load("unheard-of")
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load("/nowhere/m.npz")


def test_saving_replaces_the_old_file_whole_and_leaves_no_other(tmp_path: Path, model: Checkpoint) -> None:
    checkpoint.save(tmp_path / "m.npz", model)
    checkpoint.save(tmp_path / "m.npz", Checkpoint(small(seed=5), {}))
    assert equal(checkpoint.load(tmp_path / "m.npz").weights, small(seed=5))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.json", "m.npz"]


@pytest.mark.parametrize("name", checkpoint.shipped())
def test_a_shipped_model_is_whole_and_says_how_it_was_made(name: str) -> None:
    model = checkpoint.load(name)
    assert model.name == name
    assert model.manifest["command"].startswith(f"forecastd train --recipe {name} ")
    assert {"seed", "recipe", "scores", "data", "sha256"} <= set(model.manifest)
    beside = Path(checkpoint.__file__).parent / "shipped" / f"{name}.json"
    assert json.loads(beside.read_text()) == model.manifest
