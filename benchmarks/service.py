"""A daemon that is measured: `forecastd run` in processes of its own, and what they use."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

TICKS_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Service:
    """A running daemon on free ports, with a state folder of its own. Use as a context."""

    def __init__(self, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        places = ["--ingest", "tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0", "--web", "127.0.0.1:0"]
        command = [sys.executable, "-m", "forecastd", "run", *places, "--state", self._folder.name, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.address: dict[str, str] = {}
        assert self._process.stdout is not None
        for line in map(str.strip, self._process.stdout):
            if line == "ready":
                return
            what, _, self.address[what.split()[0]] = line.rpartition(" ")
        raise RuntimeError("the daemon did not start")

    def metric(self, name: str) -> float:
        """A line of its page, with its labels as they stand there; 0 while it is not there."""
        with urllib.request.urlopen(self.address["web"] + "/metrics", timeout=30) as answer:
            match = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.M)
        return float(match[1]) if match else 0.0

    @property
    def tuned(self) -> float:
        """Fine-tunes that gave a series another copy."""
        return self.metric('forecastd_finetunes_total{outcome="tuned"}')

    @property
    def tunes(self) -> float:
        """Fine-tunes that came to an end, whatever that was."""
        return self.tuned + self.metric('forecastd_finetunes_total{outcome="rejected"}')

    def until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Waits for it, looking now and then. TimeoutError."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError("it did not come to that in time")
            time.sleep(0.5)

    def pid(self, name: str) -> int:
        """Of one of its processes, by name."""
        me = self._process.pid
        for pid in Path(f"/proc/{me}/task/{me}/children").read_text().split():
            if f"daemon.{name}".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        raise LookupError(f"there is no {name}")

    def cpu_s(self, name: str) -> float:
        """Seconds of the processor that it has used."""
        fields = Path(f"/proc/{self.pid(name)}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_S

    def memory_mb(self, name: str) -> float:
        """What of it is resident."""
        return int(Path(f"/proc/{self.pid(name)}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()
