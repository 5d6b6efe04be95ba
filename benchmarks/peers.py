"""Other forecasters on the same series in the same run: accuracy, and what a sample costs them.

All are optional (`pip install forecastd[bench]`); one that is not installed is left out with a word. Each forecasts
one step ahead, first the forecast, then the sample. Those that fit in bulk are fitted once on the first 30 % and then
carried along."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np

from forecastd.daemon.grade import aligned, geometric_mean
from forecastd.producers.playback import Recording

from .corpus import SCORE_FROM, Size, play, real, real_recordings, recording, settings, waves
from .section import Section, figure

Floats = np.ndarray
#: Samples over which a model that was fitted once is carried along for each forecast.
CARRIED = 500
#: The newest samples of the first 30 % that it is fitted on: AutoARIMA takes minutes for some thousands.
FITTED = 1000
#: A peer takes the values of a series and the number of the first that is scored, and gives a forecast of each, shape
#: (n,).
Peer = Callable[[Floats, int], Floats]


def skaters(values: Floats, start: int) -> Floats:
    """microprediction/skaters, `laplace(k=1)`: an online ensemble."""
    step = importlib.import_module("skaters").laplace(k=1)
    made, state = np.full(len(values), np.nan), None
    for i, y in enumerate(values[:-1].tolist()):
        distributions, state = step(y, state)
        made[i + 1] = distributions[0].mean
    return made


def _river(make: Callable[[Any], Any]) -> Peer:
    def forecast(values: Floats, start: int) -> Floats:
        model = make(importlib.import_module("river.time_series"))
        made = np.full(len(values), np.nan)
        for i, y in enumerate(values[:-1].tolist()):
            model.learn_one(y)
            try:
                made[i + 1] = model.forecast(horizon=1)[0]
            except (IndexError, ValueError, OverflowError, ZeroDivisionError):
                continue  # it is warming up, or has diverged beyond floats
        return made

    return forecast


def _statsforecast(kind: str) -> Peer:
    def forecast(values: Floats, start: int) -> Floats:
        model = getattr(importlib.import_module("statsforecast.models"), kind)(season_length=1)
        model.fit(values[max(start - FITTED, 0) : start])
        made = np.full(len(values), np.nan)
        for i in range(start, len(values)):
            # its own pass over a whole series estimates the first state from all of it, the future included
            made[i] = model.forward(values[max(i - CARRIED, 0) : i], h=1)["mean"][0]
        return made

    return forecast


PEERS: dict[str, tuple[str, Peer]] = {
    "skaters `laplace`": ("skaters", skaters),
    "river `HoltWinters` (0.3, 0.1)": ("river", _river(lambda module: module.HoltWinters(alpha=0.3, beta=0.1))),
    "river `SNARIMAX` (10, 1, 3)": ("river", _river(lambda module: module.SNARIMAX(p=10, d=1, q=3))),
    "statsforecast `AutoETS`": ("statsforecast", _statsforecast("AutoETS")),
    "statsforecast `AutoARIMA`": ("statsforecast", _statsforecast("AutoARIMA")),
    "statsforecast `Holt`": ("statsforecast", _statsforecast("Holt")),
}


class Score:
    """Skills and relative MAEs of one forecaster over many series, and the time it took."""

    def __init__(self) -> None:
        self.skills: list[float] = []
        self.relmaes: list[float] = []
        self.seconds = 0.0
        self.samples = 0

    def add(self, values: Floats, made: Floats, start: int) -> None:
        """One series; what the forecaster did not say, or said beyond all bounds, is the last value."""
        naive = values[start - 1 : -1]
        said = np.where(np.isfinite(made[start:]), made[start:], naive)
        error, still = said - values[start:], naive - values[start:]
        with np.errstate(over="ignore"):
            self.skills.append(1.0 - float(np.sqrt(np.square(error).mean() / np.square(still).mean())))
        self.relmaes.append(float(np.abs(error).mean() / np.abs(still).mean()))

    def row(self, name: str) -> list[str]:
        """The cells of the table."""
        low = min(self.skills)
        worst = figure(low) if low > -100 else "diverges"
        above = f"{np.mean(np.array(self.skills) > 0):.0%}"
        relmae = geometric_mean(self.relmaes)
        cost = 1e6 * self.seconds / max(self.samples, 1)
        cells = [figure(float(np.median(self.skills))), worst, above, figure(relmae) if relmae < 100 else "diverges"]
        return [name, *cells, f"{cost:,.1f}" if cost < 100 else f"{cost:,.0f}"]


def table(size: Size) -> Section:
    """Ours and theirs, on the real series and the waves."""
    groups = {"waves": [r.value for r in _shortened(size)]}
    if real(size):
        groups["real"] = [trace.value for trace in real(size)]
    absent = sorted({package for package, _ in PEERS.values() if importlib.util.find_spec(package) is None})
    tables = []
    for group, series in groups.items():
        rows = ours(group, size)
        for name, (package, peer) in PEERS.items():
            if package not in absent:
                importlib.import_module(package)  # so that its import is not on its bill
                rows.append(_scored(peer, series).row(name))
                print(f"peers, {group}: {name}", file=sys.stderr)
        tables.append(([group, "median skill", "worst", "above zero", "relMAE", "µs a sample"], rows))
    missing = f" Not installed here, so not in it: {', '.join(absent)}." if absent else ""
    return Section(
        "Peers",
        "One step ahead over the last 70 %, the same samples for all, one after the other. Those of statsforecast are "
        f"fitted once, on the newest {FITTED:,} samples of the first 30 %, and carried over the last {CARRIED} samples "
        "for each forecast; none is told "
        f"the season. What a peer does not say, or says beyond all bounds, counts as the last value.{missing}",
        tables,
    )


def ours(group: str, size: Size) -> list[list[str]]:
    """The blend on the same series: side by side, as the daemon runs them, and what the first of them costs alone."""
    recordings = real_recordings(size) if group == "real" else _shortened(size)
    score = Score()
    start = perf_counter()
    traces = play(recordings, settings())
    score.seconds, score.samples = perf_counter() - start, sum(map(len, recordings))
    for trace in traces:
        a = aligned(trace)
        made = np.full(len(trace), np.nan)
        made[a.target] = a.mean
        score.add(trace.value, made, int(SCORE_FROM * len(trace)))
    start = perf_counter()
    play(recordings[:1], settings())
    alone = 1e6 * (perf_counter() - start) / len(recordings[0])
    row = score.row(f"**forecastd, blend**, {len(recordings)} series side by side")
    return [row, ["… one series alone", "", "", "", "", f"{alone:,.0f}"]]


def _shortened(size: Size) -> list[Recording]:
    """One of each wave, as long as the slow ones can bear."""
    return [recording(t[0].name, t[0].value[:3_000], t[0].time[:3_000]) for t in waves(size).values()]


def _scored(peer: Peer, series: list[Floats]) -> Score:
    score = Score()
    for values in series:
        first = int(SCORE_FROM * len(values))
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            start = perf_counter()
            made = peer(values, first)
            score.seconds += perf_counter() - start
        score.samples += len(values)
        score.add(values, made, first)
    return score
