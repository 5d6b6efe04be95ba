"""The page of a backtest: one HTML file that holds its data and plotly's own script, so that it opens anywhere, for
years.

The template is `page/report.html`; what it draws is the JSON made here. Arrays travel as base64 of little-endian
floats; long series are thinned to the highest and lowest sample of each stretch, so no spike is lost and the page stays
a few megabytes.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .batch import Floats
from .grade import Aligned, Grade, aligned, first_scored, grade, summary
from .replay import Trace
from .settings import Settings

#: Samples drawn on the whole page, and at least and at most of one series.
POINTS = 120_000
SERIES_POINTS = (400, 6_000)
#: Series with charts; the others are in the table alone.
CHARTS_MAX = 100
#: Points of the slow curves (error, coverage, weights), and samples in the close-up.
CURVE_POINTS = 240
CLOSE_UP = 150
#: The slow curves look back over this share of a series, within these bounds.
LOOK_BACK = 20
LOOK_BACK_SAMPLES = (50, 500)


def page(traces: Sequence[Trace], settings: Settings, score_from: float) -> str:
    """The report of these traces as HTML."""
    data = msgspec.json.encode(content(traces, settings, score_from)).decode()
    template = (resources.files(__package__ or "forecastd.daemon") / "page" / "report.html").read_text("utf-8")
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    # "<" as an escape keeps a series called "</script>" inside the string it is
    return template.replace("{{data}}", data.replace("<", "\\u003c")).replace("{{plotly}}", script)


def content(traces: Sequence[Trace], settings: Settings, score_from: float) -> dict[str, Any]:
    """What the template draws."""
    grades = [grade(trace, score_from) for trace in traces]
    drawn = _drawn(grades)
    low, high = SERIES_POINTS
    most = int(np.clip(POINTS // max(len(drawn), 1), low, high))
    total = summary(grades)
    return {
        "version": __version__,
        "settings": {
            "experts": list(traces[0].experts) if traces else [],
            "level": settings.level,
            "horizon": settings.horizon,
            "model": settings.model if "rnn" in settings.experts else None,
            "score_from": score_from,
        },
        "summary": total._asdict(),
        "charted": len(drawn),
        "series": [
            {"grade": g, "chart": _chart(trace, score_from, most) if k in drawn else None}
            for k, (trace, g) in enumerate(zip(traces, grades, strict=True))
        ],
    }


def _drawn(grades: Sequence[Grade]) -> set[int]:
    """The series that get charts: all, or the worst ones, which are those to look at."""
    able = [k for k, g in enumerate(grades) if g.scored]
    if len(able) > CHARTS_MAX:
        able.sort(key=lambda k: np.nan_to_num(grades[k].skill, nan=np.inf))
    return set(able[:CHARTS_MAX])


def _chart(trace: Trace, score_from: float, most: int) -> dict[str, Any]:
    shown = thin(trace.value, trace.flag, most)
    first = max(len(trace) - CLOSE_UP, 0)
    reference = float(np.median(trace.value))
    a = aligned(trace)
    return {
        "n": len(trace),
        # float32 keeps seven digits: those of the distance from the middle, not of the value
        "reference": reference,
        "scored_from": _moment(trace, first_scored(trace, score_from)),
        "whole": {**_lines(trace, a, shown, reference), "flags": np.flatnonzero(trace.flag[shown]).tolist()},
        "close_up": {
            **_lines(trace, a, np.arange(first, len(trace)), reference),
            "n": len(trace) - first,
            "experts": [_packed(_placed(a, column, len(trace))[first:] - reference) for column in a.forecasts.T],
        },
        "curves": _curves(trace, a),
    }


def _lines(trace: Trace, a: Aligned, shown: NDArray[np.intp], reference: float) -> dict[str, Any]:
    """Truth, forecast and band at the samples `shown`, those without a forecast with a hole."""
    made = {"mean": a.mean, "lower": a.lower[:, 0], "upper": a.upper[:, 0]}
    columns = {"value": trace.value, **{name: _placed(a, column, len(trace)) for name, column in made.items()}}
    return {"time": _times(trace, shown), **{name: _packed(c[shown] - reference) for name, c in columns.items()}}


def _placed(a: Aligned, column: Floats, n: int) -> Floats:
    """What was made for the targets, each at its sample; NaN at the other samples; shape (n,)."""
    placed = np.full(n, np.nan)
    placed[a.target] = column
    return placed


def _curves(trace: Trace, a: Aligned) -> dict[str, Any]:
    """Error by source, coverage and weights, over the trailing samples."""
    n, sources = len(trace), len(trace.experts)
    look_back = int(np.clip(n // LOOK_BACK, *LOOK_BACK_SAMPLES))
    at = np.unique(np.linspace(min(look_back, n - 1), n - 1, CURVE_POINTS).astype(np.intp))
    squares, covered = np.full((n, 1 + sources), np.nan), np.full((n, 1), np.nan)
    squares[a.target, 0] = np.square(a.error)
    squares[a.target, 1:] = np.square(a.forecasts - a.value[:, None])
    covered[a.target, 0] = a.covered[:, 0]
    rmse = np.sqrt(trailing_mean(squares, look_back, at))
    weights = trailing_mean(trace.weights, max(look_back // 4, 1), at)
    return {
        "look_back": look_back,
        "time": _times(trace, at),
        "rmse": [_packed(rmse[:, k]) for k in range(1 + sources)],
        "coverage": _packed(trailing_mean(covered, look_back, at)[:, 0]),
        "weights": [_packed(weights[:, k]) for k in range(sources)],
    }


def trailing_mean(values: Floats, look_back: int, at: NDArray[np.intp]) -> Floats:
    """Means of `values`, shape (n, C), over the `look_back` samples up to each of `at`, shape (m,); (m, C). NaN is left
    out.
    """
    means = np.full((len(at), values.shape[1]), np.nan)
    for k, end in enumerate(at.tolist()):
        # each window anew: in running sums one huge error would leave its rounding behind for ever
        window = values[max(end + 1 - look_back, 0) : end + 1]
        known = ~np.isnan(window)
        count = known.sum(0)
        np.divide(np.where(known, window, 0.0).sum(0), count, out=means[k], where=count > 0)
    return means


def thin(values: Floats, flags: NDArray[np.bool_], most: int) -> NDArray[np.intp]:
    """Which samples to draw, in order: all if there are at most `most`, else the highest and the lowest of each
    stretch, and those flagged.
    """
    n = len(values)
    if n <= most:
        return np.arange(n)
    edges = np.linspace(0, n, most // 2 + 1).astype(np.intp).tolist()
    picked = [0, n - 1]
    for a, b in pairwise(edges):
        picked += [a + int(values[a:b].argmin()), a + int(values[a:b].argmax())]
    return np.union1d(picked, np.flatnonzero(flags)[: most // 4])


def _times(trace: Trace, shown: NDArray[np.intp]) -> dict[str, Any]:
    """Seconds since the epoch, or sample numbers where a recording has no times; only start and step where they are
    regular.
    """
    timed = not np.isnan(trace.time).any()
    x = trace.time[shown] if timed else shown.astype(np.float64)
    step = (x[-1] - x[0]) / (len(x) - 1) if len(x) > 1 else 0.0
    if np.abs(x - (x[0] + step * np.arange(len(x)))).max(initial=0.0) < 1e-3:
        return {"timed": timed, "start": float(x[0]), "step": float(step), "n": len(x)}
    return {"timed": timed, "at": _packed(x, "<f8")}


def _moment(trace: Trace, number: int) -> float:
    """Where on the axis a sample lies."""
    return float(number) if np.isnan(trace.time).any() else float(trace.time[min(number, len(trace) - 1)])


def _packed(values: Floats, kind: str = "<f4") -> str:
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype(kind).tobytes()).decode()
