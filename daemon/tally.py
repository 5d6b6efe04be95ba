"""What a subscriber can say of one series from its forecasts alone: each is scored when the next sample comes.

`forecastd watch` shows this. It knows nothing of the daemon's own scores, so it is a second opinion on them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import msgspec

#: Errors are averaged with forgetting, half of the weight being on this many of the last ones.
HALF_LIFE = 100.0
KEEP = 0.5 ** (1.0 / HALF_LIFE)
#: Values kept for the sparkline.
VALUES = 60
BLOCKS = "▁▂▃▄▅▆▇█"


class Anomaly(msgspec.Struct):
    """What the daemon thinks of the sample: the share of samples at least as far off, and whether that is too small."""

    score: float | None = None
    flag: bool = False


class Forecast(msgspec.Struct):
    """A published forecast, as far as a table needs it: of `mean`, `lower` and `upper` the first is for the next
    step."""

    series: str
    time: float
    value: float
    status: str = ""
    seq: int = 0
    step: float | None = None
    level: float | None = None
    mean: list[float | None] = []
    lower: list[float | None] = []
    upper: list[float | None] = []
    anomaly: Anomaly = msgspec.field(default_factory=Anomaly)


class Tally:
    """One series: its last forecast, the errors of those before, and what was lost on the way.

    Errors are `mean[0] - value` of the forecast before, and of repeating the value before; NaN until there is one.
    """

    def __init__(self) -> None:
        self.last: Forecast | None = None
        self.values: deque[float] = deque(maxlen=VALUES)
        self.count = 0
        self.lost = 0
        self.anomalies = 0
        self._weight = 0.0
        self._sums = [0.0, 0.0, 0.0, 0.0]  # absolute and squared, of the forecast and of naive

    def add(self, forecast: Forecast) -> None:
        """Take the next forecast of the series."""
        before = self.last
        missed = forecast.seq - before.seq - 1 if before is not None else 0
        expected = first(before.mean) if before is not None else math.nan
        if before is not None and missed == 0 and math.isfinite(expected):
            self._score(expected - forecast.value, before.value - forecast.value)
        if missed > 0:
            self.lost += missed  # else the daemon began anew
        self.last = forecast
        self.count += 1
        self.values.append(forecast.value)
        self.anomalies += forecast.anomaly.flag

    def _score(self, error: float, naive: float) -> None:
        self._weight = KEEP * self._weight + 1.0
        terms = (abs(error), abs(naive), error * error, naive * naive)
        self._sums = [KEEP * kept + term for kept, term in zip(self._sums, terms, strict=True)]

    @property
    def mae(self) -> float:
        """Mean absolute error of the forecast."""
        return self._sums[0] / self._weight if self._weight else math.nan

    @property
    def mae_naive(self) -> float:
        """Mean absolute error of repeating the last value."""
        return self._sums[1] / self._weight if self._weight else math.nan

    @property
    def skill(self) -> float:
        """1 − RMSE / RMSE of repeating the last value; NaN while that one has made no error."""
        return 1.0 - math.sqrt(self._sums[2] / self._sums[3]) if self._sums[3] else math.nan

    def cells(self) -> dict[str, str]:
        """The figures as text, empty where there is none yet."""
        last = self.last
        if last is None:
            return {}
        lower, upper = number(first(last.lower)), number(first(last.upper))
        return {
            "value": number(last.value),
            "forecast": number(first(last.mean)) if last.mean else "warming up",
            "interval": f"{lower} … {upper}" if lower and upper else "",
            "MAE": number(self.mae),
            "naive": number(self.mae_naive),
            "skill": f"{self.skill:+.2f}" if math.isfinite(self.skill) else "",
            "anomaly": "now" if last.anomaly.flag else "",
        }


def first(values: Sequence[float | None]) -> float:
    """The first value; NaN when there is none or it is unknown."""
    value = values[0] if values else None
    return math.nan if value is None else value


def number(x: float) -> str:
    """A figure with four digits, for people; empty for NaN."""
    return f"{x:.4g}" if math.isfinite(x) else ""


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """The last `width` values as a row of blocks, the lowest of them at the bottom and the highest at the top."""
    shown = [value for value in list(values)[-width:] if math.isfinite(value)]
    if not shown:
        return ""
    low, high = min(shown) / 2, max(shown) / 2  # halves, whose difference is always finite
    scale = (len(blocks) - 1) / (high - low) if high > low else 0.0
    return "".join(blocks[round((value / 2 - low) * scale)] for value in shown)


_decode = msgspec.json.Decoder(Forecast).decode


def decode(message: bytes) -> Forecast | None:
    """A forecast out of its JSON; None when it is something else."""
    try:
        return _decode(message)
    except (msgspec.DecodeError, RecursionError):
        return None
