"""`forecastd demo`: a producer, the daemon and the page on loopback, to look at; and nothing of it left at the end."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from .endpoint import host_port, taken, tcp
from .errors import CannotStart, Failure
from .settings import Settings
from .watch import Watch, in_lines, in_table

START_S, STOP_S = 60.0, 10.0
#: Waves that show something each: what there is to gain, a change to recover from, noise, and that nothing beats a
#: random walk.
WAVES = ("sine", "two-tone", "frequency-switch", "level-shift", "outliers", "random-walk")
RATE = 10.0  # samples a second and wave: quick enough to see it learn, slow enough for an eye

PLACES = """\
  live page  {web}/
  metrics    {web}/metrics
  samples    {ingest}  send your own: forecastd produce sine --to {ingest} --series mine
  forecasts  {publish}  see them:      forecastd watch --from {publish}
"""


class Demo:
    """The processes of a demo and the folder they live in. Use as a context: leaving it ends them and removes it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="forecastd-demo-"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.bound: dict[str, str] = {}

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it is ending already, and takes seconds at most
        for process in reversed(self.processes.values()):
            _end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """The daemon, and once it is ready the producer. Raises `CannotStart` with what the daemon said."""
        daemon = self._spawn("daemon", ["run", *_places(), "--state", str(self.folder / "state")])
        for line in self._lines(daemon):
            what, _, where = line.partition(" ")
            self.bound.setdefault(what, where.split()[-1] if where else "")
            if what == "ready":
                break
        else:
            raise CannotStart(f"the daemon did not start: {self.said('daemon')}")
        to = ["--to", self.bound["ingest"], "--rate", str(RATE)]
        self._spawn("producer", ["produce", "waves", *WAVES, *to])

    def check(self) -> None:
        """Raises `Failure` when a process has ended that should run."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise Failure(f"the {name} ended with status {process.returncode}: {self.said(name)}")

    def said(self, name: str) -> str:
        """The last line a process logged."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("Error: ") if lines else "it said nothing"

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "forecastd", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if name == "daemon" else log,
                stderr=log,
                cwd=self.folder,
                env=_environment(os.environ),
                process_group=0,  # Ctrl-C is for us, who end them in order
            )
        return self.processes[name]

    def _lines(self, process: subprocess.Popen[bytes]) -> Iterator[str]:
        """Lines of its output, until it ends it or `START_S` is over."""
        assert process.stdout is not None
        deadline, rest = time.monotonic() + START_S, b""
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                data = os.read(process.stdout.fileno(), 65_536)
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)


class Watched(Watch):
    """The feed of a demo; it also looks whether the processes are alive."""

    def __init__(self, demo: Demo) -> None:
        super().__init__(demo.bound["publish"])
        self.demo = demo

    def messages(self, deadline: float, count: int | None, tick_s: float) -> Iterator[bytes | None]:
        for message in super().messages(deadline, count, tick_s):
            if message is None:
                self.demo.check()
            yield message


def _places() -> list[str]:
    """The options that name the usual ports, or any free one instead of each that is taken."""
    usual = Settings()
    ingest, publish = usual.ingest[0].removeprefix("router+"), usual.publish
    options = []
    for option, endpoint in (("--ingest", ingest), ("--publish", publish)):
        place = tcp(endpoint)
        free = place is not None and taken(*place) is None
        options += [option, endpoint if free else "tcp://127.0.0.1:0"]
    return [*options, "--web", usual.web if taken(*host_port(usual.web)) is None else "127.0.0.1:0"]


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Without the settings meant for a real daemon."""
    return {name: value for name, value in inherited.items() if not name.startswith("FORECASTD_RUN_")}


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@click.command(
    epilog="""\b
Examples:
  forecastd demo
  forecastd demo --for 60"""
)
@click.option(
    "--for", "seconds", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End after this time."
)
def demo(seconds: float | None) -> None:
    """Show it all on this machine: the daemon, six waves to forecast, the live page.

    Everything listens on loopback only and lives in a temporary folder. Ctrl-C ends it and removes that.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with contextlib.suppress(KeyboardInterrupt), Demo() as running:
        click.echo(f"starting, in {running.folder} (removed at the end)")
        running.start()
        click.echo(PLACES.format(**running.bound))
        with Watched(running) as watching:
            deadline = time.monotonic() + seconds if seconds else float("inf")
            show = in_table if sys.stdout.isatty() else in_lines
            show(watching, deadline, None)
    click.echo("ended; nothing is left behind")
