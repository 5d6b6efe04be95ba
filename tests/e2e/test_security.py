"""A daemon that asks for keys, from outside: who gets in, what is said to whom, and what a reload changes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import zmq

from forecastd import AsyncProducer, BadKey, Producer

from ..keyring import Keyring
from ..patience import until
from .daemon import Daemon


class Place(NamedTuple):
    """A daemon, the keys around it, and the file of its clients."""

    daemon: Daemon
    keys: Keyring
    clients: Path

    def producer(self, whose: str, **options: object) -> Producer:
        to, server = self.daemon.address["ingest router"], self.keys.public("daemon")
        return Producer(to, key=self.keys.path(whose), server_key=server, **options)  # type: ignore[arg-type]

    def stranger(self, kind: int, where: str, name: str = "") -> zmq.SyncSocket:
        """A peer with keys that the daemon may not know, or none."""
        peer = self.daemon.context.socket(kind)
        self.daemon._peers.append(peer)
        peer.linger = 0
        if name:
            self.keys.on(peer, name)
        peer.connect(self.daemon.address[where])
        return peer

    def failed(self) -> float:
        reasons = ("protocol", "unauthorised", "incomplete")
        return sum(self.daemon.metric(f'forecastd_handshakes_failed_total{{reason="{why}"}}') for why in reasons)


def place(folder: Path, *arguments: str) -> Place:
    keys = Keyring(folder)
    entries = [keys.entry("plc", "boiler*"), keys.entry("desk", watch=True), keys.entry("lab", "*", watch=True)]
    clients = keys.write(*entries)
    daemon = Daemon(folder, "--ephemeral", "--key", keys.path("daemon"), "--clients", clients, *arguments)
    return Place(daemon, keys, Path(clients))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all that do it no harm."""
    found = place(tmp_path_factory.mktemp("place"))
    with found.daemon:
        yield found
        assert "Traceback" not in found.daemon.log()


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FORECASTD_")}
    return subprocess.run(
        [sys.executable, "-m", "forecastd", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **environment},
    )


def test_a_producer_with_a_key_is_acknowledged_in_its_own_name(here: Place) -> None:
    """Without saying who it is: the key says it."""
    with here.producer("plc") as producer:
        assert producer.name == "plc"
        for n in range(50):
            producer.send("boiler", n)
        assert producer.flush(20)
        producer.send("valve", 1.0)
        assert producer.flush(20)
        assert producer.stats().refused == {"unauthorised": 1}
    until(lambda: here.daemon.metric('forecastd_samples_refused_total{reason="unauthorised"}') >= 1)


def test_so_is_one_on_asyncio(here: Place) -> None:
    async def main() -> bool:
        to, server = here.daemon.address["ingest router"], here.keys.public("daemon")
        async with AsyncProducer(to, key=here.keys.path("lab"), server_key=server) as producer:
            await producer.send("valve", 1.0)
            return await producer.flush(20)

    assert asyncio.run(main())


def test_fault_13_a_producer_of_anothers_name_is_told(here: Place) -> None:
    """It gets no acknowledgement, and knows why; the other one's numbers go on where they were."""
    liar = here.producer("lab", name="plc", epoch=2**62, resend_after=0.05)
    try:
        liar.send("boiler", 666.0)
        until(lambda: liar.stats().refused.get("unauthorised"))
        assert liar.stats().acked == 0
    finally:
        liar.close(0.0)
    with here.producer("plc") as producer:
        producer.send("boiler", 1.0)
        assert producer.flush(20)
        assert (producer.stats().acked, producer.stats().refused) == (1, {}), "no epoch was begun in its name"


@pytest.mark.parametrize(("kind", "where"), [(zmq.DEALER, "ingest router"), (zmq.SUB, "publish")])
@pytest.mark.parametrize("name", ["", "nobody", "daemon-of-others"])
def test_fault_25_a_stranger_is_refused_and_counted(here: Place, kind: int, where: str, name: str) -> None:
    """Without a key, with one nobody knows; and the daemon is ready throughout."""
    before = here.failed()
    peer = here.stranger(kind, where, name)
    if kind == zmq.SUB:
        peer.subscribe("")
    else:
        peer.send(b'{"series":"intruder","value":1}')
    until(lambda: here.failed() > before)
    assert "intruder" not in here.daemon.fetch("/api/v1/series")
    assert here.daemon.fetch("/readyz")
    peer.close(0)


def test_fault_25_the_log_is_not_flooded(here: Place) -> None:
    """A line every ten seconds, however many knock."""
    before, lines = here.failed(), here.daemon.log().count("handshakes failed so far")
    peers = [here.stranger(zmq.DEALER, "ingest router", "nobody") for _ in range(50)]
    until(lambda: here.failed() >= before + 50)
    assert here.daemon.log().count("handshakes failed so far") <= lines + 2
    for peer in peers:
        peer.close(0)


def test_produce_and_watch_take_their_keys_from_options_or_the_environment(here: Place) -> None:
    """What one sends, the other sees; the page sees it with the daemon's own key."""
    ingest, publish = here.daemon.address["ingest router"], here.daemon.address["publish"]
    server = here.keys.path("daemon").replace(".key", ".pub")
    Path(server).write_text(f'name = "daemon"\npublic = "{here.keys.public("daemon")}"\n')
    watching = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "forecastd",
            "watch",
            "boiler",
            "--json",
            "--count",
            "1",
            "--for",
            "60",
            "--from",
            publish,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FORECASTD_KEY": here.keys.path("desk"), "FORECASTD_SERVER_KEY": server},
    )
    try:
        said = command(
            *("produce", "sine", "--series", "boiler", "--rate", "50", "--for", "3", "--to", ingest),
            *("--key", here.keys.path("plc"), "--server-key", here.keys.public("daemon")),
        )
        assert (said.returncode, said.stderr) == (0, "")
        out, _ = watching.communicate(timeout=60)
    finally:
        watching.kill()
        watching.wait()
    assert json.loads(out)["series"] == "boiler"
    assert json.loads(here.daemon.fetch("/api/v1/series/boiler"))


def test_who_is_not_let_in_is_told_so_by_his_own_command(here: Place) -> None:
    """In one line, with what to look at."""
    ingest, publish = here.daemon.address["ingest router"], here.daemon.address["publish"]
    here.keys.path("nobody")
    keyed = ("--key", here.keys.path("nobody"), "--server-key", here.keys.public("daemon"))
    said = command("produce", "sine", "--count", "3", "--rate", "0", "--to", ingest, *keyed)
    assert said.returncode == 1
    assert "did not let us in: is --key among its clients" in said.stderr.splitlines()[-1]
    said = command("watch", "--json", "--for", "4", "--from", publish, *keyed)
    assert "did not let us in: is --key among the daemon's clients" in said.stderr


# ---- keys that are none


def test_a_secret_that_others_can_read_is_refused_by_all(here: Place, tmp_path: Path) -> None:
    """By the daemon (status 2), by the commands, by the class: one line, with the chmod."""
    keys = Keyring(tmp_path)
    path, clients = keys.path("plc"), keys.write(keys.entry("plc", "*"))
    Path(path).chmod(0o644)
    line = f"{path} can be read by others: chmod 600 {path}"
    free = ("--ingest", "tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0", "--web", "")
    said = command("run", "--ephemeral", *free, "--key", path, "--clients", clients)
    assert (said.returncode, said.stdout, said.stderr) == (2, "", f"Error: {line}\n")
    keyed = ("--key", path, "--server-key", keys.public("plc"))
    for arguments in (("produce", "sine", "--count", "1"), ("watch", "--for", "1")):
        said = command(*arguments, *keyed)
        assert (said.returncode, said.stderr) == (2, f"Error: {line}\n")
    with pytest.raises(BadKey, match="chmod 600"):
        Producer(here.daemon.address["ingest router"], key=path, server_key=keys.public("plc"))


def test_a_key_without_clients_is_one_line(tmp_path: Path) -> None:
    """Nobody could ever be let in."""
    said = command("run", "--ephemeral", "--key", Keyring(tmp_path).path("daemon"))
    assert said.returncode == 2
    assert "clients: it is missing" in said.stderr


# ---- reload


def test_fault_29_a_reload_takes_over_new_clients_and_not_a_broken_list(tmp_path: Path) -> None:
    """A key more, then nonsense, then a key less; the metric says how the last one went."""
    found = place(tmp_path)
    good = found.clients.read_text()
    entries = [found.keys.entry("plc", "boiler*"), found.keys.entry("new", "*")]

    def reload() -> None:
        found.daemon.process.send_signal(signal.SIGHUP)

    def successful() -> float:
        return found.daemon.metric("forecastd_config_last_reload_successful")

    with found.daemon:
        until(lambda: successful() == 1)
        found.keys.write(*entries)
        reload()
        with found.producer("new") as producer:
            producer.send("valve", 1.0)
            assert producer.flush(20)
        found.clients.write_text(found.clients.read_text() + "[[client]]\nnonsense")
        reload()
        until(lambda: successful() == 0)
        assert "not reloaded, and what was in force stays" in found.daemon.log()
        with found.producer("new") as producer:
            producer.send("valve", 2.0)
            assert producer.flush(20), "the list before is in force"
            found.clients.write_text(good)
            reload()
            until(lambda: successful() == 1)
            producer.send("valve", 3.0)
            until(lambda: found.daemon.metric('forecastd_samples_refused_total{reason="unauthorised"}') >= 1)
            producer.close(0.0)
        engine = found.daemon.children()["engine"]
        os.kill(engine, signal.SIGKILL)
        with found.producer("plc") as producer:
            producer.send("boiler", 1.0)
            assert producer.flush(20), "a new engine has the clients, too"
        assert found.daemon.end(signal.SIGTERM) == 0


def test_fault_29_a_broken_configuration_changes_nothing(tmp_path: Path) -> None:
    """Its live settings are taken over when it is mended; of the others the log says that they wait."""
    file = tmp_path / "forecastd.toml"
    file.write_text("[limits]\nframe_bytes = 2000\n")
    with Daemon(tmp_path, "--ephemeral", "--config", str(file)) as daemon:
        dealer = daemon.peer(zmq.DEALER, "ingest router")

        def oversize() -> float:
            return daemon.metric('forecastd_samples_refused_total{reason="oversize"}')

        def large() -> None:
            dealer.send(b'{"series":"large","value":1}' + b" " * 5000)

        large()
        until(lambda: oversize() == 1)
        file.write_text("[limits]\nframe_bytes = 'many'\n")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.metric("forecastd_config_last_reload_successful") == 0)
        large()
        until(lambda: oversize() == 2)
        file.write_text("horizon = 3\n[limits]\nframe_bytes = 20000\n")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.metric("forecastd_config_last_reload_successful") == 1)
        until(lambda: "at the next start: horizon" in daemon.log())
        large()
        until(lambda: daemon.metric("forecastd_samples_total") == 1)
        assert oversize() == 2


# ---- the doorkeeper


@pytest.mark.slow
def readiness(daemon: Daemon) -> int:
    """The status of /readyz."""
    try:
        daemon.fetch("/readyz")
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_fault_26_an_engine_that_hangs_lets_nobody_in_and_is_replaced(tmp_path: Path) -> None:
    """It is not ready meanwhile; then a new one has the door."""
    found = place(tmp_path)
    with found.daemon as daemon:
        engine = daemon.children()["engine"]
        os.kill(engine, signal.SIGSTOP)
        with found.producer("plc") as producer:
            producer.send("boiler", 1.0)

            until(lambda: readiness(daemon) == 503)
            assert producer.stats().acked == 0
            assert producer.flush(30)
        assert daemon.children()["engine"] != engine
        until(lambda: readiness(daemon) == 200)
