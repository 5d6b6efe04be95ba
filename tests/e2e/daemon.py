"""`forecastd run` as a user starts it, on free ports, and what it shows of itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from ..patience import until


class Daemon:
    """A running daemon, its ports, and peers that end with it."""

    #: What starts it, if it is not started by itself.
    wrapper: tuple[str, ...] = ()

    def __init__(
        self, folder: Path, *arguments: str, program: Sequence[str] = ("-m", "forecastd", "run"), **environment: str
    ) -> None:
        command = [*self.wrapper, sys.executable, *program]
        for kind in ("router", "pull", "sub"):
            command += ["--ingest", f"{kind}+tcp://127.0.0.1:0"]
        command += [
            "--publish",
            "tcp://127.0.0.1:0",
            "--web",
            "127.0.0.1:0",
            "--state",
            str(folder / "state"),
            *arguments,
        ]
        self._log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ, **environment}
        )
        self.context: zmq.SyncContext = zmq.Context()
        self._peers: list[zmq.SyncSocket] = []
        self.address: dict[str, str] = {}
        assert self.process.stdout
        for line in self.process.stdout:
            if line == "ready\n":
                return
            what, _, address = line.rstrip("\n").rpartition(" ")
            self.address[what] = address
        said = f"it ended with {self.process.wait()}: {self.log()}"
        self.close()
        raise AssertionError(said)

    def peer(self, kind: int, where: str, topic: str | None = None) -> zmq.SyncSocket:
        """A socket connected to one of the daemon's; SUB sockets are subscribed to `topic` before this returns."""
        peer = self.context.socket(kind)
        self._peers.append(peer)
        peer.linger, peer.rcvtimeo, peer.sndtimeo = 0, 30_000, 30_000
        peer.connect(self.address[where])
        if topic is not None:
            peer.subscribe(topic)
        return peer

    def listen(self, series: str) -> zmq.SyncSocket:
        """A subscriber that has certainly been heard of: it got a forecast of `series` already."""
        subscriber, dealer = self.peer(zmq.SUB, "publish", series), self.peer(zmq.DEALER, "ingest router")
        until(lambda: (dealer.send_multipart([series.encode(), b"1"]), subscriber.poll(50))[1])
        while subscriber.poll(200):
            subscriber.recv_multipart()
        return subscriber

    def fetch(self, path: str) -> str:
        with urllib.request.urlopen(self.address["web"] + path, timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def metric(self, name: str) -> float:
        """A line of /metrics, with its labels as they stand there; 0 while it is not there."""
        match = re.search(rf"^{re.escape(name)} (\S+)$", self.fetch("/metrics"), re.M)
        return float(match[1]) if match else 0.0

    def children(self) -> dict[str, int]:
        """The process ids by name."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        names = {}
        for pid in pids:
            # one may have ended since they were listed
            with suppress(FileNotFoundError, ProcessLookupError):
                names[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return {line[2].decode().rpartition(".")[2]: int(pid) for pid, line in names.items() if len(line) > 2}

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def close(self) -> None:
        """Ends it if it has not ended, and all that belongs to it."""
        self.context.destroy(0)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self._log.close()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def forecast(subscriber: zmq.SyncSocket) -> dict[str, Any]:
    """The next forecast."""
    message: dict[str, Any] = json.loads(subscriber.recv_multipart()[1])
    return message


def gone(pid: int) -> bool:
    """Whether there is no such process any more, or only what its parent has not buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
