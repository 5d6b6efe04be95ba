"""The daemon's knowledge of itself, as one message: the engine sends it once a second, the web process shows it.

Arrays cross as raw little-endian bytes, so a scoreboard of 10,000 series costs the engine a copy and no loop over series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..models import score
from . import cadence

if TYPE_CHECKING:
    from .pipeline import Pipeline


class Scoreboard(msgspec.Struct):
    """One second of the daemon. n: series shown (up to a cap), H: horizon, K: experts, S: sources (`blend`, then the experts), L: levels.

    `columns` holds per series: `value`, `time`, `seen` (when the engine last had a sample, seconds since the epoch), `step`, `season`
    (samples, NaN: none), `samples`, `gaps`, `ready`, `score`, `flag`, `anomalies`, `model`, all of shape (n,); `forecast` (n, H); `lower`, `upper`,
    `coverage`, `width`, `winkler` (n, H, L); `mae`, `rmse`, `bias`, `skill` (n, H, S), prequential with forgetting; `weight` (n, H, K). float64, NaN where unknown.

    `counters` are totals since the start: `samples`, `forecasts`, `gaps` (sequence gaps), `series` (all, shown or not), `series_hidden`.
    """

    time: float
    series: list[str]
    horizon: int
    levels: list[float]
    experts: list[str]
    counters: dict[str, float]
    refused: dict[str, int]
    #: receive-to-publish times: upper bounds in seconds, count at or below each bound but above the last (one more for +Inf), and their sum.
    duration_bounds: list[float]
    duration_counts: list[int]
    duration_sum: float
    models: list[dict[str, Any]]
    events: list[dict[str, Any]]
    columns: dict[str, NDArray[np.float64]]

    @property
    def sources(self) -> list[str]:
        return ["blend", *self.experts]


def gather(pipeline: Pipeline, now: float) -> Scoreboard:
    """The scoreboard of `pipeline` at the time `now`: series seen lately, up to the cap. The engine adds durations, models and events."""
    limits, series, table = pipeline.settings.limits, pipeline.series, pipeline.forecaster.table
    live = np.flatnonzero(now - series["seen"] <= limits.silent_s)
    shown = live[: limits.series_shown]
    scores = pipeline.forecaster.scores
    errors, coverage = scores["errors"][shown], scores["coverage"][shown]
    errors[scores["scored"][shown] == 0] = np.nan
    coverage[scores["covered"][shown, :, 0] == 0] = np.nan
    columns = {name: series[name][shown] for name in _PLAIN}
    columns |= {
        "value": table["last"][shown],
        "step": cadence.step({name: series[name][shown] for name in ("log_step", "steps")}),
        "season": _known(table["season"][shown] if "season" in table.columns else np.zeros(len(shown))),
        "ready": ~np.isnan(series["forecast"][shown, 0]),
        "model": np.full(len(shown), pipeline.version),
        "mae": errors[..., 0],
        "rmse": np.sqrt(errors[..., 1]),
        "bias": errors[..., 2],
        "skill": score.skill(errors),
        "coverage": coverage[..., 0],
        "width": coverage[..., 1],
        "winkler": coverage[..., 2],
        "weight": table["weights"][shown],
    }
    return Scoreboard(
        time=now,
        series=[pipeline.names[row] for row in shown.tolist()],
        horizon=pipeline.settings.horizon,
        levels=list(pipeline.levels),
        experts=list(pipeline.experts),
        counters={
            "samples": pipeline.samples,
            "forecasts": pipeline.forecasts,
            "gaps": pipeline.admission.ledger.gaps,
            "series": len(live),
            "series_hidden": len(live) - len(shown),
        },
        refused=dict(pipeline.admission.refused),
        duration_bounds=[],
        duration_counts=[0],
        duration_sum=0.0,
        models=[],
        events=[],
        columns={name: np.asarray(column, np.float64) for name, column in columns.items()},
    )


def _known(count: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(count > 0, count, np.nan)


_PLAIN = ("time", "seen", "samples", "gaps", "score", "flag", "anomalies", "forecast", "lower", "upper")


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
