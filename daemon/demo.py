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
from .watch import Watch, forgive, in_lines, in_table

START_S, STOP_S = 60.0, 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Waves that each show something: what there is to gain, changes to recover from, spikes, and what nothing can beat.
WAVES = ("two-tone", "chirp", "level-shift", "outliers", "random-walk")
#: Samples a second of each series: quick enough to see it learn, slow enough for an eye.
RATE = "10"

ANYWHERE = ["--ingest", "tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0", "--web", "127.0.0.1:0"]
PLACES = """\
  live page  {web}/
  metrics    {web}/metrics
  samples    {ingest}  send your own: forecastd produce sine --to {ingest} --series mine
  forecasts  {publish}  see them:      forecastd watch --from {publish}
"""


class Interrupts:
    """What ends a demo: the first signal raises KeyboardInterrupt, but not while `held`; the others do nothing, since
    it is ending."""

    def __init__(self) -> None:
        self._asked = self._held = False
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def _hear(self, *_: object) -> None:
        first, self._asked = not self._asked, True
        if first and not self._held:
            raise KeyboardInterrupt

    def ignore(self) -> None:
        """From now on; Python gives up its handlers before it ends, and a signal in that moment would look like a
        crash."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For what must not be left half done: a process that is started and not yet known would outlive us."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._asked:
            raise KeyboardInterrupt


class Demo:
    """The processes of a demo and the folder they live in. Use as a context: leaving it ends them and removes it."""

    def __init__(self, interrupts: Interrupts) -> None:
        self.interrupts = interrupts
        self.folder = Path(tempfile.mkdtemp(prefix="forecastd-demo-"))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.bound: dict[str, str] = {}

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            _end(process)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.interrupts.ignore()

    def start(self) -> None:
        """The daemon, and once it is ready the producers. Raises `CannotStart` with what the daemon said."""
        # A port that was free when we looked may be taken by now: then any will do.
        if not self._daemon(_places()) and not self._daemon(ANYWHERE):
            raise CannotStart(f"the daemon did not start: {self.said('daemon')}")
        to = ["--to", self.bound["ingest"], "--rate", RATE]
        kinds = [word for kind in WAVES for word in ("--kind", kind)]
        self._spawn("sine", ["produce", "sine", *to])
        self._spawn("waves", ["produce", "waves", *kinds, "--seed", "1", *to])

    def _daemon(self, places: list[str]) -> bool:
        """Start it there; whether it is ready."""
        self.bound = {}
        for line in self._lines(self._spawn("daemon", ["run", *places, "--state", str(self.folder / "state")])):
            if line == "ready":
                return True
            what, _, where = line.partition(" ")
            self.bound[what] = where.rpartition(" ")[2]  # behind the kind of socket, where one is said
        _end(self.processes.pop("daemon"))
        return False

    def check(self) -> None:
        """Raises `Failure` when a process has ended that should run."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise Failure(f"{name} ended with status {process.returncode}: {self.said(name)}")

    def said(self, name: str) -> str:
        """The last line a process logged."""
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("Error: ") if lines else "it said nothing"

    def _spawn(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log, self.interrupts.held():
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
    forgive()
    interrupts = Interrupts()
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        with interrupts.held():
            running = stack.enter_context(Demo(interrupts))
        click.echo(f"starting, in {running.folder} (removed at the end)")
        running.start()
        click.echo(PLACES.format(**running.bound))
        watching = stack.enter_context(Watched(running))
        deadline = time.monotonic() + seconds if seconds else float("inf")
        show = in_table if sys.stdout.isatty() else in_lines
        show(watching, deadline, None)
    click.echo("ended; nothing is left behind")
