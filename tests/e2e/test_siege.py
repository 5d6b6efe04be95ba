"""Peers who mean ill, one after the other: each is refused and counted, the daemon is in good health, and what it does
for the others it does as before. The ratios of their latencies are printed (`-s`), not judged: the machine is shared.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq

from ..keyring import Keyring
from ..patience import until
from .daemon import Daemon

SERIES_MAX = 5_000


class Siege:
    """A daemon, who means ill, and a bystander who sends samples and waits for their forecasts."""

    def __init__(self, folder: Path, keyed: bool) -> None:
        self.keys = Keyring(folder)
        # Without a trainer, whose start takes the cores that the figures are of.
        options = ["--limits-series-per-producer", str(SERIES_MAX)]
        options += ["--learning-copies", "0", "--learning-challenge-s", "0"]
        if keyed:
            clients = self.keys.write(self.keys.entry("bystander", "*", watch=True))
            options += ["--key", self.keys.path("daemon"), "--clients", clients]
        self.daemon = Daemon(folder, *options)
        self.engine = self.daemon.children()["engine"]
        self.dealer, self.subscriber = self.daemon.context.socket(zmq.DEALER), self.daemon.context.socket(zmq.SUB)
        for peer, where in ((self.dealer, "ingest router"), (self.subscriber, "publish")):
            peer.linger, peer.rcvtimeo = 0, 30_000
            if keyed:
                self.keys.on(peer, "bystander")
            peer.connect(self.daemon.address[where])
        self.subscriber.subscribe("by")
        self.count = 0
        until(lambda: (self.dealer.send_multipart([b"by", b"0"]), self.subscriber.poll(50))[1])
        self.waits(0.5)

    def waits(self, seconds: float, process: subprocess.Popen[str] | None = None) -> list[float]:
        """Seconds from sample to forecast, again and again for so long, or until the process has ended."""
        found: list[float] = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (process is None or process.poll() is None):
            self.count += 1
            began = time.perf_counter()
            self.dealer.send_multipart([b"by", b"%d" % self.count])
            while json.loads(self.subscriber.recv_multipart()[1])["value"] != self.count:
                pass
            found.append(time.perf_counter() - began)
            time.sleep(0.002)
        return found

    def endure(self, what: str, where: str) -> None:
        """Lets one who means ill do so to the end, and prints how much longer the bystander waits meanwhile."""
        before = self.waits(1.5)
        command = [sys.executable, "-m", "forecastd.tests.e2e.attack", what, self.daemon.address[where]]
        with subprocess.Popen([*command, self.keys.public("daemon")], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout and process.stdout.readline() == "begun\n"
                during = self.waits(60.0, process)
                assert process.stdout.readline() == "done\n"
            finally:
                process.kill()
        calm, harried = (np.quantile(each, [0.5, 0.99]) * 1e3 for each in (before, during))
        print(
            f"\n{what}: p50 {calm[0]:.2f} ms before, {harried[0]:.2f} during, {harried[0] / calm[0]:.1f} times; "
            f"p99 {calm[1]:.2f} before, {harried[1]:.2f} during, {harried[1] / calm[1]:.1f} times"
        )

    def counted(self, name: str) -> float:
        return self.daemon.metric(f"forecastd_{name}")

    def refused(self, reason: str) -> float:
        return self.counted(f'samples_refused_total{{reason="{reason}"}}')

    def well(self) -> bool:
        """The same engine, ready, with no more memory than it may have, and no word of an exception."""
        status = Path(f"/proc/{self.engine}/status").read_text()
        resident_kb = int(status.partition("VmRSS:")[2].split()[0])
        return bool(
            self.daemon.children()["engine"] == self.engine
            and self.daemon.fetch("/readyz")
            and resident_kb < 600_000
            and "Traceback" not in self.daemon.log()
        )


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """One for all: it has to survive each of them, and what came before."""
    found = Siege(tmp_path_factory.mktemp("siege"), keyed=False)
    with found.daemon:
        yield found


@pytest.mark.slow
def test_fault_18_a_million_names_of_one_producer(siege: Siege) -> None:
    """Its quota is taken, the rest refused."""
    siege.endure("names", "ingest router")
    until(lambda: siege.refused("too_many_series") == 1_000_001 - SERIES_MAX, within_s=60)
    assert siege.counted("series") == SERIES_MAX + 1
    assert siege.well()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason", "count"),
    [("frames", "oversize", 5), ("brackets", "malformed", 500), ("junk", "malformed", 200_000)],
)
def test_fault_16_messages_that_are_none(siege: Siege, what: str, reason: str, count: int) -> None:
    """Two thousand frames each, nested JSON, and a flood of nonsense: all counted."""
    before = siege.refused(reason)
    siege.endure(what, "ingest router")
    until(lambda: siege.refused(reason) == before + count, within_s=60)
    assert siege.well()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["web", "ingest router", "publish"])
def test_fault_23_five_hundred_idle_connections(siege: Siege, where: str) -> None:
    """The page shows out those beyond its bound; the others end with their handshake's time."""
    siege.endure("idle", where)
    if where == "web":
        assert siege.counted('http_connections_closed_total{reason="crowded"}') >= 200
    until(siege.well)


@pytest.mark.slow
def test_fault_25_strangers_of_every_kind(tmp_path: Path) -> None:
    """Without a key, with a wrong one, with another daemon's: none is let in, and all are counted."""
    siege = Siege(tmp_path, keyed=True)
    with siege.daemon:
        siege.endure("strangers", "ingest router")
        reasons = ("protocol", "unauthorised", "incomplete")
        counts = {why: siege.counted(f'handshakes_failed_total{{reason="{why}"}}') for why in reasons}
        assert counts["unauthorised"] >= 60 and sum(counts.values()) >= 180, counts
        assert siege.counted("series") == 1
        assert siege.well()
