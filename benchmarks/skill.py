"""How near the forecasts come: the tutorial's wave against its floors, each wave and each real series against naive
and the best expert."""

from __future__ import annotations

import numpy as np

from forecastd.daemon.grade import Aligned, Grade, aligned, geometric_mean, grade, summary
from forecastd.daemon.replay import Trace
from forecastd.producers.waves import WAVES

from .corpus import SCORE_FROM, Size, play, real, recording, settings, waves
from .section import Check, Section, figure

#: RMSE on the tutorial's wave of those who know the law but not the noise, from so many samples (Bayes-optimal), and
#: of the best linear ones.
FLOORS = {
    "all but the noise": 0.0866,
    "the last 10 samples": 0.0898,
    "the last 32 samples": 0.0869,
    "the last 32, linear": 0.0892,
}
WARM = 2_000


def tutorial(size: Size) -> Section:
    """y = sin(x) + 1 + U(±0.15), 62.4 samples a period: RMSE after 2,000 samples."""
    recordings = [
        recording(f"sine.{seed}", WAVES["sine"](seed=seed).take(size.tutorial)[1]) for seed in range(size.seeds)
    ]
    warm = min(WARM, size.tutorial // 2)
    columns: dict[str, dict[str, list[float]]] = {}
    for model in ("general", "sine"):
        for trace in play(recordings, settings(model=model)):
            for source, error in _errors(aligned(trace, warm), trace.experts).items():
                columns.setdefault(source, {}).setdefault(model, []).append(_rmse(error))
    rows = [
        [f"`{source}`", *(f"{figure(float(np.median(found[model])), '.4f')}" for model in ("general", "sine"))]
        for source, found in columns.items()
    ]
    rows += [[f"floor: knows {knows}", figure(floor, ".4f"), ""] for knows, floor in FLOORS.items()]
    blend = float(np.median(columns["blend"]["general"]))
    return Section(
        "The tutorial's wave",
        f"`y = sin(x) + 1 + U(±0.15)`, 62.4 samples a period, {size.tutorial:,} samples, RMSE after the first "
        f"{warm:,}; the median of "
        f"{size.seeds} seeds. The model `general` has never seen it as such, `sine` was trained on it.",
        [(["source", "RMSE, model `general`", "model `sine`"], rows)],
        [Check("tutorial's wave, blend, RMSE", blend, 0.0898, 0.0885, form=".4f")],
    )


def simulated(size: Size) -> Section:
    """The blend against its best expert on each of `produce waves`."""
    rows, behind, lowest = [], [], []
    for kind, traces in waves(size).items():
        skills = _pooled_skills(traces)
        blend = skills.pop("blend")
        best = max(skills, key=lambda name: skills[name])
        behind.append(blend - skills[best])
        lowest.append(blend)
        rows.append([f"`{kind}`", figure(blend), f"{figure(skills[best])} (`{best}`)", figure(blend - skills[best])])
    return Section(
        "Each of the waves",
        f"`forecastd produce waves`, {size.samples:,} samples, errors of {size.seeds} seeds pooled, scored over the "
        f"last 70 %.",
        [(["wave", "blend, skill", "best expert", "difference"], rows)],
        [
            Check("waves: blend's skill minus its best expert's, the least", min(behind), -0.02, -0.005, least=True),
            Check("waves: blend's skill, the least", min(lowest), -0.01, -0.005, least=True),
        ],
    )


def recorded(size: Size) -> Section:
    """The blend on the real series, without fine-tuning."""
    traces = real(size)
    if not traces:
        return Section("Real series", "Not measured: the series are not here.")
    grades = [grade(trace, SCORE_FROM) for trace in traces]
    total = summary(grades)
    names = traces[0].experts
    rows = []
    for g in grades:
        experts = [figure(g.experts[name].skill) for name in names if name != "naive"]
        rows.append([g.series, f"{g.n:,}", f"**{figure(g.skill)}**", figure(g.relmae), *experts, str(g.season or "–")])
    alone = []
    for name in names:
        skills = [g.experts[name].skill for g in grades if g.experts[name].scored >= 0.9 * g.scored]
        ratios = [_relmae(g, name) for g in grades if g.experts[name].scored >= 0.9 * g.scored]
        if skills:
            shares = [
                figure(float(np.median(skills))),
                figure(min(skills)),
                figure(geometric_mean(ratios)),
                str(len(skills)),
            ]
            alone.append([f"`{name}`", *shares])
    alone.insert(
        0, ["blend", figure(total.median_skill), figure(total.worst_skill), figure(total.relmae), str(len(grades))]
    )
    return Section(
        "Real series",
        f"{len(grades)} series, scored over the last 70 %, no fine-tuning. An expert is in the first table where it "
        f"spoke for nine samples in ten.",
        [
            (["source", "median skill", "worst", "relMAE", "series"], alone),
            (
                [
                    "series",
                    "n",
                    "blend, skill",
                    "relMAE",
                    *(f"`{name}`" for name in names if name != "naive"),
                    "season",
                ],
                rows,
            ),
        ],
        [
            Check("real series: median skill", total.median_skill, 0.165, 0.19, least=True),
            Check("real series: worst skill", total.worst_skill, -0.01, 0.0, least=True),
            Check("real series: relMAE", total.relmae, 0.82, 0.78),
        ],
    )


def _pooled_skills(traces: list[Trace]) -> dict[str, float]:
    """Skill of each source over the scored samples of all traces together; experts that mostly sleep are left out."""
    squares: dict[str, list[np.ndarray]] = {}
    for trace in traces:
        for source, error in _errors(aligned(trace, int(SCORE_FROM * len(trace))), trace.experts).items():
            squares.setdefault(source, []).append(error * error)
    pooled = {source: np.concatenate(parts) for source, parts in squares.items()}
    naive = float(pooled["naive"].mean())
    awake = {source: part for source, part in pooled.items() if np.isfinite(part).mean() >= 0.9}
    return {source: 1.0 - float(np.sqrt(np.nanmean(part) / naive)) for source, part in awake.items()}


def _errors(a: Aligned, experts: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {"blend": a.error, **{name: a.forecasts[:, k] - a.value for k, name in enumerate(experts)}}


def _rmse(error: np.ndarray) -> float:
    known = error[~np.isnan(error)]
    return float(np.sqrt(np.square(known).mean())) if len(known) else float("nan")


def _relmae(g: Grade, name: str) -> float:
    return g.experts[name].mae / g.experts["naive"].mae
