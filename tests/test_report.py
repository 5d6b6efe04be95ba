"""The report: what is drawn is what was forecast, spikes survive thinning, it opens in a browser without a network."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecastd.daemon import report
from forecastd.daemon.grade import grade
from forecastd.daemon.replay import Trace, replay
from forecastd.daemon.settings import Settings
from forecastd.producers.playback import Recording
from forecastd.producers.waves import WAVES

SETTINGS = Settings(experts=("naive", "ses", "ar"), horizon=2)


def play(*recordings: Recording, settings: Settings = SETTINGS) -> list[Trace]:
    return replay(recordings, settings, None)


def wave(name: str, n: int, start: float = 1.7e9, offset: float = 0.0) -> Recording:
    return Recording(name, start + 60.0 * np.arange(n), WAVES["sine"](1).take(n)[1] + offset)


def floats(text: str, kind: str = "<f4") -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), kind).astype(np.float64)


def embedded(page: str) -> Any:
    """The data out of a page."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    flat = Recording("flat", 1e9 + np.arange(300.0), np.full(300, 7.0))
    return play(wave("boiler", 600), flat, wave("short", 5))


def test_what_is_drawn_is_what_was_forecast_each_under_its_own_sample(traces: list[Trace]) -> None:
    data = report.content(traces, SETTINGS, 0.3)
    chart, trace = data["series"][0]["chart"], traces[0]
    drawn = {name: floats(chart["whole"][name]) + chart["reference"] for name in ("value", "mean", "lower", "upper")}
    np.testing.assert_allclose(drawn["value"], trace.value, atol=1e-6)
    np.testing.assert_allclose(drawn["mean"][1:], trace.mean[:-1, 0], atol=1e-6)
    np.testing.assert_allclose(drawn["upper"][1:], trace.upper[:-1, 0, 0], atol=1e-6)
    assert np.isnan(drawn["mean"][:10]).all() and not np.isnan(drawn["mean"][10:]).any()
    near = chart["close_up"]
    np.testing.assert_allclose(
        floats(near["experts"][2])[-5:] + chart["reference"], trace.forecasts[-6:-1, 0, 2], rtol=1e-6
    )
    assert near["n"] == 150 and chart["whole"]["time"] == {"timed": True, "start": 1.7e9, "step": 60.0, "n": 600}
    assert chart["scored_from"] == trace.time[180]
    assert data["series"][0]["grade"] == grade(trace, 0.3)
    assert data["series"][2]["chart"] is None and data["charted"] == 2


def test_a_small_signal_on_a_large_value_keeps_its_shape() -> None:
    """float32 alone would round 1e9 ± 1 to steps of 64."""
    (trace,) = play(wave("pressure", 200, offset=1e9))
    chart = report.content([trace], SETTINGS, 0.3)["series"][0]["chart"]
    np.testing.assert_allclose(floats(chart["whole"]["value"]) + chart["reference"], trace.value, rtol=0, atol=1e-5)


def test_irregular_times_and_none_at_all_are_drawn_as_they_are() -> None:
    time = 1e9 + np.cumsum(np.random.default_rng(0).uniform(1, 9, 100))
    odd, none = Recording("odd", time, np.arange(100.0)), Recording("none", np.full(100, np.nan), np.arange(100.0))
    one, other = (s["chart"] for s in report.content(play(odd, none), SETTINGS, 0.3)["series"])
    assert floats(one["whole"]["time"]["at"], "<f8").tolist() == time.tolist()
    assert other["whole"]["time"] == {"timed": False, "start": 0.0, "step": 1.0, "n": 100}
    assert other["scored_from"] == 30


def test_thinning_keeps_every_spike_and_every_flag_in_order() -> None:
    values = np.sin(np.arange(50_000) / 100)
    spikes = np.array([123, 20_001, 49_998])
    values[spikes] = [9.0, -9.0, 11.0]
    flags = np.zeros(50_000, bool)
    flags[[5, 31_234]] = True
    shown = report.thin(values, flags, 1000)
    assert len(shown) <= 1010 and (np.diff(shown) > 0).all()
    assert {*spikes, 5, 31_234, 0, 49_999} <= set(shown.tolist())
    assert report.thin(values[:800], flags[:800], 1000).tolist() == list(range(800))


def test_trailing_means_leave_out_what_is_not_known_and_forget_an_error_for_good() -> None:
    values = np.array([[1.0], [np.nan], [3.0], [1e200], [5.0], [7.0]])
    at = np.array([1, 2, 3, 5])
    assert report.trailing_mean(values, 2, at)[:, 0].tolist() == [1.0, 3.0, 5e199, 6.0]
    assert np.isnan(report.trailing_mean(values, 1, np.array([1]))[0, 0])


def test_a_page_of_very_many_series_stays_small_and_shows_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "CHARTS_MAX", 3)
    noise = np.random.default_rng(0).normal(size=200)
    recordings = [wave(f"good-{k}", 200) for k in range(5)]
    recordings += [Recording(f"bad-{k}", 1e9 + np.arange(200.0), (noise * (k + 1)).cumsum()) for k in range(3)]
    series = report.content(play(*recordings), SETTINGS, 0.3)["series"]
    assert [s["grade"].series for s in series if s["chart"]] == ["bad-0", "bad-1", "bad-2"]


def test_the_page_holds_all_it_needs_and_a_name_cannot_end_its_data(traces: list[Trace]) -> None:
    evil = play(wave('</script><script>document.title="taken"</script>', 100))
    page = report.page([*traces, *evil], SETTINGS, 0.3)
    assert embedded(page)["series"][3]["grade"]["series"].startswith("</script><script>")
    own = page[: page.index("<script>")] + page[page.index('<script type="application/json"') :]
    assert not re.search(r"""(?:src|href)\s*=|url\(|@import|fetch\(|https?://""", own)
    assert "plotly.js v" in page and "{{" not in own
    assert len(page) < 6e6


def test_a_browser_without_a_network_draws_it(
    traces: list[Trace], tmp_path: Path, debian: Callable[[str], str]
) -> None:
    """Every chart is drawn, names are text and nothing else, and the script comes to its end without an error."""
    evil = play(wave('<img src=x onerror="document.title=1">', 400))
    file = tmp_path / "report.html"
    page = report.page([*traces, *evil], SETTINGS, 0.3)
    watch = "<script>addEventListener('error', e => document.documentElement.dataset.failed = e.message)</script>"
    file.write_text(page.replace("<head>", "<head>" + watch))
    command = [
        debian("chromium"),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
    ]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", "--dump-dom", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=100).stdout
    assert "data-failed" not in dom
    body = dom[dom.index("<body>") :]
    assert "<h2>boiler</h2>" in body
    for title in ("Skill by series", "Close up", "The whole run", "Experts", "Intervals", "Steps ahead"):
        assert f"<h3>{title}</h3>" in body
    assert body.count('class="main-svg"') >= 3 * 2
    assert "&lt;img src=x onerror=" in body and "<img src=x" not in body
    assert body.count("<tr") > 4 + 3 + 3
