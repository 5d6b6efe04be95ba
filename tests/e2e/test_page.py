"""The live page in a real browser, over a real daemon."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from .chromium import Chromium

ODD = 'plant/7 "ä" <b>% ?#&.'
SERIES = ["wave", ODD, "slow", *(f"node-{i}" for i in range(8))]
#: The one thing Plotly's script asks for that the page refuses: a style sheet of its maps, which the page has none of.
REFUSED = "Applying inline style violates"


class Daemon:
    """`forecastd run` on free ports, without state."""

    def __init__(self, folder: Path) -> None:
        anywhere = ["--ingest", "tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0", "--web", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "forecastd", "run", "--ephemeral", "--horizon", "3", *anywhere],
            stdout=subprocess.PIPE,
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("FORECASTD_")},
            text=True,
        )
        assert self.process.stdout
        self.bound = {}
        for line in self.process.stdout:
            words = line.split()
            self.bound[words[0]] = words[-1]
            if words == ["ready"]:
                break
        assert "ready" in self.bound, "the daemon did not start"

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(15) == 0
        assert self.process.stdout
        self.process.stdout.close()


class Source(threading.Thread):
    """Sends every series twenty times a second, `slow` once; a wave with a spike now and then."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        self.endpoint, self.ended = endpoint, threading.Event()

    def run(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.connect(self.endpoint)
        at = 0
        while not self.ended.wait(0.05):
            wave = math.sin(at / 10) + 0.1 * math.sin(7.3 * at) + (8.0 if at % 100 == 99 else 0.0)
            samples: list[dict[str, Any]] = [{"series": name, "value": wave + k} for k, name in enumerate(SERIES)]
            samples = [each for each in samples if each["series"] != "slow" or at % 20 == 0]
            socket.send(json.dumps(samples).encode())
            at += 1
        context.destroy(linger=0)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    running = Daemon(tmp_path_factory.mktemp("daemon"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(debian: Callable[[str], str]) -> Iterator[Chromium]:
    with Chromium(debian("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def page(daemon: Daemon, browser: Chromium) -> Iterator[Chromium]:
    """The page with the series `wave` on it, moving."""
    browser.look(1280, 900)
    browser.open(daemon.bound["web"] + "/")
    # Still without a sample: the page says what to do, and goes on by itself once there is one.
    browser.until("document.getElementById('link').dataset.state === 'live'")
    assert browser.run("document.getElementById('empty').checkVisibility()")
    assert "forecastd produce sine" in browser.run("document.getElementById('empty').innerText")
    assert not browser.run("document.getElementById('body').checkVisibility()")
    source = Source(daemon.bound["ingest"])
    source.start()
    browser.until("document.querySelectorAll('#list li').length >= 10")
    assert not browser.run("document.getElementById('empty').checkVisibility()")
    browser.run("location.hash = 'series=wave'")
    browser.until(f"{points('value')} > 40")
    yield browser
    source.ended.set()
    source.join()


def points(trace: str) -> str:
    """An expression: how many points the trace of this name has on the chart."""
    return (
        "((document.getElementById('chart').data || [])"
        f".find(t => t.name.endsWith({json.dumps(trace)})) || {{x: []}}).x.filter(x => x).length"
    )


def text(place: str) -> str:
    return f"document.getElementById('{place}').innerText"


def test_value_forecast_and_band_move(page: Chromium) -> None:
    """Each has its points, and a moment later more of them; what is drawn is what is there."""
    for trace in ("value", "forecast", "interval"):
        before = page.run(points(trace))
        assert before > 30, trace
        page.until(f"{points(trace)} > {before + 5}")
    assert page.run("document.querySelectorAll('#chart .scatterlayer .trace').length") >= 3
    first = page.run(text("value"))
    page.until(f"{text('value')} !== {json.dumps(first)}")


def test_the_forecast_reaches_beyond_the_last_value(page: Chromium) -> None:
    """By all three steps ahead."""
    last = "Date.parse(document.getElementById('chart').data.find(t => t.name === '%s').x.filter(x => x).at(-1))"
    ahead = page.run(f"{last % 'forecast'} - {last % 'value'}")
    assert ahead == pytest.approx(150, rel=0.5)


def test_a_spike_is_marked(page: Chromium) -> None:
    """On the curve and in the count."""
    page.until(f"{points('anomaly')} > 0", 40)
    page.until(f"+{text('anomalies')} > 0")


def test_errors_are_shown_against_naive_for_each_step_ahead(page: Chromium) -> None:
    """A row a step, figures in it."""
    page.until("document.querySelectorAll('#errors tr').length === 3")
    page.until("/[0-9]/.test(document.querySelector('#errors tr:last-child td:nth-child(6)').innerText)")
    row = page.run("[...document.querySelectorAll('#errors tr:first-child td')].map(cell => cell.innerText)")
    assert row[0].startswith("1 (")
    assert all(any(c.isdigit() for c in cell) for cell in row)


def test_coverage_and_weights_are_shown(page: Chromium) -> None:
    """Three levels beside what they came to; the weights of the experts add up to one."""
    assert page.run("document.querySelectorAll('#coverage tr').length") == 3
    weights = page.run(
        "[...document.querySelectorAll('#experts tr td:nth-child(2)')].map(cell => parseFloat(cell.innerText))"
    )
    assert sum(weights) == pytest.approx(100, abs=1)
    stacked = "document.getElementById('weights').data.map(t => t.y.at(-1)).reduce((a, b) => a + b)"
    assert page.until(f"document.getElementById('weights').data.length > 1 && {stacked}") == pytest.approx(1, abs=0.01)


def test_the_daemon_is_summed_up(page: Chromium) -> None:
    """Its rate, its series, the time from receiving to publishing."""
    page.until(f"parseFloat({text('rate')}) > 50")
    assert page.run(text("count")) == str(len(SERIES))
    assert any(unit in page.until(f"{text('median')} !== '–' && {text('median')}") for unit in ("µs", "ms"))
    assert page.run(text("status")) == "ready"


def test_the_models_are_shown_with_what_was_decided_about_them(page: Chromium) -> None:
    """What a file calls itself is shown as it is and never taken for markup."""
    page.until("document.querySelectorAll('#models tr').length === 1")
    row = page.run("[...document.querySelectorAll('#models td')].map(cell => cell.innerText)")
    assert row == ["general", "1", "serves", "–", "–", "–"]
    found = [
        {"name": "<b>plant</b>", "version": 3, "status": "champion"},
        {"name": "general", "version": 1, "status": "predecessor", "gain": -0.123, "evidence": 0.5, "rounds": 9}
        | {"samples": 1234},
    ]
    events = [
        {"time": 40, "event": "promoted", "number": 3, "before": 1, "cause": "by_hand"},
        {"time": 90, "event": "finetune", "series": "boiler", "outcome": "tuned"},
    ]
    # all at once, for the daemon tells of its own models every second
    shown = "['models', 'decisions'].map(id => [...document.querySelectorAll(`#${id} td`)].map(cell => cell.innerText))"
    told = page.run(f"(models({json.dumps(found)}, {json.dumps(events)}, 100), {shown})")
    assert told == [
        ["<b>plant</b>", "3", "serves", "–", "–", "–", "general", "1", "watches", "+12.3 %", "0.50", "1\u202f234"],
        ["finetune: tuned", "boiler", "10 s ago", "promoted", "version 3, was 1, by hand", "1 min ago"],
    ]


def test_a_search_narrows_the_list_and_a_click_changes_the_series(page: Chromium) -> None:
    """Whatever the name holds, it is shown as it is and never taken for markup."""
    page.run("search.value = 'PLANT'; search.dispatchEvent(new Event('input'))")
    page.until("document.querySelectorAll('#list li').length === 1")
    page.run("document.querySelector('#list button').click()")
    page.until(f"{text('name')} === {json.dumps(ODD)} && {points('value')} > 5")
    assert page.run("document.querySelectorAll('#name b, #list b').length") == 0
    assert page.run("document.querySelector('#list button').getAttribute('aria-current')") == "true"
    page.run("search.value = ''; search.dispatchEvent(new Event('input')); location.hash = 'series=wave'")
    page.until(f"{text('name')} === 'wave' && {points('value')} > 5")


def test_a_series_looked_at_for_the_first_time_has_a_past(page: Chromium) -> None:
    """The curve begins with what the daemon kept of it, not with the moment of looking."""
    page.until("fetch('api/v1/series/slow').then(a => a.json()).then(a => (a.recent || {time: []}).time.length >= 7)")
    page.run("location.hash = 'series=slow'")
    page.until(f"{text('name')} === 'slow' && {points('value')} > 0")
    page.until(f"{points('value')} >= 7", 3)
    page.run("location.hash = 'series=wave'")
    page.until(f"{text('name')} === 'wave' && {points('value')} > 5")


@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (820, False), (390, True)])
def test_it_fits_the_screen_in_light_and_dark(page: Chromium, width: int, mobile: bool, tmp_path: Path) -> None:
    """Nothing sticks out sideways, and the colours follow the system."""
    papers = set()
    for dark in (False, True):
        page.look(width, 844, dark=dark, mobile=mobile)
        page.until(f"document.querySelector('#chart .main-svg').clientWidth <= {width}")
        assert page.run("document.documentElement.scrollWidth") <= width
        papers.add(page.run("getComputedStyle(document.body.parentElement).backgroundColor"))
        page.picture(tmp_path / f"page-{width}-{'dark' if dark else 'light'}.png")
    assert len(papers) == 2
    page.look(1280, 900)


def test_charts_and_controls_have_names(page: Chromium) -> None:
    """For those who do not see them."""
    named = "element.ariaLabel || element.getAttribute('aria-labelledby') || element.id === 'empty'"
    places = "[...document.querySelectorAll('nav, input, [role=img], section')]"
    nameless = f"{places}.filter(element => !({named})).length"
    assert page.run(nameless) == 0
    axes = page.run("['xaxis', 'yaxis'].map(a => document.getElementById('chart').layout[a].title.text)")
    assert axes == ["local time", "value (unit of the series)"]


def test_the_page_stays_in_its_place_while_it_updates(page: Chromium) -> None:
    """No jumping: between two updates nothing shifts."""
    page.run(
        "window.shift = 0; new PerformanceObserver(list => list.getEntries().forEach(e => window.shift += e.value))"
        ".observe({type: 'layout-shift', buffered: false})"
    )
    before = page.run(points("value"))
    page.until(f"{points('value')} > {before + 40} || {points('value')} >= 400")
    assert page.run("window.shift") < 0.02


def test_nothing_is_loaded_from_elsewhere_and_nothing_goes_wrong(page: Chromium, daemon: Daemon) -> None:
    """Every request went to the daemon; the console has no error but the one refusal we know of."""
    assert [url for url in page.asked() if not url.startswith((daemon.bound["web"], "data:"))] == []
    assert [complaint for complaint in page.complaints() if REFUSED not in complaint] == []


def test_a_daemon_that_is_gone_is_said_to_be(page: Chromium, tmp_path: Path) -> None:
    """And when it is back the page goes on by itself."""
    mortal = Daemon(tmp_path)
    page.open(mortal.bound["web"] + "/")
    page.until("document.getElementById('link').dataset.state === 'live'")
    mortal.stop()
    page.until("document.getElementById('link').dataset.state === 'lost'")
    assert "trying again" in page.run(text("link"))
