"""The daemon's knowledge of itself, as one message: the engine sends it once a second, the web process shows it.

Arrays cross as raw little-endian bytes, so a scoreboard of 10,000 series costs the engine a copy and no loop over
series."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray


class Scoreboard(msgspec.Struct):
    """One second of the daemon. n: series shown (up to a cap), H: horizon, K: experts, S: sources (`blend`, then the
    experts), L: levels.

    `columns` holds per series: `value`, `time`, `seen` (when the engine last had a sample, seconds since the epoch),
    `step`, `season` (samples, NaN: none), `samples`, `gaps`, `ready`, `score`, `flag`, `anomalies`, `model`, all of
    shape (n,); `forecast` (n, H); `lower`, `upper`, `coverage`, `width`, `winkler` (n, H, L); `mae`, `rmse`, `bias`,
    `skill` (n, H, S), prequential with forgetting; `weight` (n, H, K). float64, NaN where unknown.

    `counters` are totals since the start: `samples`, `forecasts`, `gaps` (sequence gaps), `series` (all, shown or
    not), `series_hidden`."""

    time: float
    series: list[str]
    horizon: int
    levels: list[float]
    experts: list[str]
    counters: dict[str, float]
    refused: dict[str, int]
    #: receive-to-publish times: upper bounds in seconds, count at or below each bound but above the last (one more
    #: for +Inf), and their sum.
    duration_bounds: list[float]
    duration_counts: list[int]
    duration_sum: float
    models: list[dict[str, Any]]
    events: list[dict[str, Any]]
    columns: dict[str, NDArray[np.float64]]
    #: the newest versions of the shared model and the champions among them, as `lineage.Lineage.told` has them
    lineage: dict[str, Any] = {}
    #: fine-tunes by outcome, and how long the trainer worked on each lot of them: counts by the bounds above, their sum
    finetunes: dict[str, int] = {}
    finetune_counts: list[int] = []
    finetune_sum: float = 0.0

    @property
    def sources(self) -> list[str]:
        return ["blend", *self.experts]


def _pack(value: Any) -> Any:
    return [list(value.shape), np.ascontiguousarray(value, "<f8").tobytes()]


_encoder = msgspec.msgpack.Encoder(enc_hook=_pack)


def _unpack(kind: type, value: Any) -> Any:
    shape, raw = value
    return np.frombuffer(raw, "<f8").reshape(shape)


_decoder = msgspec.msgpack.Decoder(Scoreboard, dec_hook=_unpack)


def encode(board: Scoreboard) -> bytes:
    """The scoreboard as msgpack."""
    return _encoder.encode(board)


def decode(message: bytes) -> Scoreboard:
    """The scoreboard out of `encode`'s bytes; msgspec.ValidationError when it is none."""
    return _decoder.decode(message)
