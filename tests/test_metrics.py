"""The metrics page says what the scoreboard says, in the words of the contract."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from forecastd import __version__
from forecastd.daemon.batch import REASONS
from forecastd.daemon.metrics import (
    FAMILIES,
    TOTALS,
    Exposition,
    Once,
    SeriesCollector,
    Surroundings,
    of_daemon,
    of_processes,
)
from forecastd.daemon.scoreboard import Scoreboard
from forecastd.daemon.view import visible

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = Path(__file__).parent / "golden" / "metrics.txt"
NOW = 1_700_000_000.0

#: What the design promises to whoever builds on these names, with their labels.
PROMISED = {
    "forecastd_value": "series",
    "forecastd_forecast": "series step",
    "forecastd_forecast_lower": "level series step",
    "forecastd_forecast_upper": "level series step",
    "forecastd_error_mae": "series source step",
    "forecastd_error_rmse": "series source step",
    "forecastd_error_bias": "series source step",
    "forecastd_skill_ratio": "series source step",
    "forecastd_interval_coverage_ratio": "level series step",
    "forecastd_interval_width": "level series step",
    "forecastd_interval_score": "level series step",
    "forecastd_expert_weight": "series source",
    "forecastd_season_samples": "series",
    "forecastd_anomaly_score": "series",
    "forecastd_anomalies_total": "series",
    "forecastd_samples_total": "",
    "forecastd_samples_refused_total": "reason",
    "forecastd_sequence_gaps_total": "",
    "forecastd_forecasts_total": "",
    "forecastd_forecast_duration_seconds_bucket": "le",
    "forecastd_series": "",
    "forecastd_series_hidden": "",
    "forecastd_model_version": "model",
    "forecastd_finetunes_total": "outcome",
    "forecastd_finetune_duration_seconds_bucket": "le",
    "forecastd_copies": "",
    "forecastd_model_rollbacks_total": "",
    "forecastd_process_up": "process",
    "forecastd_restarts_total": "process",
    "forecastd_build_info": "version",
}


def board(names: list[str], horizon: int = 2, seed: int = 1) -> Scoreboard:
    """A scoreboard whose every cell has a value of its own, so that one in the wrong place shows."""
    n, experts, levels = len(names), ["naive", "rnn"], [0.9, 0.95]
    rng = np.random.default_rng(seed)
    plain = ["value", "time", "step", "season", "samples", "gaps", "ready", "score", "flag", "anomalies", "model"]
    columns = {name: np.round(rng.uniform(0, 100, n), 3) for name in plain}
    columns["seen"] = np.full(n, NOW - 1)
    columns["forecast"] = np.round(rng.uniform(0, 100, (n, horizon)), 3)
    columns["weight"] = np.round(rng.uniform(0, 1, (n, horizon, 2)), 3)
    for name in ("lower", "upper", "coverage", "width", "winkler"):
        columns[name] = np.round(rng.uniform(0, 100, (n, horizon, 2)), 3)
    for name in ("mae", "rmse", "bias", "skill"):
        columns[name] = np.round(rng.uniform(-1, 100, (n, horizon, 3)), 3)
    return Scoreboard(
        time=NOW,
        series=names,
        horizon=horizon,
        levels=levels,
        experts=experts,
        counters={
            **{total.counter: 100.0 + place for place, total in enumerate(TOTALS)},
            "samples": 1_234_567,
            "forecasts": 1_234_000,
            "gaps": 3,
            "series": n,
            "series_hidden": 0,
            "handshakes_protocol": 7,
            "handshakes_unauthorised": 8,
            "handshakes_incomplete": 9,
        },
        refused={"nonfinite": 2, "late": 1},
        duration_bounds=[1e-5, 0.001, 1.0],
        duration_counts=[4, 3, 2, 1],
        duration_sum=2.5,
        models=[{"name": "general", "version": 3}],
        events=[],
        columns=columns,
        finetunes={"tuned": 5, "rejected": 1},
        finetune_counts=[0, 1, 2, 0],
        finetune_sum=0.75,
    )


def around() -> Surroundings:
    processes = {"web": {"up": 1, "restarts": 0}, "engine": {"up": 0, "restarts": 2}}
    return Surroundings(
        *(processes, 0.25, 1, 2, 3),
        connections_closed={"idle": 4, "stalled": 5, "crowded": 6},
        reload={"successful": 1, "time": NOW},
        requests_refused={"host": 7, "token": 8},
    )


def page(scoreboard: Scoreboard, cap: int = 1_000, silent_s: float = 60.0) -> str:
    body = generate_latest(Once(of_processes(around()))) + b"".join(Exposition(cap, silent_s).render(scoreboard))
    return body.decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The page as Prometheus reads it: name and labels to value."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels(text: str) -> dict[str, str]:
    """The labels of each name on the page, sorted."""
    return {name: " ".join(sorted(key for key, _ in pairs)) for name, pairs in samples(text)}


def value(text: str, name: str, **labelled: str) -> float | None:
    return samples(text).get((name, frozenset(labelled.items())))


def test_the_page_is_the_one_on_file() -> None:
    """The whole page, byte for byte; after a wanted change: `python tests/test_metrics.py` writes it anew."""
    assert page(awkward()) == GOLDEN.read_text().replace("VERSION", __version__)


def awkward() -> Scoreboard:
    """Names with all that has to be escaped, and values that are unknown, endless or whole."""
    found = board(["boiler", 'a "quoted"\\name\nof two lines, °C'])
    found.columns["season"][:] = [np.nan, 24.0]
    found.columns["skill"][0, 0, 1] = -np.inf
    found.columns["lower"][1] = np.nan
    found.columns["value"][:] = [1e-12, 1e12]
    return found


@settings(max_examples=50, deadline=None)
@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5, unique=True),
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=5, max_size=5),
    horizon=st.integers(1, 3),
)
def test_the_quick_page_is_that_of_the_library(names: list[str], values: list[float], horizon: int) -> None:
    """Whatever the names and values, `Exposition` writes the bytes that prometheus_client writes of the same
    scoreboard."""
    scoreboard = board(names, horizon)
    scoreboard.columns["value"][:] = values[: len(names)]
    scoreboard.columns["mae"][:, 0, 1] = values[: len(names)]
    rows, silent = visible(scoreboard, 1_000, 60.0)
    slow = generate_latest(Once(of_daemon(scoreboard, 0, silent))) + generate_latest(SeriesCollector(scoreboard, rows))
    assert b"".join(Exposition(1_000, 60.0).render(scoreboard)) == slow


def test_a_page_made_after_another_has_nothing_of_it() -> None:
    """What is kept from page to page is no value, and no name that is gone."""
    exposition = Exposition(1_000, 60.0)
    exposition.render(board(["gone", "stays"]))
    later = board(["stays", "new"], horizon=3, seed=2)
    assert b"".join(exposition.render(later)) == b"".join(Exposition(1_000, 60.0).render(later))


def test_each_cell_stands_under_its_labels() -> None:
    """Step ahead, level and source are those of the column's axes, steps counted from 1."""
    scoreboard = board(["a", "b"])
    text = page(scoreboard)
    columns = scoreboard.columns
    assert value(text, "forecastd_forecast", series="b", step="2") == columns["forecast"][1, 1]
    assert value(text, "forecastd_forecast_upper", series="a", step="2", level="0.95") == columns["upper"][0, 1, 1]
    assert value(text, "forecastd_error_mae", series="b", step="1", source="blend") == columns["mae"][1, 0, 0]
    assert value(text, "forecastd_error_bias", series="b", step="2", source="rnn") == columns["bias"][1, 1, 2]
    assert value(text, "forecastd_expert_weight", series="a", source="rnn") == columns["weight"][0, 0, 1]


def test_every_promised_name_is_on_the_page_with_its_labels() -> None:
    """The contract of dashboards and alerts."""
    found = labels(page(board(["a"])))
    assert {name: found.get(name) for name in PROMISED} == PROMISED


def test_help_texts_are_sentences_and_names_have_the_prefix() -> None:
    """Each begins with a capital and ends with a full stop."""
    helps = re.findall(r"^# HELP (\S+) (.*)$", page(board(["a"])), re.M)
    assert len(helps) > len(FAMILIES)
    assert [name for name, _ in helps if not name.startswith("forecastd_")] == []
    assert [text for _, text in helps if not re.fullmatch(r"[A-Z].*[^.]\.", text)] == []


def test_promtool_has_no_complaint(tmp_path: Path, debian: Callable[[str], str]) -> None:
    """Prometheus' own linter."""
    result = subprocess.run(
        [debian("promtool"), "check", "metrics"], input=page(awkward()), capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_documentation_has_every_metric_with_its_labels_and_help() -> None:
    """The table of docs/metrics.md is the page: no name too many, none missing, the same labels and words."""
    text = page(board(["a"]))
    known = labels(text)
    expected = []
    for name, sentence in re.findall(r"^# HELP (\S+) (.*)$", text, re.M):
        expected.append((name, known.get(name, "").split(), sentence))  # a histogram has none but its buckets' `le`
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|$", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    documented = [(name, sorted(re.findall(r"\w+", of)), sentence) for name, of, sentence in rows]
    assert sorted(documented) == sorted(expected)


def test_what_is_unknown_is_left_out() -> None:
    """NaN is no value: a series without a season has no line for one."""
    text = page(awkward())
    assert value(text, "forecastd_season_samples", series="boiler") is None
    assert "NaN" not in text


def test_a_silent_series_leaves_the_page_and_is_counted() -> None:
    """After its time to live, not before; the others stay."""
    scoreboard = board(["talks", "quiet"])
    scoreboard.columns["seen"][:] = [NOW - 59.9, NOW - 60.1]
    text = page(scoreboard)
    assert value(text, "forecastd_value", series="talks") is not None
    assert 'series="quiet"' not in text
    assert value(text, "forecastd_series_silent") == 1
    assert value(text, "forecastd_series_hidden") == 0


def test_series_beyond_the_cap_are_hidden_and_counted() -> None:
    """Those that the engine left out and those left out here."""
    scoreboard = board([f"s{i}" for i in range(5)])
    scoreboard.counters["series_hidden"] = 10
    text = page(scoreboard, cap=3)
    assert sum(name == "forecastd_value" for name, _ in samples(text)) == 3
    assert value(text, "forecastd_series_hidden") == 12


def test_a_daemon_without_a_journal_has_no_metrics_of_one() -> None:
    """What the engine does not count is absent, rather than zero for ever."""
    scoreboard = board(["a"])
    scoreboard.counters = {name: n for name, n in scoreboard.counters.items() if "journal" not in name}
    assert "journal" not in page(scoreboard)
    assert "forecastd_journal_commits_total" in page(board(["a"]))


def test_refusals_begin_at_zero() -> None:
    """Each reason is there before it first happens, so that a rate over its first time is not lost."""
    text = page(board([]))
    found = {
        dict(pairs)["reason"]: x
        for (name, pairs), x in samples(text).items()
        if name == "forecastd_samples_refused_total"
    }
    assert set(found) >= set(REASONS)
    assert (found["nonfinite"], found["late"], found["duplicate"]) == (2, 1, 0)


def test_the_buckets_of_the_durations_cumulate() -> None:
    """The scoreboard counts each bucket by itself; Prometheus wants all at or below the bound."""
    text = page(board([]))
    buckets = [
        value(text, "forecastd_forecast_duration_seconds_bucket", le=le) for le in ("1e-05", "0.001", "1.0", "+Inf")
    ]
    assert buckets == [4, 7, 9, 10]
    assert value(text, "forecastd_forecast_duration_seconds_count") == 10
    assert value(text, "forecastd_forecast_duration_seconds_sum") == 2.5


def test_no_sample_has_a_timestamp() -> None:
    """Prometheus refuses those of the future; a forecast is a value of now, its step ahead a label."""
    lines = [line for line in page(board(["a"])).splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"\w+({.*})? \S+", line)] == []


def test_the_page_takes_a_fraction_of_the_librarys_time() -> None:
    """That is what the templates are for: measured, about a ninth."""
    scoreboard = board([f"series-{i}" for i in range(300)])
    exposition, rows = Exposition(1_000, 60.0), np.arange(300)
    quick = min(_seconds(lambda: exposition.render(scoreboard)) for _ in range(5))
    slow = min(_seconds(lambda: generate_latest(SeriesCollector(scoreboard, rows))) for _ in range(3))
    assert quick < slow / 3


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    GOLDEN.write_text(page(awkward()).replace(f'version="{__version__}"', 'version="VERSION"'))
