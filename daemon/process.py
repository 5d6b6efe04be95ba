"""One process of the daemon, as the supervisor sees it: how it is started, what it said, whether it hangs."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from .settings import Settings

log = logging.getLogger("forecastd")

#: Seconds a child may take until it is ready, and how long the loop of a ready one may stay without a heartbeat.
START_S, SILENT_S = 60.0, 10.0
#: Seconds until a dead child is started again: doubled each time up to the second, forgotten after the third of health.
BACKOFF_S, BACKOFF_S_MAX, HEALTHY_S = 0.1, 10.0, 60.0
#: Deaths in a row after which one that the daemon can do without is left alone, and for how many seconds.
DEATHS_MAX, BROKEN_S = 5, 3600.0

Hello = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """A kind of process. `hello` makes its first line out of the settings and of what is bound so far (the first word
    of a `bound` line, to addresses); None while something it needs is missing.

    The daemon can do without a `spare` one: it runs from when another asks for it, nothing waits for it, and it has
    nothing to lose. `silent_s` is its own bound for the silence of its loop."""

    name: str
    command: list[str]
    hello: Callable[[Settings, dict[str, list[str]]], Hello | None]
    environment: dict[str, str] = field(default_factory=dict)
    spare: bool = False
    silent_s: float | None = None


class Child:
    """One process and its pipes; `start_at` is when it is due, None while it runs or nobody wants it. Seconds of the
    monotonic clock."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.wanted = not spec.spare
        self.restarts = 0
        #: deaths since it last said that it had done something
        self.deaths = 0
        self.start_at: float | None = 0.0 if self.wanted else None
        self.started_at = 0.0
        self.stdin = self.stdout = -1
        self._backoff_s = BACKOFF_S
        self._reset()

    def _reset(self) -> None:
        self.ready = False
        self.greeted = False
        self.beat_at: float | None = None
        self.hung = False
        self.failed: tuple[str, int] | None = None
        self.silenced = False
        self.unsent = b""
        self._rest = b""

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def spawn(self, now: float) -> None:
        """Starts it; it waits for its first line."""
        self._reset()
        self.start_at, self.started_at = None, now
        its_stdin, self.stdin = os.pipe()
        self.stdout, its_stdout = os.pipe()
        # Ctrl-C is for the supervisor, which then ends its children in order: hence the group of its own.
        environment = {**os.environ, **self.spec.environment}
        self.process = subprocess.Popen(
            self.spec.command, stdin=its_stdin, stdout=its_stdout, env=environment, process_group=0
        )
        os.close(its_stdin)
        os.close(its_stdout)
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)

    def tell(self, line: Hello) -> None:
        """One JSON line on its stdin; lost if it is gone. What the pipe has no room for waits for `flush`."""
        self.unsent += msgspec.json.encode(line) + b"\n"
        self.flush()

    def flush(self) -> None:
        """Writes on what was to be told; never waits."""
        try:
            while self.unsent:
                self.unsent = self.unsent[os.write(self.stdin, self.unsent) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self.unsent = b""

    def hear(self, now: float) -> list[dict[str, Any]]:
        """What it said since; that it is ready, when it last beat and why it failed is remembered here. `silenced` is
        true once it can say no more."""
        try:
            data = os.read(self.stdout, 1 << 16)
        except BlockingIOError:
            return []
        self.silenced = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        said = [msgspec.json.decode(line) for line in lines if line]
        for line in said:
            self.ready = self.ready or bool(line.get("ready"))
            if "beat" in line:
                self.beat_at = now
            if "done" in line:
                self.deaths = 0
            if "failed" in line:
                self.failed = (str(line["failed"]), int(line.get("status", 3)))
        return said

    def hangs(self, now: float) -> bool:
        """Whether it is overdue: to be ready, or, if it has ever beaten, to beat again."""
        if not self.ready:
            return self.greeted and now - self.started_at > START_S
        return self.beat_at is not None and now - self.beat_at > (self.spec.silent_s or SILENT_S)

    def signal(self, number: int) -> None:
        """Sends it this signal, if it is alive."""
        if self.process is not None and self.alive:
            self.process.send_signal(number)

    def bury(self) -> int:
        """Waits for its end and closes the pipes; the status, negative for a signal, as subprocess has it."""
        process, self.process = self.process, None
        os.close(self.stdin)
        os.close(self.stdout)
        self.ready = False
        return process.wait() if process else 0

    def want(self, now: float) -> None:
        """Has it started, unless it runs or its start is planned."""
        self.wanted = True
        if self.process is None and self.start_at is None:
            self.start_at = now

    def unwant(self) -> None:
        """Ends it, for nobody wants it any more."""
        self.wanted, self.start_at = False, None
        self.signal(signal.SIGKILL)

    def rest(self, now: float) -> float:
        """Plans the next start; the seconds until then."""
        if now - self.started_at > HEALTHY_S:
            self._backoff_s = BACKOFF_S
        wait_s = self._backoff_s
        self._backoff_s = min(2 * wait_s, BACKOFF_S_MAX)
        self.restarts += 1
        self.deaths += 1
        if self.spec.spare and self.deaths >= DEATHS_MAX:
            wait_s = BROKEN_S
        self.start_at = now + wait_s
        return wait_s
