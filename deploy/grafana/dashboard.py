"""The Grafana dashboard, from which `dashboard.json` is written: `.venv/bin/python deploy/grafana/dashboard.py`.

A test holds the two against each other, and runs each expression against a Prometheus that has scraped a daemon.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import common as visual
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import StackingConfig, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, dashboard

FILE = Path(__file__).with_name("dashboard.json")
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")

OF_DAEMON = 'instance=~"$instance"'
OF_SERIES = f'{OF_DAEMON}, series="$series"'
NEXT = f'{OF_SERIES}, step="$step"'
#: Grafana's own: long enough for four scrapes.
RATE = "$__rate_interval"

Queries = dict[str, str]


def targets(queries: Queries, instant: bool = False) -> list[Any]:
    """One query a legend text."""
    made = []
    for letter, (legend, expression) in zip("ABCDEFGH", queries.items(), strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter).datasource(SOURCE)
        made.append(query.instant() if instant else query.range())
    return made


def figure(title: str, description: str, unit: str, queries: Queries, warn: tuple[str, float] | None = None) -> Any:
    """One number with its recent course. `warn`: the colour beyond a threshold."""
    steps = [dashboard.Threshold(color="green", value=None)]
    if warn:
        steps.append(dashboard.Threshold(color=warn[0], value=warn[1]))
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .targets(targets(queries))
        .thresholds(ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(visual.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.AREA)
        .height(4)
        .span(4)
    )


def course(title: str, description: str, unit: str, queries: Queries, span: int = 12) -> Any:
    """Lines over time."""
    return (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .targets(targets(queries))
        .legend(VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM))
        .tooltip(VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
        .show_points(common.VisibilityMode.NEVER)
        .height(8)
        .span(span)
    )


def health() -> list[Any]:
    """Is it well? In one line."""
    return [
        figure(
            "Processes down",
            "Processes of the daemon that are not alive or do not beat.",
            "short",
            {"down": f"sum(1 - forecastd_process_up{{{OF_DAEMON}}})"},
            ("red", 1),
        ),
        figure("Series", "Series known to the daemon.", "short", {"series": f"sum(forecastd_series{{{OF_DAEMON}}})"}),
        figure(
            "Samples a second",
            "Samples taken in.",
            "short",
            {"samples": f"sum(rate(forecastd_samples_total{{{OF_DAEMON}}}[{RATE}]))"},
        ),
        figure(
            "Refused a second",
            "Samples refused, for whatever reason.",
            "short",
            {"refused": f"sum(rate(forecastd_samples_refused_total{{{OF_DAEMON}}}[{RATE}]))"},
            ("orange", 1),
        ),
        figure(
            "Median skill",
            "Of all series, one step ahead: 0 is as good as repeating the last value, 1 is perfect.",
            "percentunit",
            {"skill": f'quantile(0.5, forecastd_skill_ratio{{{OF_DAEMON}, source="blend", step="1"}})'},
        ),
        figure(
            "Slowest hundredth",
            "From receiving a sample to publishing its forecast, 99th percentile.",
            "s",
            {"p99": quantile(0.99)},
            ("orange", 0.1),
        ),
    ]


def quantile(share: float) -> str:
    """The time that `share` of the forecasts took at most."""
    buckets = f"rate(forecastd_forecast_duration_seconds_bucket{{{OF_DAEMON}}}[{RATE}])"
    return f"histogram_quantile({share}, sum by (le) ({buckets}))"


def of_series() -> list[Any]:
    """How well is this series forecast?"""
    band = course(
        "Value and forecast",
        "The last value, the forecast made with it for `step` steps later, and the interval around that.",
        "short",
        {
            "value": f"forecastd_value{{{OF_SERIES}}}",
            "forecast": f"forecastd_forecast{{{NEXT}}}",
            "upper": f'forecastd_forecast_upper{{{NEXT}, level="$level"}}',
            "lower": f'forecastd_forecast_lower{{{NEXT}, level="$level"}}',
        },
        span=24,
    ).override_by_name(
        "upper",
        [
            dashboard.DynamicConfigValue(id_val="custom.fillBelowTo", value="lower"),
            dashboard.DynamicConfigValue(id_val="custom.fillOpacity", value=15),
            dashboard.DynamicConfigValue(id_val="custom.lineWidth", value=0),
        ],
    )
    band.override_by_name("lower", [dashboard.DynamicConfigValue(id_val="custom.lineWidth", value=0)])
    weights = course(
        "Weights",
        "How much each expert counts in the blend, one step ahead.",
        "percentunit",
        {"{{source}}": f"forecastd_expert_weight{{{OF_SERIES}}}"},
    )
    weights.stacking(StackingConfig().mode(common.StackingMode.NORMAL)).fill_opacity(60).min(0).max(1)
    return [
        band,
        course(
            "Skill",
            "Against repeating the last value: above 0 is better.",
            "percentunit",
            {"{{source}}": f"forecastd_skill_ratio{{{NEXT}}}"},
        ),
        course("Mean absolute error", "Of late.", "short", {"{{source}}": f"forecastd_error_mae{{{NEXT}}}"}),
        course("Root mean squared error", "Of late.", "short", {"{{source}}": f"forecastd_error_rmse{{{NEXT}}}"}),
        course(
            "Bias",
            "Mean of forecast minus value: above 0 forecasts are too high.",
            "short",
            {"{{source}}": f"forecastd_error_bias{{{NEXT}}}"},
        ),
        course(
            "Coverage",
            "The share of values inside their intervals; it should stay near its level.",
            "percentunit",
            {"level {{level}}": f"forecastd_interval_coverage_ratio{{{NEXT}}}"},
        ),
        weights,
        course(
            "Anomaly score",
            "How usual the last sample was; small is unusual.",
            "short",
            {"score": f"forecastd_anomaly_score{{{OF_SERIES}}}"},
        ),
        course(
            "Anomalies",
            "Samples flagged in the last ten minutes.",
            "short",
            {"flagged": f"increase(forecastd_anomalies_total{{{OF_SERIES}}}[10m])"},
        ),
    ]


def of_daemon() -> list[Any]:
    """What does the daemon do?"""
    return [
        course(
            "Samples and forecasts",
            "A second.",
            "short",
            {
                "samples": f"sum(rate(forecastd_samples_total{{{OF_DAEMON}}}[{RATE}]))",
                "forecasts": f"sum(rate(forecastd_forecasts_total{{{OF_DAEMON}}}[{RATE}]))",
            },
        ),
        course(
            "Time from sample to forecast",
            "From receiving a sample to publishing its forecast.",
            "s",
            {"half": quantile(0.5), "99 of 100": quantile(0.99)},
        ),
        course(
            "Refused samples",
            "A second, by reason.",
            "short",
            {"{{reason}}": f"sum by (reason) (rate(forecastd_samples_refused_total{{{OF_DAEMON}}}[{RATE}]))"},
        ),
        course(
            "Sequence gaps",
            "Samples missing between the numbers of producers that number theirs, in the last ten minutes.",
            "short",
            {"{{instance}}": f"increase(forecastd_sequence_gaps_total{{{OF_DAEMON}}}[10m])"},
        ),
        course(
            "Restarts",
            "Processes that had to be started again, in the last hour.",
            "short",
            {"{{process}}": f"sum by (process) (increase(forecastd_restarts_total{{{OF_DAEMON}}}[1h]))"},
        ),
        course(
            "Journal",
            "Samples written a second, and batches that wait for the disk.",
            "short",
            {
                "written": f"sum(rate(forecastd_journal_samples_total{{{OF_DAEMON}}}[{RATE}]))",
                "waiting": f"sum(forecastd_journal_waiting{{{OF_DAEMON}}})",
            },
        ),
        course(
            "Size of the journal",
            "On the disk.",
            "bytes",
            {"{{instance}}": f"forecastd_journal_bytes{{{OF_DAEMON}}}"},
        ),
        course(
            "Model in service",
            "The version of the shared model.",
            "short",
            {"{{model}}": f"forecastd_model_version{{{OF_DAEMON}}}"},
        ),
    ]


def choice(name: str, label: str, metric: str, several: bool = False) -> Any:
    """A variable of the dashboard: the values that the label `name` has in `metric`."""
    variable = (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({metric}, {name})")
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.NUMERICAL_ASC)
    )
    if several:
        variable.multi(True).include_all(True).all_value(".*")
        variable.current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    return variable


def build() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    board = (
        Dashboard("forecastd")
        .uid("forecastd")
        .description("Live forecasts, how good they have been, and the health of the daemon that makes them.")
        .tags(["forecastd", "forecasting"])
        .time("now-15m", "now")
        .refresh("5s")
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(choice("instance", "Daemon", "forecastd_series", several=True))
        .with_variable(choice("series", "Series", f"forecastd_value{{{OF_DAEMON}}}"))
        .with_variable(choice("step", "Steps ahead", f"forecastd_forecast{{{OF_SERIES}}}"))
        .with_variable(
            choice("level", "Level", f"forecastd_forecast_upper{{{OF_SERIES}}}").current(
                dashboard.VariableOption(selected=True, text="0.9", value="0.9")
            )
        )
    )
    number = itertools.count(1)
    for title, panels in (("Health", health()), ("$series", of_series()), ("Daemon", of_daemon())):
        board.with_row(Row(title).id(next(number)))
        for panel in panels:
            board.with_panel(panel.id(next(number)))
    made: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(board.build()))
    return made


def text() -> str:
    """The bytes of `dashboard.json`."""
    return json.dumps(build(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
