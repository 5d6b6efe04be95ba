"""Which seasons are found without being told, how often one is found where there is none, and what it is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from forecastd.daemon.grade import aligned, geometric_mean
from forecastd.daemon.replay import Trace
from forecastd.daemon.settings import Settings
from forecastd.models import channels
from forecastd.models.seasonal import Seasonal
from forecastd.models.table import Column, Table

from .corpus import SCORE_FROM, Size, play, real, real_recordings, settings, waves
from .section import Check, Section, figure

Floats = NDArray[np.float64]

#: The daily, weekly and yearly among the real series, in samples.
KNOWN = {
    "art_daily_small_noise": (288,),
    "art_daily_flatmiddle": (288,),
    "art_daily_jumpsup": (288,),
    "nyc_taxi": (48, 336),
    "exchange-2_cpc_results": (24, 168),
    "exchange-3_cpm_results": (23, 24),
    "exchange-4_cpc_results": (24, 168),
    "ambient_temperature_system_failure": (24, 168),
    "co2": (52,),
}
#: Waves that never repeat themselves.
WITHOUT = ("random-walk", "chirp")
PERSISTENCE = (0.0, 0.5, 0.9, 0.97, -0.6, 1.0)


def table(size: Size) -> Section:
    """What is found in the waves, in random series and in the real ones, and the blend with and without."""
    simulated = {kind: [trace.season for trace in traces] for kind, traces in waves(size).items()}
    rows = [[f"`{kind}`", *_found(seasons)] for kind, seasons in simulated.items()]
    tables = [(["wave", "with a season", "in samples"], rows)]
    false = sum(season > 0 for kind in WITHOUT for season in simulated[kind])
    checks = [Check(f"seasons found in {' and '.join(WITHOUT)}", false, 0, form=".0f")]
    rows = []
    length, many = (4_000, 100) if not size.quick else (1_200, 20)
    for persistence in PERSISTENCE:
        for tails in ("gaussian", "t3"):
            ever = random_series(len(rows), persistence, tails, many, length)
            rows.append([f"{persistence:g}", tails, str(many), str(ever)])
    share = 100.0 * sum(int(row[3]) for row in rows) / (many * len(rows))
    checks.append(Check("AR(1) series and random walks ever said to have a season, %", share, 1.0, form=".2f"))
    tables.append((["AR(1), coefficient", "noise", "series", "ever with a season"], rows))
    if real(size):
        traces = {trace.name: trace for trace in real(size)}
        tables.append((["real series", "season, samples"], [[n, f"{t.season or '–'}"] for n, t in traces.items()]))
        missed = [name for name, known in KNOWN.items() if name in traces and not _near(traces[name].season, known)]
        checks.append(Check("daily, weekly and yearly series whose season was missed", len(missed), 0, form=".0f"))
        tables.append(_worth(size, list(traces.values())))
    words = (
        "The season held at the end of each series; none is told. An AR(1) with the coefficient 1 is a random walk; "
        f"each is of {length:,} samples, and ever means at any time."
    )
    return Section("Seasons", words, tables, checks)


def _found(seasons: list[int]) -> list[str]:
    with_one = sorted({season for season in seasons if season})
    return [f"{sum(season > 0 for season in seasons)} of {len(seasons)}", ", ".join(map(str, with_one)) or "–"]


def _near(season: int, known: tuple[int, ...]) -> bool:
    return any(abs(season - one) <= max(1.0, 0.03 * one) for one in known)


def random_series(seed: int, persistence: float, tails: str, many: int, length: int) -> int:
    """How many of that many AR(1) series are said to have a season at any time, as the daemon looks at them."""
    random = np.random.default_rng(seed)
    expert = Seasonal()
    table = Table({"row": Column(dtype=np.intp), **channels.COLUMNS, **expert.columns})
    state = table.take(table.append(many))
    state["row"][...] = np.arange(many)
    x, ever = np.zeros(many), np.zeros(many, np.bool_)
    for _ in range(length):
        x = persistence * x + (random.standard_t(3, many) if tails == "t3" else random.normal(size=many))
        expert.update(state, channels.update(state, x))
        ever |= state["season"] > 0.0
    return int(ever.sum())


def _worth(size: Size, with_it: list[Trace]) -> tuple[list[str], list[list[str]]]:
    others = tuple(name for name in Settings().experts if name != "seasonal")
    without = play(real_recordings(size), settings(experts=others))
    rows = []
    for name, traces in (("with it", with_it), ("without", without)):
        skills, relmaes = zip(*(_errors(trace) for trace in traces), strict=True)
        rows.append([name, figure(float(np.median(skills))), figure(min(skills)), figure(geometric_mean(relmaes))])
    return ["the expert `seasonal`", "blend, median skill", "worst", "relMAE"], rows


def _errors(trace: Trace) -> tuple[float, float]:
    a = aligned(trace, int(SCORE_FROM * len(trace)))
    error, still = a.mean - a.value, trace.value[a.target - 1] - a.value
    skill = 1.0 - float(np.sqrt(np.mean(error**2) / np.mean(still**2)))
    return skill, float(np.abs(error).mean() / np.abs(still).mean())
