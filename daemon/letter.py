"""What engine and trainer write to each other: a header that says what it is, and raw arrays, little-endian.

The engine takes nothing on trust that comes back: weights have the size and structure of its own model, and every
number of them is finite, or the letter is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..models import weights


class Begin(msgspec.Struct, tag="begin"):
    """To the trainer `trainer`: what follows is for it. With it the shared model, whose `structure` this is, and the
    copies of these rows."""

    trainer: int
    structure: dict[str, Any]
    rows: list[int]


class Taught(msgspec.Struct, tag="taught"):
    """Samples as they were taken in, records of `record(channels)`."""

    channels: int


class Gains(msgspec.Struct, tag="gains"):
    """What copies have gained lately, by row: the share of the shared model's loss."""

    gains: dict[int, float]


class Asked(msgspec.Struct, tag="asked"):
    """Fine-tune these rows as soon as may be; None for all."""

    rows: list[int] | None


class Challenge(msgspec.Struct, tag="challenge"):
    """Draw a challenger of the shared model as soon as may be."""


class Hello(msgspec.Struct, tag="hello"):
    """The trainer `trainer` is there and knows nothing."""

    trainer: int


class Began(msgspec.Struct, tag="began"):
    """The trainer works on these rows now."""

    rows: list[int]


class Dropped(msgspec.Struct, tag="dropped"):
    """The copies of these rows are taken back: they have not been worth having."""

    rows: list[int]


class Told(msgspec.Struct, tag="told"):
    """What came of one row: `outcome`, the loss on held-out windows `before` and `after`, None where it was not
    finite, and what set it off. Where the outcome is `tuned` the weights come with it."""

    row: int
    outcome: str
    before: float | None
    after: float | None
    cause: str


class Challenger(msgspec.Struct, tag="challenger"):
    """A challenger of the shared model, whose weights come with it: the loss on held-out windows of the shared model,
    `before`, and of it, `after`, and how many series and windows it learnt from. Without weights: none was better."""

    before: float = 0.0
    after: float = 0.0
    series: int = 0
    windows: int = 0


class Done(msgspec.Struct, tag="done"):
    """The work on the rows of the last `Began` is over; it took so long, and used so much of the processor."""

    seconds: float
    cpu_s: float


class Resting(msgspec.Struct, tag="resting"):
    """The trainer has used up what it may in a day, and goes on in so many seconds."""

    seconds: float


Letter = Begin | Taught | Gains | Asked | Challenge | Hello | Began | Told | Challenger | Dropped | Done | Resting

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Letter)


def encode(letter: Letter, *body: Any) -> list[Any]:
    """The letter as frames."""
    return [_encoder.encode(letter), *body]


def decode(frames: Sequence[bytes]) -> tuple[Letter, list[bytes]]:
    """The letter and its body. ValueError where it is none."""
    try:
        return _decoder.decode(frames[0]), list(frames[1:])
    except (msgspec.DecodeError, IndexError) as error:
        raise ValueError(f"no letter: {error}") from None


def record(channels: int) -> np.dtype[Any]:
    """One sample: `row`; samples since its window began anew, `fresh`; value `x` and unit `s`; `forecast` of the next
    value, NaN for none; whether it was `real` and not bridged; the inputs of the model."""
    return np.dtype(
        [
            ("row", "<u4"),
            ("fresh", "<u4"),
            ("x", "<f8"),
            ("s", "<f8"),
            ("forecast", "<f8"),
            ("real", "?"),
            ("channels", "<f4", (channels,)),
        ]
    )


def samples(letter: Taught, body: Sequence[bytes]) -> NDArray[Any]:
    """The samples of the letter, shape (n,) of `record`. ValueError where its body is none."""
    if len(body) != 1 or not 1 <= letter.channels <= len(weights.KNOWN):
        raise ValueError("these are no samples")
    return np.frombuffer(body[0], record(letter.channels))
