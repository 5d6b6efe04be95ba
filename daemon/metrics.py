"""What `/metrics` shows, built at scrape time from the latest scoreboard, which the engine owns.

prometheus_client makes the page. It takes 3 µs a line, though, and a daemon of many series has half a million lines,
so `Exposition` lets it write one line of each kind, keeps what stands around the series' name and the value, and
fills those in itself: the same bytes, sooner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from .. import __version__
from .batch import REASONS
from .scoreboard import Scoreboard
from .view import visible

PREFIX = "forecastd_"
#: What counters of failed handshakes begin with on the scoreboard.
HANDSHAKES = "handshakes_"
#: A number as the exposition format wants it.
as_text: Callable[[float], str] = floatToGoString
Labels = tuple[str, ...]


class Family(NamedTuple):
    """A metric of a series: `column` of the scoreboard, whose axes after the first are the labels `axes`."""

    name: str
    column: str
    axes: Labels
    help: str
    counter: bool = False

    def metric(self) -> CounterMetricFamily | GaugeMetricFamily:
        kind = CounterMetricFamily if self.counter else GaugeMetricFamily
        return kind(PREFIX + self.name, self.help, labels=["series", *self.axes])

    @property
    def exposed(self) -> str:
        """The name as Prometheus sees it."""
        return PREFIX + self.name + ("_total" if self.counter else "")


BY_LEVEL = ("step", "level")
BY_SOURCE = ("step", "source")
LATE = "of late, each scored when its target arrived"

#: Per series, in the order of the page. The labels are columns' axes: `step` counts steps ahead from 1.
FAMILIES = (
    Family("value", "value", (), "The last value received, in the unit of the series."),
    Family("sample_timestamp_seconds", "seen", (), "When the last sample was received, in seconds since the epoch."),
    Family("step_seconds", "step", (), "The time between two samples, estimated from the stream."),
    Family("season_samples", "season", (), "The length of the season in samples, absent when none is known."),
    Family("series_ready", "ready", (), "One when the series is forecast, zero while it is warming up."),
    Family("series_samples", "samples", (), "Samples of the series taken in since the start.", counter=True),
    Family("series_gaps", "gaps", (), "Steps that the series missed since the start.", counter=True),
    Family("series_model_version", "model", (), "The version of the model that forecasts the series."),
    Family("forecast", "forecast", ("step",), "The forecast so many steps ahead, in the unit of the series."),
    Family("forecast_lower", "lower", BY_LEVEL, "The lower end of the interval around the forecast."),
    Family("forecast_upper", "upper", BY_LEVEL, "The upper end of the interval around the forecast."),
    Family("error_mae", "mae", BY_SOURCE, f"The mean absolute error {LATE}."),
    Family("error_rmse", "rmse", BY_SOURCE, f"The root of the mean squared error {LATE}."),
    Family("error_bias", "bias", BY_SOURCE, f"The mean of forecast minus value {LATE}."),
    Family(
        "skill_ratio", "skill", BY_SOURCE, "One minus RMSE / RMSE of repeating the last value; above zero is better."
    ),
    Family("interval_coverage_ratio", "coverage", BY_LEVEL, "The share of late values inside the interval."),
    Family("interval_width", "width", BY_LEVEL, "The mean width of the interval of late, in the unit of the series."),
    Family(
        "interval_score", "winkler", BY_LEVEL, "The mean Winkler score of late: the width, and a penalty for each miss."
    ),
    Family(
        "expert_weight", "weight", ("source",), "The weight of the expert in the blend one step ahead, zero to one."
    ),
    Family("anomaly_score", "score", (), "How usual the last sample was: the share of samples at least as far off."),
    Family("anomalies", "anomalies", (), "Samples of the series flagged as anomalies since the start.", counter=True),
)


class Total(NamedTuple):
    """A metric of the whole daemon: `counter` of the scoreboard. What the scoreboard does not count is left out."""

    name: str
    counter: str
    help: str
    gauge: bool = False


#: In the order of the page.
TOTALS = (
    Total("samples", "samples", "Samples taken in since the start."),
    Total("sequence_gaps", "gaps", "Samples missing between the sequence numbers of producers that number theirs."),
    Total("forecasts", "forecasts", "Forecasts made since the start."),
    Total("failures", "failures", "Batches that the engine failed to work on since the start; its log says why."),
    Total("model_promotions", "model_promotions", "Models that took the champion's place since the start."),
    Total(
        "model_rollbacks", "model_rollbacks", "Champions since the start that turned out worse and were rolled back."
    ),
    Total("copies", "copies", "Series that have a copy of the model of their own.", gauge=True),
    Total(
        "lessons_dropped",
        "lessons_dropped",
        "Samples since the start that the trainer was not taught because it was too slow.",
    ),
    Total("trainer_cpu_seconds", "trainer_cpu_seconds", "Processor time used to learn since the engine's start."),
    Total("series", "series", "Series known to the daemon, shown here or not.", gauge=True),
    Total("connections", "connections", "Connections of producers and subscribers.", gauge=True),
    Total("connections_refused", "crowded", "Connections ended at once, because there were as many as there may be."),
    Total("takeovers", "takeovers", "How often a key took over the socket identity of another key's owner."),
    Total("doorkeeper_away", "doorkeeper_away", "One while nobody new is let in, zero otherwise.", gauge=True),
    Total("doorkeeper_restarts", "doorkeeper_restarts", "How often what checks keys had to be started again."),
    Total("journal_commits", "journal_commits", "Commits of the journal since the start."),
    Total("journal_samples", "journal_samples", "Samples written to the journal since the start."),
    Total("journal_commit_seconds", "journal_commit_seconds", "Time spent on commits of the journal since the start."),
    Total("journal_snapshots", "journal_snapshots", "Snapshots written since the start."),
    Total("journal_snapshot_seconds", "journal_snapshot_seconds", "Time spent on snapshots since the start."),
    Total(
        "journal_skipped", "journal_skipped", "Samples since the start that snapshots hold but the journal does not."
    ),
    Total("journal_damaged", "journal_damaged", "Commits and snapshots found damaged at the start."),
    Total("journal_bytes", "journal_bytes", "Bytes of the journal in use.", gauge=True),
    Total("journal_waiting", "journal_waiting", "Batches that wait to be written to the journal.", gauge=True),
    Total("journal_full", "journal_full", "One while the disk of the journal has no room, zero otherwise.", gauge=True),
    Total(
        "journal_held", "journal_held", "One while acknowledgements wait for a snapshot, zero otherwise.", gauge=True
    ),
)


@dataclass(frozen=True)
class Surroundings:
    """What the web process knows besides the scoreboard. `processes`: name → {"up": 0 or 1, "restarts": n}; `reload`:
    {"successful": 0 or 1, "time": seconds since the epoch of the last one that was}."""

    processes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    board_age_s: float | None = None
    stream_clients: int = 0
    stream_dropped: int = 0
    connections: int = 0
    connections_closed: Mapping[str, int] = field(default_factory=dict)
    reload: Mapping[str, float] = field(default_factory=dict)
    requests_refused: Mapping[str, int] = field(default_factory=dict)


class Once(Collector):
    """A collector of ready-made metrics, as `generate_latest` wants one."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self.metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def axis_labels(board: Scoreboard, family: Family) -> list[Labels]:
    """The labels of each cell of a series in row-major order, `("1", "0.9")` for instance; one empty tuple where
    there is no axis."""
    steps = [str(step + 1) for step in range(board.horizon)]
    sources = board.experts if family.column == "weight" else board.sources
    known = {"step": steps, "level": [f"{level:g}" for level in board.levels], "source": sources}
    return list(product(*(known[axis] for axis in family.axes)))


def of_daemon(board: Scoreboard, hidden: int, silent: int) -> Iterator[Metric]:
    """The metrics of the daemon as a whole."""
    for total in TOTALS:
        if total.counter in board.counters:
            kind = GaugeMetricFamily if total.gauge else CounterMetricFamily
            yield kind(PREFIX + total.name, total.help, value=board.counters[total.counter])
    yield GaugeMetricFamily(PREFIX + "series_hidden", "Series not shown here because of their number.", value=hidden)
    yield GaugeMetricFamily(PREFIX + "series_silent", "Series not shown here because they fell silent.", value=silent)
    refused = CounterMetricFamily(
        PREFIX + "samples_refused", "Samples refused since the start, by reason.", labels=["reason"]
    )
    for reason in [*REASONS, *(other for other in board.refused if other not in REASONS)]:
        refused.add_metric([reason], board.refused.get(reason, 0))
    yield refused
    yield from _handshakes(board)
    text = "The time from receiving a sample to publishing its forecast."
    yield _durations("forecast_duration_seconds", text, board, board.duration_counts, board.duration_sum)
    yield from _finetunes(board)
    versions = GaugeMetricFamily(
        PREFIX + "model_version",
        "The version of a shared model in service, by its name, or by the match of its group.",
        labels=["model"],
    )
    for model in board.models:
        if "version" in model and model.get("status", "champion") == "champion":
            versions.add_metric([str(model.get("match", model.get("name", "")))], float(model["version"]))
    yield versions


def _handshakes(board: Scoreboard) -> Iterator[Metric]:
    reasons = {name.removeprefix(HANDSHAKES): n for name, n in board.counters.items() if name.startswith(HANDSHAKES)}
    if reasons:
        failed = CounterMetricFamily(
            PREFIX + "handshakes_failed",
            "Connections that were not let in since the start, by reason.",
            labels=["reason"],
        )
        for reason, count in reasons.items():
            failed.add_metric([reason], count)
        yield failed


def _finetunes(board: Scoreboard) -> Iterator[Metric]:
    """Of a daemon that learns."""
    if board.finetune_counts:
        text = "Fine-tunes of a series' copy since the start, by what came of them."
        finetunes = CounterMetricFamily(PREFIX + "finetunes", text, labels=["outcome"])
        for outcome, count in sorted(board.finetunes.items()):
            finetunes.add_metric([outcome], count)
        yield finetunes
        text = "The time that the trainer worked on some fine-tunes together."
        yield _durations("finetune_duration_seconds", text, board, board.finetune_counts, board.finetune_sum)


def _durations(name: str, text: str, board: Scoreboard, counts: Sequence[int], total_s: float) -> Metric:
    bounds = [*(as_text(bound) for bound in board.duration_bounds), "+Inf"]
    cumulated = np.cumsum(counts).tolist() or [0]
    metric = HistogramMetricFamily(PREFIX + name, text)
    metric.add_metric([], list(zip(bounds, cumulated, strict=True)), total_s)
    return metric


def of_processes(around: Surroundings) -> Iterator[Metric]:
    """The metrics that stand whether or not the engine does."""
    yield InfoMetricFamily(PREFIX + "build", "The version of forecastd.", value={"version": __version__})
    up = GaugeMetricFamily(
        PREFIX + "process_up", "One when the process is alive and beating, zero otherwise.", labels=["process"]
    )
    restarts = CounterMetricFamily(
        PREFIX + "restarts", "How often the supervisor had to start the process again.", labels=["process"]
    )
    for process, state in sorted(around.processes.items()):
        up.add_metric([process], state.get("up", 0))
        restarts.add_metric([process], state.get("restarts", 0))
    yield up
    yield restarts
    if around.reload:
        yield GaugeMetricFamily(
            PREFIX + "config_last_reload_successful",
            "One when the last attempt to read the configuration succeeded, zero otherwise.",
            value=around.reload["successful"],
        )
        yield GaugeMetricFamily(
            PREFIX + "config_last_reload_success_timestamp_seconds",
            "When the configuration was last read with success, in seconds since the epoch.",
            value=around.reload["time"],
        )
    age = GaugeMetricFamily(
        PREFIX + "scoreboard_age_seconds", "The age of the engine's report that this page was made from.", labels=[]
    )
    if around.board_age_s is not None:
        age.add_metric([], around.board_age_s)
    yield age
    yield GaugeMetricFamily(PREFIX + "stream_clients", "Clients of the event stream.", value=around.stream_clients)
    yield CounterMetricFamily(
        PREFIX + "stream_dropped",
        "Events dropped for clients of the stream that read too slowly.",
        value=around.stream_dropped,
    )
    yield GaugeMetricFamily(PREFIX + "http_connections", "Open HTTP connections.", value=around.connections)
    closed = CounterMetricFamily(
        PREFIX + "http_connections_closed",
        "HTTP connections closed by the daemon to protect itself, by reason.",
        labels=["reason"],
    )
    for reason, count in around.connections_closed.items():
        closed.add_metric([reason], count)
    yield closed
    refused = CounterMetricFamily(
        PREFIX + "http_requests_refused",
        "HTTP requests that came by a wrong name, or without the token.",
        labels=["reason"],
    )
    for reason, count in around.requests_refused.items():
        refused.add_metric([reason], count)
    yield refused


class SeriesCollector(Collector):
    """The metrics of the series of one scoreboard, as prometheus_client builds them: what `Exposition` must equal,
    and is tested against."""

    def __init__(self, board: Scoreboard, rows: NDArray[np.intp]) -> None:
        self.board, self.rows = board, rows

    def collect(self) -> Iterator[Metric]:
        names = [self.board.series[row] for row in self.rows]
        for family in FAMILIES:
            metric = family.metric()
            cells = _cells(self.board, family, self.rows)
            for labels, values in zip(axis_labels(self.board, family), cells, strict=True):
                for name, value in zip(names, values, strict=True):
                    if value == value:
                        metric.add_metric([name, *labels], value)
            yield metric


def _cells(board: Scoreboard, family: Family, rows: NDArray[np.intp]) -> list[list[float]]:
    """The values, by cell and then by row."""
    column = board.columns[family.column][rows]
    if column.ndim > 1 + len(family.axes):
        column = column[:, 0]  # kept for each step ahead, shown for the first
    cells: list[list[float]] = column.reshape(len(rows), math.prod(column.shape[1:])).T.tolist()
    return cells


class Exposition:
    """Pages of `/metrics`, with what does not change from one to the next kept: the text around name and value, and
    the names escaped."""

    def __init__(self, cap: int, silent_s: float) -> None:
        self.cap, self.silent_s = cap, silent_s
        self._frames: dict[tuple[Family, Labels], tuple[str, str]] = {}
        self._heads: dict[Family, bytes] = {}
        self._names: list[str] = []
        self._escaped: list[str] = []

    def render(self, board: Scoreboard) -> list[bytes]:
        """The part of the page that comes from the scoreboard, in pieces (one a label set) for a writer that waits
        for slow readers."""
        rows, silent = visible(board, self.cap, self.silent_s)
        hidden = int(board.counters.get("series_hidden", 0)) + len(board.series) - silent - len(rows)
        pieces = [generate_latest(Once(of_daemon(board, hidden, silent)))]
        names = self._escape([board.series[row] for row in rows])
        for family in FAMILIES:
            pieces.append(self._head(family))
            for labels, values in zip(axis_labels(board, family), _cells(board, family, rows), strict=True):
                before, after = self._frame(family, labels)
                known = ((name, value) for name, value in zip(names, values, strict=True) if value == value)
                pieces.append("".join([f"{before}{name}{after}{as_text(value)}\n" for name, value in known]).encode())
        return [piece for piece in pieces if piece]

    def _head(self, family: Family) -> bytes:
        if family not in self._heads:
            self._heads[family] = generate_latest(Once([family.metric()]))
        return self._heads[family]

    def _frame(self, family: Family, labels: Labels) -> tuple[str, str]:
        """What stands before the name and between name and value."""
        if (family, labels) not in self._frames:
            if len(self._frames) > 10_000:  # labels of configurations long gone
                self._frames.clear()
            metric = family.metric()
            metric.add_metric(["\0", *labels], 0)
            before, after = _last_line(metric).split("\0")
            self._frames[family, labels] = before, after.removesuffix("0.0")
        return self._frames[family, labels]

    def _escape(self, names: Sequence[str]) -> list[str]:
        if names != self._names:
            metric = FAMILIES[0].metric()
            for name in names:
                metric.add_metric([name], 0)
            before, after = self._frame(FAMILIES[0], ())
            lines = generate_latest(Once([metric])).decode().split("\n")[2:-1]
            self._escaped = [line[len(before) : -len(after + "0.0")] for line in lines]
            self._names = list(names)
        return self._escaped


def _last_line(metric: Metric) -> str:
    return generate_latest(Once([metric])).decode().split("\n")[-2]
