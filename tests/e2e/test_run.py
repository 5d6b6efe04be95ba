"""`forecastd run` from outside: what it prints, serves and imports, how it comes back, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from ..patience import until
from .daemon import Daemon, forecast, gone

PROTOCOL = (Path(__file__).resolve().parent.parent.parent / "docs" / "protocol.md").read_text()
DEFAULT = {"ingest router": "tcp://127.0.0.1:5555", "publish": "tcp://127.0.0.1:5556"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all that do it no harm."""
    with Daemon(tmp_path_factory.mktemp("daemon"), "--ephemeral") as running:
        yield running


def test_it_prints_each_socket_with_the_address_really_bound(daemon: Daemon) -> None:
    """In the words of the contract; `ready` came last."""
    assert list(daemon.address) == ["ingest router", "ingest pull", "ingest sub", "publish", "web"]
    for what, address in daemon.address.items():
        assert re.fullmatch(("http" if what == "web" else "tcp") + r"://127\.0\.0\.1:[1-9]\d+", address)


def test_a_signal_is_forecast(daemon: Daemon) -> None:
    """A wave goes in, and after the first full window its forecasts come out, better than nothing and inside an
    interval."""
    subscriber, dealer = daemon.listen("wave"), daemon.peer(zmq.DEALER, "ingest router")
    for n in range(60):
        dealer.send_json({"series": "wave", "value": n % 7, "time": 1e9 + n})
        said = forecast(subscriber)
        assert said["value"] == n % 7
    assert said["status"] == "ready"
    assert {"naive", "rnn", "ar"} <= set(said["experts"])
    assert said["lower"][0] < said["mean"][0] < said["upper"][0]
    assert sum(said["weights"].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("kind", "where"), [(zmq.DEALER, "ingest router"), (zmq.PUSH, "ingest pull"), (zmq.PUB, "ingest sub")]
)
def test_samples_are_taken_on_every_kind_of_socket(daemon: Daemon, kind: int, where: str) -> None:
    """The same message, three ways in."""
    subscriber, peer = daemon.listen(where), daemon.peer(kind, where)
    until(lambda: (peer.send_json({"series": where, "value": 5}), subscriber.poll(100))[1])
    assert forecast(subscriber)["value"] == 5


def test_what_it_did_is_on_its_page(daemon: Daemon) -> None:
    """Samples, forecasts, the time they took, and the processes."""
    dealer = daemon.peer(zmq.DEALER, "ingest router")
    before = daemon.metric("forecastd_samples_total")
    for n in range(20):
        dealer.send_json({"series": "counted", "value": n})
    until(lambda: daemon.metric("forecastd_samples_total") >= before + 20)
    assert daemon.metric('forecastd_process_up{process="engine"}') == 1
    until(lambda: daemon.metric("forecastd_forecast_duration_seconds_count") >= 20)
    assert daemon.fetch("/healthz")
    assert daemon.fetch("/readyz")


def test_no_process_has_tensorflow_in_it_and_the_engine_is_small(daemon: Daemon) -> None:
    """Of what is mapped into the running processes; less than 120 MB resident."""
    for name, pid in daemon.children().items():
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "tensorflow" not in maps, name
        assert "libzmq" in maps or "_zmq" in maps, "the maps are those of a process that works"
    status = Path(f"/proc/{daemon.children()['engine']}/status").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert resident and int(resident[1]) < 120_000


# ---- the page on the protocol


def snippet(language: str, containing: str) -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", PROTOCOL, re.S)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def run(daemon: Daemon, command: list[str], code: str) -> subprocess.CompletedProcess[str]:
    for what, address in DEFAULT.items():
        code = code.replace(address, daemon.address[what])
        code = code.replace(
            address.removeprefix("tcp://").replace(":", "/"),
            daemon.address[what].removeprefix("tcp://").replace(":", "/"),
        )
    return subprocess.run([*command, code], capture_output=True, text=True, timeout=60, check=True)


def test_the_producer_on_the_page_is_acknowledged(daemon: Daemon) -> None:
    """Five lines without forecastd."""
    code = snippet("python", "recv_json").rstrip()
    assert len([line for line in code.splitlines() if line]) == 5
    assert run(daemon, [sys.executable, "-c"], code).stdout == "{'ack': 1}\n"


def test_the_subscriber_on_the_page_gets_a_forecast(daemon: Daemon) -> None:
    """It waits for one of `boiler`."""
    done = threading.Event()
    dealer = daemon.peer(zmq.DEALER, "ingest router")

    def feed() -> None:
        while not done.wait(0.05):
            dealer.send_multipart([b"boiler", b"71.3"])

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        said = run(daemon, [sys.executable, "-c"], snippet("python", "zmq.SUB")).stdout
    finally:
        done.set()
        feeding.join()
    topic, _, message = said.partition(" ")
    assert (topic, json.loads(message)["series"]) == ("boiler", "boiler")


def test_the_shell_on_the_page_sends_a_sample(daemon: Daemon) -> None:
    """With nothing but bash, and it reads the reply."""
    subscriber = daemon.listen("boiler")
    assert run(daemon, ["bash", "-c"], snippet("bash", "/dev/tcp")).stdout == '{"ack":1}'
    said = forecast(subscriber)
    assert (said["series"], said["value"]) == ("boiler", 71.3)


def test_the_columns_on_the_page_are_a_thousand_series(daemon: Daemon) -> None:
    """In one message."""
    subscriber = daemon.listen("sensor.")
    run(daemon, [sys.executable, "-c"], snippet("python", "numpy") + "time.sleep(0.5)\n")
    names = {forecast(subscriber)["series"] for _ in range(1000)}
    assert len(names) == 1000


# ---- coming back


def test_an_engine_that_is_killed_is_back_where_it_was(tmp_path: Path) -> None:
    """Same ports, so that producers and subscribers find it again without being told; the page counts it."""
    with Daemon(tmp_path, "--ephemeral") as daemon:
        subscriber = daemon.listen("a")
        engine = daemon.children()["engine"]
        os.kill(engine, signal.SIGKILL)
        until(lambda: daemon.children().get("engine", engine) != engine)
        dealer = daemon.peer(zmq.DEALER, "ingest router")
        until(lambda: (dealer.send_multipart([b"a", b"7"]), subscriber.poll(100))[1])
        assert forecast(subscriber)["value"] == 7
        until(lambda: daemon.metric('forecastd_restarts_total{process="engine"}') == 1)
        assert daemon.end(signal.SIGTERM) == 0


def test_an_engine_that_hangs_is_replaced(tmp_path: Path) -> None:
    """The web process does not notice but for the count."""
    with Daemon(tmp_path, "--ephemeral") as daemon:
        before = daemon.children()
        os.kill(before["engine"], signal.SIGSTOP)
        until(lambda: daemon.children().get("engine", before["engine"]) != before["engine"])
        assert daemon.children()["web"] == before["web"]
        assert "engine hangs: killed" in daemon.log()


# ---- the end


def test_a_signal_under_load_ends_it_with_status_0(tmp_path: Path) -> None:
    """It drains and goes, while producers go on sending."""
    with Daemon(tmp_path, "--ephemeral") as daemon:
        push = daemon.peer(zmq.PUSH, "ingest pull")
        push.sndtimeo = 100
        done = threading.Event()

        def load() -> None:
            while not done.is_set():
                try:
                    push.send(b'[{"series":"a","value":1},{"series":"b","value":2}]')
                except zmq.Again:
                    continue

        loading = threading.Thread(target=load)
        loading.start()
        try:
            until(lambda: daemon.metric("forecastd_samples_total") > 1000)
            pids = daemon.children()
            began = time.monotonic()
            assert daemon.end(signal.SIGTERM) == 0
            assert time.monotonic() - began < 8
        finally:
            done.set()
            loading.join()
        assert all(gone(pid) for pid in pids.values())
        assert "Traceback" not in daemon.log()


def test_what_was_acknowledged_before_the_end_came_from_the_last_message(tmp_path: Path) -> None:
    """A producer that stops sending and then stops the daemon has all acknowledged."""
    with Daemon(tmp_path) as daemon:
        dealer = daemon.peer(zmq.DEALER, "ingest router")
        for n in range(1, 2001):
            dealer.send_json({"series": f"s{n % 10}", "value": n, "seq": n})
        ack = 0
        while ack < 2000:
            ack = max(ack, dealer.recv_json().get("ack", 0))
        assert daemon.end(signal.SIGTERM) == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """An engine that does not drain does not hold it up."""
    with Daemon(tmp_path, "--ephemeral") as daemon:
        pids = daemon.children()
        os.kill(pids["engine"], signal.SIGSTOP)
        daemon.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            daemon.process.wait(0.5)
        began = time.monotonic()
        assert daemon.end(signal.SIGTERM) == 1
        assert time.monotonic() - began < 3
        assert all(gone(pid) for pid in pids.values())


def test_nothing_outlives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    """Engine and web process notice, and end by themselves."""
    with Daemon(tmp_path, "--ephemeral") as daemon:
        pids = daemon.children()
        assert set(pids) == {"engine", "web"}
        assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
        until(lambda: all(gone(pid) for pid in pids.values()))


# ---- not starting


def said_by_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forecastd", "run", "--ephemeral", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("setting", ["--ingest", "--publish", "--web"])
def test_24_a_port_that_is_taken_is_one_line_and_status_3(setting: str) -> None:
    """It names the endpoint and who holds it."""
    free = {"--ingest": "tcp://127.0.0.1:0", "--publish": "tcp://127.0.0.1:0", "--web": "127.0.0.1:0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        free[setting] = place if setting == "--web" else f"tcp://{place}"
        said = said_by_run(*[part for pair in free.items() for part in pair])
    assert (said.returncode, said.stdout) == (3, "")
    assert said.stderr.count("\n") == 1
    assert f"{place}: taken by " in said.stderr
    assert f"(pid {os.getpid()})" in said.stderr


def test_an_address_this_machine_does_not_have_is_one_line_and_status_3() -> None:
    """TEST-NET-1 is nobody's."""
    said = said_by_run("--insecure", "--publish", "tcp://192.0.2.1:5556", "--ingest", "tcp://127.0.0.1:0", "--web", "")
    assert said.returncode == 3
    assert said.stderr.count("\n") == 1
    assert "tcp://192.0.2.1:5556" in said.stderr


def test_a_model_that_there_is_not_is_one_line_and_status_2() -> None:
    """It names those there are."""
    said = said_by_run(
        "--model", "nosuch", "--ingest", "tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0", "--web", ""
    )
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "general" in said.stderr
