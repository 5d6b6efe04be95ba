"""The pure core (skeleton; being written)."""

from __future__ import annotations

import numpy as np

from .batch import Batch, Effects, Forecasts
from .scoreboard import Scoreboard
from .settings import Settings


class Pipeline:
    def __init__(self, settings: Settings, model: object = None) -> None:
        self.settings = settings
        self.names: list[str] = []  # by row
        self.rows: dict[str, int] = {}
        self.experts: tuple[str, ...] = ("naive",)
        self.levels = (settings.level, *settings.levels)
        self.refused: dict[str, int] = {}
        self.samples = 0
        self.last: dict[int, tuple[float, float]] = {}

    def step(self, batch: Batch, now: float) -> Effects:
        n, H, L = len(batch), self.settings.horizon, len(self.levels)
        for name in batch.series:
            if name not in self.rows:
                self.rows[name] = len(self.names)
                self.names.append(name)
        row = np.array([self.rows[s] for s in batch.series], np.intp)
        for reason, k in batch.refused.items():
            self.refused[reason] = self.refused.get(reason, 0) + k
        self.samples += n
        time = np.where(np.isnan(batch.time), now, batch.time)
        for r, t, v in zip(row, time, batch.value):
            self.last[int(r)] = (float(t), float(v))
        mean = np.repeat(batch.value[:, None], H, 1)
        f = Forecasts(
            row=row, series=batch.series, time=time, value=batch.value, step=np.ones(n), count=np.ones(n, np.int64),
            ready=np.ones(n, bool), mean=mean, lower=np.repeat(mean[:, :, None] - 1, L, 2), upper=np.repeat(mean[:, :, None] + 1, L, 2),
            experts=mean[:, :, None].copy(), weights=np.ones((n, H, 1)), score=np.ones(n), flag=np.zeros(n, bool), model=np.ones(n, np.int64),
        )
        return Effects([f] if n else [])

    def scoreboard(self, now: float) -> Scoreboard:
        n, H, L, K = len(self.names), self.settings.horizon, len(self.levels), len(self.experts)
        value = np.array([self.last[r][1] for r in range(n)])
        time = np.array([self.last[r][0] for r in range(n)])
        one = np.ones(n)
        c = dict(value=value, time=time, seen=time, step=one, season=one * np.nan, samples=one, gaps=one * 0, ready=one, score=one, flag=one * 0,
                 anomalies=one * 0, model=one, forecast=np.repeat(value[:, None], H, 1), weight=np.ones((n, H, K)))
        for k in ("lower", "upper", "coverage", "width", "winkler"):
            c[k] = np.ones((n, H, L))
        for k in ("mae", "rmse", "bias", "skill"):
            c[k] = np.ones((n, H, K + 1))
        return Scoreboard(time=now, series=list(self.names), horizon=H, levels=list(self.levels), experts=list(self.experts),
                          counters={"samples": self.samples, "forecasts": self.samples, "gaps": 0, "series": n, "series_hidden": 0}, refused=dict(self.refused),
                          duration_bounds=[], duration_counts=[0], duration_sum=0.0, models=[], events=[], columns=c)
