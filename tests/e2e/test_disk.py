"""A running daemon whose disk fills up, and has room again."""

from __future__ import annotations

import json
import subprocess
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from forecastd.daemon.inventory import verify
from forecastd.daemon.store import Store
from forecastd.producers.client import Producer

from ..patience import until
from .daemon import Daemon

BALLAST = 3 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def unready(daemon: Daemon) -> str:
    """Why it is not ready; empty while it is."""
    try:
        daemon.fetch("/readyz")
    except urllib.error.HTTPError as answer:
        return str(json.loads(answer.read())["reason"])
    return ""


def test_fault_4_forecasts_go_on_and_acknowledgements_wait_for_room(tmp_path: Path, small_disk: Path) -> None:
    """What was sent meanwhile is acknowledged as soon as there is room, and there after a restart."""
    daemon = Daemon(tmp_path, "--state", str(small_disk / "state"))
    try:
        producer = Producer(daemon.address["ingest router"], name="sensor", window=100_000, resend_after=1.0)
        sent = 0

        def send(number: int) -> bool:
            nonlocal sent
            for _ in range(number):
                sent += 1
                producer.send(f"boiler-{sent % 5}", sent % 17)
            return True

        send(100)
        assert producer.flush(30)
        subscriber = daemon.listen("boiler-1")
        (small_disk / "ballast").write_bytes(bytes(BALLAST))
        until(lambda: send(50) and daemon.metric("forecastd_journal_full"), "the disk never got full", 60)
        until(lambda: unready(daemon), "it is ready on a full disk")
        told = producer.stats().acked
        while subscriber.poll(0):
            subscriber.recv_multipart()
        send(50)
        assert subscriber.poll(20_000), "forecasts wait for the disk"
        assert told < sent
        assert not producer.flush(1.0)
        (small_disk / "ballast").unlink()
        assert producer.flush(30)
        assert producer.stats().acked == sent
        until(lambda: not unready(daemon), "it is not ready on a disk with room")
        producer.close()
    finally:
        daemon.close()
    found = verify(Store.read(small_disk / "state"))
    assert found.ok, found.problems
    assert found.producers["sensor"].samples == sent
