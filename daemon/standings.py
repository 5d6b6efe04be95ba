"""What the pipeline knows of itself, gathered into a scoreboard: how each series stands, and the totals.

Read once a second by the engine, which adds what only it knows (durations, models, the journal's counters).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models import score
from . import cadence
from .pipeline import Pipeline
from .scoreboard import Scoreboard


def standings(pipeline: Pipeline, now: float) -> Scoreboard:
    """The scoreboard of `pipeline` at the time `now`: series seen lately, up to the cap. The engine adds durations,
    models and events."""
    pipeline.finish()
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
        "model": pipeline.versions_of(shown),
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
        models=[{"name": pipeline.settings.model, "version": pipeline.version}] if "rnn" in pipeline.experts else [],
        events=[],
        columns={name: np.asarray(column, np.float64) for name, column in columns.items()},
    )


def _known(count: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(count > 0, count, np.nan)


_PLAIN = ("time", "seen", "samples", "gaps", "score", "flag", "anomalies", "forecast", "lower", "upper")
