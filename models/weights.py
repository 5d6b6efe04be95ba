"""The numbers of a model, and how its input and output are to be read.

Trained by `rnn`, stored by `checkpoint`, run by `kernel`; a fine-tuned copy is one more of these.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: The input channels there are, in the order of `channels.py`; the tutorial's model sees the raw value instead.
CHANNELS = ("difference", "level", "ar", "residual")
VALUE = ("value",)
KNOWN = CHANNELS + VALUE
OUTPUTS = ("residual", "value")
ACTIVATIONS = ("linear", "relu")

UNITS_MAX = 2048
WINDOW_MAX = 1024

_ARRAYS = ("kernel", "recurrent", "bias", "readout", "readout_bias")


@dataclass(frozen=True)
class Weights:
    """SimpleRNN(units, relu) → Dense(1), and how its input and output are to be read. Arrays are float32 and finite.

    `kernel` (C, units), `recurrent` (units, units), `bias` (units,), `readout` (units,), `readout_bias` (). `channels`
    names the C inputs of each of the `window` steps, oldest first. `output`: `residual` means that the forecast is last
    + s·f, `value` that it is f itself. `activation` is applied to f after the readout. Frozen, and its arrays are not
    to be written to: the engine shares them.
    """

    kernel: Floats
    recurrent: Floats
    bias: Floats
    readout: Floats
    readout_bias: Floats
    channels: tuple[str, ...] = CHANNELS
    output: str = "residual"
    activation: str = "linear"
    window: int = 10

    @property
    def units(self) -> int:
        return int(self.bias.shape[0])

    @property
    def arrays(self) -> dict[str, Floats]:
        """The five arrays by name, in the order in which they are stored."""
        return {name: getattr(self, name) for name in _ARRAYS}


def structure(weights: Weights) -> dict[str, Any]:
    """What of the weights is not in the arrays, as JSON."""
    return {
        "channels": list(weights.channels),
        "output": weights.output,
        "activation": weights.activation,
        "window": weights.window,
        "units": weights.units,
    }


def digest(weights: Weights) -> str:
    """SHA-256, in hexadecimal, of the arrays and the structure: two models are the same exactly if these are."""
    sha = hashlib.sha256(json.dumps(structure(weights), sort_keys=True, separators=(",", ":")).encode())
    for name, array in weights.arrays.items():
        sha.update(f"{name}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array, "<f4").tobytes())
    return sha.hexdigest()


def check(weights: Weights) -> None:
    """ValueError, in one line, unless names, shapes and dtypes fit together and every number is finite."""
    if not (0 < len(weights.channels) <= len(KNOWN)) or any(c not in KNOWN for c in weights.channels):
        raise ValueError(
            f"unknown input channels {', '.join(map(str, weights.channels))}; known are {', '.join(KNOWN)}"
        )
    if weights.output not in OUTPUTS or weights.activation not in ACTIVATIONS:
        raise ValueError(f"unknown output {weights.output!r} or activation {weights.activation!r}")
    if not 1 <= weights.window <= WINDOW_MAX or not (weights.bias.ndim == 1 and 1 <= weights.units <= UNITS_MAX):
        raise ValueError(f"window or units out of bounds (at most {WINDOW_MAX} and {UNITS_MAX})")
    for name, shape in shapes(len(weights.channels), weights.units).items():
        array = getattr(weights, name)
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"array {name} is {array.dtype}{array.shape}, not float32{shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"array {name} holds numbers that are not finite: the training diverged")


def shapes(channels: int, units: int) -> dict[str, tuple[int, ...]]:
    """The shape of each array of a model with so many channels and units, in the order in which they are stored."""
    return {
        "kernel": (channels, units),
        "recurrent": (units, units),
        "bias": (units,),
        "readout": (units,),
        "readout_bias": (),
    }
