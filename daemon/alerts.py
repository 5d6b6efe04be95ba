"""Alerts as events: what the journal keeps and the feed tells of `models.alert`, by name and time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..models.alert import Alert
from .batch import Forecasts


def events(forecasts: Forecasts, alerts: Sequence[Alert]) -> list[dict[str, Any]]:
    """The events of the alerts that began (`anomaly`) or ended (`anomaly_over`) in a round, in the order given.

    `time` and `value` are of the sample they began or ended with, `score` is the least p so far, `samples` how many
    have come since it began, the first one included.
    """
    place = {row: k for k, row in enumerate(forecasts.row.tolist())}
    return [_event(forecasts, place[alert.row], alert) for alert in alerts]


def _event(forecasts: Forecasts, k: int, alert: Alert) -> dict[str, Any]:
    return {
        "event": "anomaly_over" if alert.over else "anomaly",
        "series": forecasts.series[k],
        "time": forecasts.time.item(k),
        "kind": alert.kind,
        "value": forecasts.value.item(k),
        "score": alert.p,
        "samples": alert.samples,
    }
