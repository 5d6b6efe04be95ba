"""`forecastd demo`: everything runs, and nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import pytest

from forecastd.daemon import demo as demo_module
from forecastd.daemon.demo import Demo
from forecastd.daemon.settings import Settings

SERIES = {"sine", "two-tone", "chirp", "level-shift", "outliers", "random-walk"}


class Running:
    """A demo without a terminal. Temporary folders are made in `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "forecastd", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "TMPDIR": str(folder), "FORECASTD_RUN_WEB": "nonsense"},
        )
        self.said = ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read what it prints until this is among it."""
        assert self.process.stdout
        while not (found := re.search(pattern, self.said)):
            line = self.process.stdout.readline()
            assert line, f"it ended without saying {pattern}: {self.said}"
            self.said += line
        return found

    def end(self, seconds: float = 20.0) -> str:
        """All it said, once it has ended."""
        rest, _ = self.process.communicate(timeout=seconds)
        self.said += rest
        return self.said

    def left(self) -> list[str]:
        """The processes that work in its folder, and what lies there."""
        found = [str(path) for path in self.folder.iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "cwd").startswith(str(self.folder)):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(tmp_path, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.communicate(timeout=20)


def test_it_shows_what_is_where_and_leaves_nothing(demo: Callable[..., Running]) -> None:
    """The page and the metrics answer where it says they are; every series is forecast; at the end there is neither
    process nor file."""
    running = demo("--for", "4")
    page = running.until(r"live page +(http://\S+)")[1]
    metrics = running.until(r"metrics +(http://\S+)")[1]
    running.until(r"sine +value \S+  forecast -?\d")
    assert running.left() != []
    with urllib.request.urlopen(page, timeout=10) as answer:
        assert b"<title>forecastd</title>" in answer.read()
    with urllib.request.urlopen(metrics, timeout=10) as answer:
        found = set(re.findall(r'^forecastd_value{series="([^"]+)"}', answer.read().decode(), re.M))
    assert found == SERIES
    assert "nothing is left behind" in running.end()
    assert running.process.returncode == 0
    assert running.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["starting", "random-walk +value"])
def test_it_ends_cleanly_when_told_to(demo: Callable[..., Running], number: signal.Signals, moment: str) -> None:
    """Also while it is still starting, and when told twice."""
    running = demo()
    running.until(moment)
    running.process.send_signal(number)
    time.sleep(0.1)  # while it is ending; whenever that is, it must do no harm
    running.process.send_signal(number)
    running.end()
    assert running.process.returncode == 0
    assert "Traceback" not in running.said
    assert running.left() == []


def test_it_finds_free_ports_where_the_usual_ones_are_taken(demo: Callable[..., Running]) -> None:
    """A daemon that runs here already is not disturbed."""
    with ExitStack() as held:
        for port in (5555, 5556, 9595):
            holder = held.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                holder.bind(("127.0.0.1", port))
                holder.listen()
            except OSError:
                continue  # somebody has it already: as well
        running = demo("--for", "1")
        ports = {int(running.until(rf"{what} +\w+://127.0.0.1:(\d+)")[1]) for what in ("page", "samples", "forecasts")}
        assert ports.isdisjoint({5555, 5556, 9595})
        running.end()
    assert running.process.returncode == 0
    assert running.left() == []


class Deaf:
    """No signals."""

    def held(self) -> AbstractContextManager[None]:
        return nullcontext()

    def ignore(self) -> None:
        pass


def test_a_port_taken_since_we_looked_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and binding somebody was quicker: any free port will do."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        places = ["--ingest", f"tcp://127.0.0.1:{port}", "--publish", "tcp://127.0.0.1:0", "--web", "127.0.0.1:0"]
        monkeypatch.setattr(demo_module, "_places", lambda: places)
        with Demo(Deaf()) as running:  # type: ignore[arg-type]
            running.start()
            assert running.bound["ingest"] != f"tcp://127.0.0.1:{port}"
            assert running.bound["web"].startswith("http://127.0.0.1:")
            running.check()
    assert not running.folder.exists()


def test_a_process_that_dies_ends_the_demo_with_a_word(demo: Callable[..., Running]) -> None:
    """Status 1, what died and what it said; the others do not outlive it."""
    running = demo()
    running.until("sine +value")
    producers = [p for p in Path("/proc").glob("[0-9]*") if _works_in(p, running.folder, b"produce\0sine")]
    assert len(producers) == 1
    os.kill(int(producers[0].name), signal.SIGKILL)
    assert "Error: sine ended with status -9" in running.end()
    assert running.process.returncode == 1
    assert running.left() == []


def _works_in(process: Path, folder: Path, command: bytes) -> bool:
    try:
        inside = os.readlink(process / "cwd").startswith(str(folder))
        return inside and command in (process / "cmdline").read_bytes()
    except OSError:
        return False


def test_the_usual_ports_are_those_of_the_settings() -> None:
    """What this file takes for taken is what a daemon would take."""
    usual = Settings()
    assert [text.rpartition(":")[2] for text in (usual.ingest[0], usual.publish, usual.web)] == ["5555", "5556", "9595"]
