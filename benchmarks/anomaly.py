"""Whether a score of p means p, whether alarms come at the rate they were asked for, and what of NAB's labelled windows
they hit, beside other detectors at equal false alarms."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from forecastd.daemon.replay import Trace
from forecastd.daemon.settings import Settings

from .corpus import Size, folder, real, waves
from .section import Check, Section, figure

Floats = NDArray[np.float64]

#: A score below p should come this often.
SHARES = (0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
#: Waves whose noise is the same throughout.
STATIONARY = ("sine", "two-tone", "square", "random-walk", "heavy-tails", "outliers")
#: False alarms per 1,000 samples outside the windows, at which the detectors are compared.
FALSE_ALARMS = (0.5, 0.8, 1.1, 2.0)
TINY = 1e-300
#: Added to the scores of flagged samples: what is flagged comes before what is not, and -ln `TINY` is less.
FLAGGED = 1e3
#: How unusual each sample is, the higher the more, NaN where nothing is said; and from where on it is an alarm.
Detector = Callable[[Trace], tuple[Floats, float]]


def ours(trace: Trace) -> tuple[Floats, float]:
    """-ln p; alarms are the samples the daemon flagged."""
    score = -np.log(np.maximum(trace.score, TINY))
    return np.where(trace.flag, score + FLAGGED, score), FLAGGED


def three_sigma(trace: Trace) -> tuple[Floats, float]:
    """The distance from the last value, in deviations of all such distances so far."""
    step = np.diff(trace.value, prepend=trace.value[0])
    before = np.sqrt(np.cumsum(np.square(step)) / np.maximum(np.arange(len(step)), 1))
    score = np.full(len(step), np.nan)
    known = np.flatnonzero(before[:-1] > 0.0) + 1
    score[known] = np.abs(step[known]) / before[known - 1]
    return score, 3.0


def skaters(trace: Trace) -> tuple[Floats, float]:
    """microprediction/skaters, `mahalanobis` around `laplace(k=1)`: -ln of its p."""
    module = importlib.import_module("skaters")
    step, state = module.mahalanobis(module.laplace(k=1), k=1), None
    score = np.full(len(trace), np.nan)
    for i, y in enumerate(trace.value.tolist()):
        _, state = step(y, state)
        if state["pvalue"] is not None:
            score[i] = -np.log(max(state["pvalue"], TINY))
    return score, -float(np.log(Settings().alarm_rate))


DETECTORS: dict[str, Detector] = {
    "**forecastd**": ours,
    "skaters `mahalanobis`": skaters,
    "3 sigma on naive": three_sigma,
}


class Labelled:
    """The labelled series as one detector sees them: the peak of each window, and all scores outside of any."""

    def __init__(self, detector: Detector, traces: list[tuple[Trace, list[NDArray[np.bool_]]]]) -> None:
        peaks, outside = [], []
        for trace, windows in traces:
            score, self.alarm = detector(trace)
            score = np.where(np.isnan(score), -np.inf, score)
            peaks += [score[window].max() for window in windows if window.any()]
            outside.append(score[~np.any([*windows, np.zeros(len(score), bool)], axis=0)])
        self.peaks, self.outside = np.array(peaks), np.sort(np.concatenate(outside))

    def at(self, false_alarms: float) -> float:
        """Recall at the threshold that so many samples in 1,000 outside the windows are above."""
        above = int(false_alarms * len(self.outside) / 1000)
        return float((self.peaks > self.outside[len(self.outside) - 1 - above]).mean())

    @property
    def own(self) -> tuple[float, float]:
        """Recall, and false alarms per 1,000, at the detector's own threshold."""
        return float((self.peaks > self.alarm).mean()), 1000.0 * float((self.outside > self.alarm).mean())


def labelled(size: Size) -> list[tuple[Trace, list[NDArray[np.bool_]]]]:
    """The series NAB has labels for, and which of their samples are in each window."""
    found = folder()
    if found is None:
        return []
    labels = json.loads((found / "nab" / "anomaly_windows.json").read_text("utf-8"))
    by_name = {name.rpartition("/")[2].removesuffix(".csv"): windows for name, windows in labels.items()}
    return [
        (trace, [(trace.time >= _seconds(a)) & (trace.time <= _seconds(b)) for a, b in by_name[trace.name]])
        for trace in real(size)
        if trace.name in by_name
    ]


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()


def table(size: Size) -> Section:
    """Calibration, rates, and NAB's windows."""
    rate = Settings().alarm_rate
    groups = {f"`{kind}`": traces for kind, traces in waves(size).items()}
    rates = {name: 1000.0 * float(np.concatenate([t.flag for t in traces]).mean()) for name, traces in groups.items()}
    checks = [
        Check(
            f"flags in 1,000 samples, {word} of the stationary waves", value, bound, least=word == "least", form=".2f"
        )
        for word, value, bound in (
            ("least", min(rates[f"`{kind}`"] for kind in STATIONARY), 800 * rate),
            ("most", max(rates[f"`{kind}`"] for kind in STATIONARY), 1300 * rate),
        )
    ]
    tables = [(["wave", "flags in 1,000"], [[name, figure(value, ".2f")] for name, value in rates.items()])]
    everything = {"waves": [trace for traces in groups.values() for trace in traces]}
    if real(size):
        everything["real"] = real(size)
        flags = [trace.flag for trace in real(size)]
        pooled, most = 1000.0 * float(np.concatenate(flags).mean()), 1000.0 * max(float(f.mean()) for f in flags)
        checks += [
            Check("flags in 1,000 samples, all real series", pooled, 800 * rate, least=True, form=".2f"),
            Check("flags in 1,000 samples, all real series", pooled, 1200 * rate, form=".2f"),
            Check("flags in 1,000 samples, most on any real series", most, 3000 * rate, form=".2f"),
        ]
    tables.append(_calibration(everything))
    series = labelled(size)
    words = f"The flag is asked for at a rate of {rate:g}."
    if series:
        words += _compare(series, tables, checks)
    return Section("Anomalies", words, tables, checks)


def _calibration(groups: dict[str, list[Trace]]) -> tuple[list[str], list[list[str]]]:
    scores = {name: np.concatenate([trace.score for trace in traces]) for name, traces in groups.items()}
    rows = []
    for share in SHARES:
        below = [float(np.mean(score[~np.isnan(score)] <= share)) for score in scores.values()]
        rows.append([f"{share:g}", *(figure(value, ".4f") for value in below)])
    return ["score below", *(f"share of the samples, {name}" for name in scores)], rows


def _compare(series: list[tuple[Trace, list[NDArray[np.bool_]]]], tables: list, checks: list[Check]) -> str:  # type: ignore[type-arg]
    absent = importlib.util.find_spec("skaters") is None
    rows, found = [], {}
    for name, detector in DETECTORS.items():
        if detector is skaters and absent:
            continue
        seen = found[name] = Labelled(detector, series)
        recall, false = seen.own
        cells = [figure(seen.at(rate), ".2f") for rate in FALSE_ALARMS]
        rows.append([name, figure(recall, ".2f"), figure(false, ".2f"), *cells])
    header = ["detector", "windows hit, its own threshold", "false alarms in 1,000"]
    tables.append(([*header, *(f"hit at {rate:g} in 1,000" for rate in FALSE_ALARMS)], rows))
    mine = found["**forecastd**"]
    recall, false = mine.own
    checks.append(Check("NAB's windows hit, as flagged", recall, 0.55, least=True))
    checks.append(Check("false alarms in 1,000 meanwhile", false, 1.1, form=".2f"))
    others = max((seen.at(1.1) for name, seen in found.items() if seen is not mine), default=0.0)
    checks.append(Check("windows hit at 1.1 in 1,000, less the best other", mine.at(1.1) - others, 0.0, least=True))
    windows = len(mine.peaks)
    return (
        f" The {windows} labelled windows of NAB are hit where a sample in them is an alarm; an alarm outside of them "
        f"is a false one. One window more is {1 / windows:.3f}."
        + (" `skaters` is not installed here." if absent else "")
    )
