"""Models out of `.keras` files, without Keras: the architecture is checked, then five arrays are read; nothing is run.

Loading such a file with Keras can run code that lies in it (CVE-2025-1550, CVE-2025-9906), in spite of its safe mode.
Ours are written by `rnn.export`, or by Keras for a model of the textbook's shape: Input, SimpleRNN(relu), Dense(1), and
perhaps a relu.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import FILE_BYTES_MAX, Checkpoint, CheckpointError, seal
from .weights import CHANNELS, UNITS_MAX, VALUE, WINDOW_MAX, Floats, Weights, shapes

#: What the layer must say of itself where it matters for the arithmetic; anything else it says changes nothing here.
_SIMPLE_RNN = {
    "activation": "relu",
    "use_bias": True,
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
}
_PLACES = {
    "kernel": "layers/simple_rnn/cell/vars/0",
    "recurrent": "layers/simple_rnn/cell/vars/1",
    "bias": "layers/simple_rnn/cell/vars/2",
    "readout": "layers/dense/vars/0",
    "readout_bias": "layers/dense/vars/1",
}


def read(path: str | Path) -> Checkpoint:
    """The model in a `.keras` file; CheckpointError, in one line, where it is none or not of our architecture.

    One input channel is taken for the raw value, as the textbook has it, four for those of `channels.py`.
    """
    path = Path(path)
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise CheckpointError(f"it has more than {FILE_BYTES_MAX} bytes")
        with zipfile.ZipFile(path) as archive:
            config = json.loads(_member(archive, "config.json"))
            content = _member(archive, "model.weights.h5")
        window, channels, units, activation = _architecture(config)
        arrays = _arrays(content, len(channels), units)
    except CheckpointError as error:
        raise CheckpointError(f"model {path}: {error}") from None
    # Which of these it is depends on which byte is wrong; all of them mean that this is no such file.
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"model {path} is no .keras file of ours ({' '.join(str(error).split())})") from None
    weights = Weights(
        kernel=arrays["kernel"],
        recurrent=arrays["recurrent"],
        bias=arrays["bias"],
        readout=arrays["readout"],
        readout_bias=arrays["readout_bias"],
        channels=channels,
        output="value" if channels == VALUE else "residual",
        activation=activation,
        window=window,
    )
    return seal(Checkpoint(weights, {"name": path.stem, "version": 1, "parent": None, "recipe": "imported"}))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > FILE_BYTES_MAX:
        raise CheckpointError(f"{name} has more than {FILE_BYTES_MAX} bytes")
    return archive.read(name)


def _architecture(config: Any) -> tuple[int, tuple[str, ...], int, str]:
    """Window, channels, units and last activation of a Sequential of ours."""
    layers = config["config"]["layers"]
    kinds = [layer["class_name"] for layer in layers]
    if (
        config["class_name"] != "Sequential"
        or kinds[:3] != ["InputLayer", "SimpleRNN", "Dense"]
        or kinds[3:]
        not in (
            [],
            ["Activation"],
        )
    ):
        raise CheckpointError(f"its layers are {', '.join(map(str, kinds))}, not Input, SimpleRNN, Dense[, Activation]")
    given, rnn, dense = (layer["config"] for layer in layers[:3])
    wrong = [f"{key} {rnn.get(key)!r}" for key, value in _SIMPLE_RNN.items() if rnn.get(key, value) != value]
    if wrong or dense["units"] != 1 or dense["use_bias"] is not True:
        raise CheckpointError(f"its layers are set otherwise than ours: {', '.join(wrong) or 'Dense'}")
    _, window, width = given["batch_shape"]
    if type(window) is not int or not 1 <= window <= WINDOW_MAX or width not in (1, len(CHANNELS)):
        raise CheckpointError(
            f"its input is {window} steps of {width} channels; ours have 1 or {len(CHANNELS)} channels"
        )
    if type(rnn["units"]) is not int or not 1 <= rnn["units"] <= UNITS_MAX:
        raise CheckpointError(f"it has {rnn['units']} units; at most {UNITS_MAX} are taken")
    last = [dense["activation"], *(layer["config"]["activation"] for layer in layers[3:])]
    if any(activation not in ("linear", "relu") for activation in last):
        raise CheckpointError(f"its last activation is {last[-1]!r}; ours are linear and relu")
    return window, VALUE if width == 1 else CHANNELS, rnn["units"], "relu" if "relu" in last else "linear"


def _arrays(content: bytes, channels: int, units: int) -> dict[str, Floats]:
    import h5py

    expected = {**shapes(channels, units), "readout": (units, 1), "readout_bias": (1,)}
    arrays = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        for name, place in _PLACES.items():
            data = _dataset(h5py, file, place)
            if data.shape != expected[name] or data.dtype != np.dtype("<f4"):
                raise CheckpointError(f"{name} is {data.dtype}{data.shape}, not float32{expected[name]}")
            arrays[name] = np.array(data, np.float32)
    arrays["readout"] = arrays["readout"][:, 0]
    arrays["readout_bias"] = arrays["readout_bias"].reshape(())
    return arrays


def _dataset(h5py: Any, file: Any, place: str) -> Any:
    """The dataset at `place`, reached and stored inside this file alone: links and storage may point to other files."""
    found = file
    for part in place.split("/"):
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise CheckpointError(f"{place} is not in it")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise CheckpointError(f"{place} is no array in this file")
    return found
