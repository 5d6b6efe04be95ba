"""More than the daemon can take, and less than it needs: samples at ten times its rate in bounded memory, and no file
descriptors left.
"""

from __future__ import annotations

import re
import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import zmq

from forecastd import Producer

from ..patience import until
from .daemon import Daemon, forecast

#: Samples of one series are taken in one after the other, some thousand a second. This sends what it can, numbered and
#: without waiting for an answer, until it is ended.
FLOOD = """
import struct, sys, zmq
peer = zmq.Context().socket(int(sys.argv[1]))
peer.connect(sys.argv[2])
values = struct.pack("<10000d", *range(10000))
seq = 1
while True:
    peer.send_multipart([b'{"columns":1,"series":"flood","producer":"%s","seq":%d,"time0":%d,"step":1e-6}'
                         % (sys.argv[3].encode(), seq, 1e9 + seq), values])
    seq += 10000
    print(seq, flush=True)
"""


def memory(pid: int, field: str = "VmRSS") -> int:
    """Bytes."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert match
    return int(match[1]) << 10


@pytest.mark.slow
def test_fault_15_ten_times_the_load_is_borne_in_bounded_memory_and_credit_slows_the_producers(tmp_path: Path) -> None:
    """Under a limit of address space, with a journal: a producer that keeps to its window loses nothing, others are
    forecast meanwhile, and of those who do not wait one is held back by full queues and one, on the socket that others
    use, refused. What they left behind holds up nobody."""
    with Daemon(tmp_path) as daemon, ExitStack() as stack:
        engine = daemon.children()["engine"]
        subscriber, dealer = daemon.listen("other"), daemon.peer(zmq.DEALER, "ingest router")
        limit = memory(engine, "VmSize") + (600 << 20)
        resource.prlimit(engine, resource.RLIMIT_AS, (limit, limit))
        floods = []
        for kind, where in ((zmq.DEALER, "ingest router"), (zmq.PUSH, "ingest pull")):
            command = [sys.executable, "-c", FLOOD, str(int(kind)), daemon.address[where], where]
            floods.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(floods[-1].stdout.close)  # type: ignore[union-attr]
            stack.callback(floods[-1].wait)
            stack.callback(floods[-1].kill)
        producer = stack.enter_context(Producer(daemon.address["ingest router"], name="credit", window=2_000))
        began, sent, largest, forecasts = time.monotonic(), 0, 0, 0
        refused = 'forecastd_samples_refused_total{reason="overload"}'
        while time.monotonic() - began < 8 or not daemon.metric(refused):
            for _ in range(50):
                # A row of its own for each, so that what it is slowed by is the flood.
                producer.send(f"credit-{sent % 100}", float(sent))
                sent += 1
            dealer.send_multipart([b"other", b"%d" % sent])
            assert forecast(subscriber)["value"] == sent
            forecasts += 1
            largest = max(largest, memory(engine))
        offered = [max(map(int, _lines(flood)), default=0) for flood in floods]
        taken = daemon.metric("forecastd_samples_total")
        print(
            f"\noffered {sum(offered)}, taken {taken:.0f}, {forecasts} forecasts of another series, {largest >> 20} MiB"
        )
        assert sum(offered) + sent > 5 * taken, "it is more than it can take"
        assert producer.flush(60)
        assert producer.stats().acked == sent
        assert daemon.children()["engine"] == engine and daemon.fetch("/readyz")
        assert largest < 700 << 20
        assert "Traceback" not in daemon.log()


def _lines(flood: subprocess.Popen[str]) -> list[str]:
    flood.kill()
    assert flood.stdout
    return flood.stdout.read().split()


class Poor(Daemon):
    """A daemon whose processes may have 80 descriptors each."""

    wrapper = ("prlimit", "--nofile=80:80")


def test_fault_28_without_descriptors_newcomers_are_refused_and_those_inside_go_on(tmp_path: Path) -> None:
    """Three hundred connections to each port; the journal goes on, and when they are gone there is room again."""
    with Poor(tmp_path) as daemon:
        pids = daemon.children()
        subscriber, dealer = daemon.listen("inside"), daemon.peer(zmq.DEALER, "ingest router")
        with ExitStack() as held:
            for where in ("ingest router", "publish", "web"):
                host, _, port = daemon.address[where].rpartition("//")[2].partition(":")
                for _ in range(300):
                    held.enter_context(socket.create_connection((host, int(port)), timeout=20))
            for n in range(1, 201):
                dealer.send_json({"series": "inside", "value": n, "seq": n, "producer": "p"})
                assert forecast(subscriber)["value"] == n
            acked = 0
            while acked < 200:
                acked = max(acked, dealer.recv_json().get("ack", 0))
        late = daemon.peer(zmq.DEALER, "ingest router")
        late.send_json({"series": "late", "value": 1, "seq": 1, "producer": "late"})
        assert late.poll(30_000) and late.recv_json() == {"ack": 1}
        until(lambda: _ready(daemon))
        assert daemon.metric("forecastd_connections_refused_total") > 0
        assert daemon.children() == pids
        assert "leaves room for" in daemon.log()


def _ready(daemon: Daemon) -> bool:
    try:
        return bool(daemon.fetch("/readyz"))
    except OSError:
        return False
