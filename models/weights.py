"""The numbers of a model, and how its input and output are to be read.

Trained by `rnn`, stored by `checkpoint`, run by `kernel`; a fine-tuned copy is one more of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
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

#: A decoder's input: for each step ahead, what linear prediction says of it, as the encoder's `ar` and as its `level`.
CUES = 2
STEPS_MAX = 64

_ARRAYS = ("kernel", "recurrent", "bias", "readout", "readout_bias")
_DECODER_ARRAYS = ("kernel", "recurrent", "bias", "gate", "gate_bias")


@dataclass(frozen=True)
class Decoder:
    """What goes on from the state in which the encoder ends, a step ahead at a time; `path.py` has its arithmetic.

    `kernel` (CUES, units), `recurrent` (units, units), `bias` (units,), `gate` (units,), `gate_bias` (): float32 and
    finite. `steps`: how far ahead it was trained, the encoder's own step among them; 2 … `STEPS_MAX`.
    """

    kernel: Floats
    recurrent: Floats
    bias: Floats
    gate: Floats
    gate_bias: Floats
    steps: int


@dataclass(frozen=True)
class Weights:
    """SimpleRNN(units, relu) → Dense(1), and how its input and output are to be read. Arrays are float32 and finite.

    `kernel` (C, units), `recurrent` (units, units), `bias` (units,), `readout` (units,), `readout_bias` (). `channels`
    names the C inputs of each of the `window` steps, oldest first. `output`: `residual` means that the forecast is last
    + s·f, `value` that it is f itself. `activation` is applied to f after the readout. With a `decoder` it also
    knows the way ahead; `ahead` is another model that does so in this one's stead. Frozen, and its arrays are not to
    be written to: the engine shares them.
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
    decoder: Decoder | None = None
    ahead: Weights | None = None

    @property
    def units(self) -> int:
        return int(self.bias.shape[0])

    @property
    def arrays(self) -> dict[str, Floats]:
        """The arrays by name, in the order in which they are stored: five, the decoder's, those of the model ahead."""
        found: dict[str, Floats] = {name: getattr(self, name) for name in _ARRAYS}
        if self.decoder is not None:
            found |= {f"decoder_{name}": getattr(self.decoder, name) for name in _DECODER_ARRAYS}
        if self.ahead is not None:
            found |= {f"ahead_{name}": array for name, array in self.ahead.arrays.items()}
        return found


def structure(weights: Weights) -> dict[str, Any]:
    """What of the weights is not in the arrays, as JSON. What a model does not have is not named, so that the
    checksum of one without it stays what it was."""
    found: dict[str, Any] = {
        "channels": list(weights.channels),
        "output": weights.output,
        "activation": weights.activation,
        "window": weights.window,
        "units": weights.units,
    }
    if weights.decoder is not None:
        found["steps_ahead"] = weights.decoder.steps
    if weights.ahead is not None:
        found["ahead"] = structure(weights.ahead)
    return found


def restored(structure: Mapping[str, Any], take: Callable[[str, tuple[int, ...]], Floats]) -> Weights:
    """The weights of that `structure`, each array had by `take(name, shape)`. KeyError, TypeError or ValueError where
    it describes none; `check` is still to be run."""
    units, channels, steps = structure["units"], structure["channels"], structure.get("steps_ahead")
    known = {name: take(name, shape) for name, shape in shapes(len(channels), units).items()}
    decoder = None
    if steps is not None:
        inner = {name: take(f"decoder_{name}", shape) for name, shape in decoder_shapes(units).items()}
        decoder = Decoder(**inner, steps=steps)
    ahead = None
    if "ahead" in structure:
        if "ahead" in structure["ahead"] or "steps_ahead" not in structure["ahead"]:
            raise ValueError("the model ahead knows no way ahead")
        ahead = restored(structure["ahead"], lambda name, shape: take(f"ahead_{name}", shape))
    return Weights(
        **known,
        channels=tuple(channels),
        output=structure["output"],
        activation=structure["activation"],
        window=structure["window"],
        decoder=decoder,
        ahead=ahead,
    )


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
    expected = shapes(len(weights.channels), weights.units)
    if weights.decoder is not None:
        expected |= {f"decoder_{name}": shape for name, shape in decoder_shapes(weights.units).items()}
        if type(weights.decoder.steps) is not int or not 2 <= weights.decoder.steps <= STEPS_MAX:
            raise ValueError(f"steps ahead out of bounds (2 to {STEPS_MAX})")
        if weights.channels != CHANNELS or weights.output != "residual" or weights.activation != "linear":
            raise ValueError(f"a decoder needs the channels {', '.join(CHANNELS)} and a linear residual")
    if weights.ahead is not None:
        if weights.ahead.decoder is None or weights.ahead.ahead is not None:
            raise ValueError("the model ahead knows no way ahead")
        check(weights.ahead)
    arrays = weights.arrays
    for name, shape in expected.items():
        array = arrays[name]
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


def decoder_shapes(units: int) -> dict[str, tuple[int, ...]]:
    """The same of a decoder's arrays."""
    return {"kernel": (CUES, units), "recurrent": (units, units), "bias": (units,), "gate": (units,), "gate_bias": ()}
