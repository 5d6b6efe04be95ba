"""A series' copy of the model as bytes: what the journal keeps of it, and what the trainer sends.

Its structure is that of the shared model without what that knows of the way ahead, which all series share. Bytes are
never run, and what is not exactly such a copy is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..models import weights
from ..models.weights import Weights, restored, structure
from .pipeline import Pipeline
from .record import Damaged
from .snapshot import State


class Nonfinite(ValueError):
    """Among the weights are numbers that are not finite."""


def bare(model: Weights) -> Weights:
    """What a copy has of a model."""
    return replace(model, decoder=None, ahead=None) if model.decoder or model.ahead else model


def packed(model: Weights) -> bytes:
    """All arrays of a model, one after another."""
    return b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in model.arrays.values())


def unpacked(raw: bytes, form: Mapping[str, Any]) -> Weights:
    """The model of this structure out of `packed`'s bytes. Nonfinite, ValueError."""
    start = 0

    def take(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        nonlocal start
        count = int(np.prod(shape, dtype=np.int64))
        if start + 4 * count > len(raw):
            raise ValueError(f"array {name} is cut short")
        array = np.frombuffer(raw, "<f4", count, start).reshape(shape).astype(np.float32)
        start += 4 * count
        return array

    try:
        model = restored(form, take)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no structure of a model: {error}") from None
    if start != len(raw):
        raise ValueError("there is more of it than a model has")
    if not all(np.isfinite(array).all() for array in model.arrays.values()):
        raise Nonfinite("there are weights that are not finite")
    weights.check(model)
    return model


def encode(model: Weights) -> bytes:
    """A copy as the journal keeps it."""
    return msgspec.msgpack.encode((structure(model), packed(model)))


def decode(body: bytes) -> Weights:
    """The copy in `encode`'s bytes. Damaged where there is none in them."""
    try:
        form, raw = msgspec.msgpack.decode(body, type=tuple[dict[str, Any], bytes])
        return unpacked(raw, form)
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(f"a copy cannot be read: {error}") from None


#: The table of a snapshot that holds copies, and what stands there for one that was taken back.
TABLE, GONE = "copies", b"\0"


def attach(state: State, copies: Mapping[int, Weights | None]) -> None:
    """Have a snapshot hold copies by row (None: taken back): those that the journal does not have yet."""
    bodies = {row: GONE if weights is None else encode(weights) for row, weights in copies.items()}
    state.tables[TABLE] = {str(row): np.frombuffer(body, np.uint8) for row, body in bodies.items()}


def detach(state: State | None) -> dict[int, bytes]:
    """Take the copies out of a snapshot, `GONE` for one that was taken back."""
    held = state.tables.pop(TABLE, {}) if state else {}
    return {int(row): column.tobytes() for row, column in held.items()}


def restore(pipeline: Pipeline, bodies: Mapping[int, bytes]) -> list[int]:
    """Give series the copies they had, by row; the rows of those that cannot be had: damaged, of a model of another
    structure, or of no series that is known."""
    expert = pipeline.recurrent
    form = structure(bare(expert.weights)) if expert else None
    lost = []
    for row, body in bodies.items():
        try:
            model = decode(body)
        except Damaged:
            lost.append(row)
            continue
        if structure(model) == form and row < len(pipeline.names):
            pipeline.adopt(row, model)
        else:
            lost.append(row)
    return lost
