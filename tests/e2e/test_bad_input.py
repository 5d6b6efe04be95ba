"""Bad input against a running daemon: each kind has its counter, none stops anything, and the next good sample is
forecast."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from ..patience import until
from .daemon import Daemon, forecast

SERIES_MAX = 50


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all: it has to survive each of them, and what came before."""
    with Daemon(tmp_path_factory.mktemp("daemon"), "--ephemeral", "--limits-series", str(SERIES_MAX)) as running:
        engine = running.children()["engine"]
        # Before the names run out.
        for series in ("good", "after"):
            running.listen(series).close(0)
        yield running
        assert running.children()["engine"] == engine, "the engine was restarted"
        assert "Traceback" not in running.log()
        assert running.metric('forecastd_restarts_total{process="web"}') == 0


def refused(daemon: Daemon, reason: str) -> float:
    return daemon.metric(f'forecastd_samples_refused_total{{reason="{reason}"}}')


def lives(daemon: Daemon) -> None:
    """The next good sample is forecast."""
    subscriber, dealer = daemon.listen("good"), daemon.peer(zmq.DEALER, "ingest router")
    value = random.random()
    dealer.send_json({"series": "good", "value": value})
    assert subscriber.poll(20_000)
    assert forecast(subscriber)["value"] == value
    subscriber.close(0)
    dealer.close(0)


def sample(**fields: object) -> list[bytes]:
    return [json.dumps({"series": "bad", "value": 1.0, **fields}).encode()]


NOW = time.time()
CASES: dict[str, tuple[str, list[list[bytes]]]] = {
    "not JSON": ("malformed", [[b"boiler 71.3"]]),
    "half of it": ("malformed", [[b'{"series":"a","value":']]),
    "nothing": ("malformed", [[b""]]),
    "no series": ("malformed", [[b'{"value":1}']]),
    "a number as text": ("malformed", [[b'{"series":"a","value":"1"}']]),
    "a seq that is none": ("malformed", [sample(seq="one")]),
    "a hundred thousand brackets": ("malformed", [[b"[" * 100_000 + b"]" * 100_000]]),
    "brackets in a field": ("malformed", [[b'{"series":"a","value":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]]),
    "bytes that are no text": ("malformed", [[b'{"series":"\xff\xfe","value":1}']]),
    "a lone surrogate": ("malformed", [[b'{"series":"\\udc80","value":1}']]),
    "a number of a million digits": ("malformed", [[b"a", b"1" * 1_000_000]]),
    "a topic without a number": ("malformed", [[b"a", b"hot"]]),
    "columns without a header": ("malformed", [[b"{}", struct.pack("<d", 1)]]),
    "columns that do not fit": ("malformed", [[b'{"columns":1,"series":["a","b"]}', struct.pack("<3d", 1, 2, 3)]]),
    "columns of half a number": ("malformed", [[b'{"columns":1,"series":["a"]}', b"1234"]]),
    "NaN in JSON": ("nonfinite", [[b'{"series":"bad","value":NaN}']]),
    "Infinity in JSON": ("nonfinite", [[b'{"series":"bad","value":-Infinity}']]),
    "1e400": ("nonfinite", [[b'{"series":"bad","value":1e400}']]),
    "an integer of 400 digits": ("nonfinite", [[b'{"series":"bad","value":1' + b"0" * 400 + b"}"]]),
    "null": ("nonfinite", [[b'{"series":"bad","value":null}']]),
    "nan as text": ("nonfinite", [[b"bad", b"nan"]]),
    "inf in columns": ("nonfinite", [[b'{"columns":1,"series":["bad"]}', struct.pack("<d", float("inf"))]]),
    "beyond single precision": ("nonfinite", [sample(value=1e39)]),
    "a time that never was": ("nonfinite", [[b'{"series":"bad","value":1,"time":-Infinity}']]),
    "a topic that is no text": ("name", [[b"\xff\xfe", b"1"]]),
    "no name": ("name", [sample(series="")]),
    "a name of a megabyte": ("name", [sample(series="x" * 1_000_000)]),
    "a name with a line end": ("name", [sample(series="a\nb")]),
    "a name with a zero byte": ("name", [[b"a\0b", b"1"]]),
    "the same time twice": ("duplicate", [sample(series="twice", time=NOW), sample(series="twice", time=NOW)]),
    "a time that is past": ("late", [sample(series="late", time=NOW), sample(series="late", time=NOW - 10)]),
    "a time next year": ("future", [sample(time=NOW + 3e7)]),
    "a time beyond all": ("future", [sample(time=1e300)]),
    "one frame too large": ("oversize", [[b" " * ((1 << 20) + 1)]]),
    "a hundred frames": ("oversize", [[b"x"] * 100]),
    "130 MB in 2,000 frames": ("oversize", [[b"x" * 65_000] * 2_000]),
}


@pytest.mark.parametrize("case", CASES)
def test_16_bad_samples_are_counted_by_name_and_nothing_stops(daemon: Daemon, case: str) -> None:
    """On ROUTER and on PULL; the connections live, too."""
    reason, messages = CASES[case]
    before = refused(daemon, reason)
    peers = [daemon.peer(zmq.DEALER, "ingest router"), daemon.peer(zmq.PUSH, "ingest pull")]
    for peer in peers:
        for frames in messages:
            peer.send_multipart(frames)
    until(lambda: refused(daemon, reason) >= before + 2, f"{case} was not counted as {reason} twice")
    subscriber = daemon.listen("after")
    for peer, value in zip(peers, (5, 6), strict=True):
        peer.send_multipart([b"after", b"%d" % value])
        assert forecast(subscriber)["value"] == value
    for peer in (*peers, subscriber):
        peer.close(0)


def test_a_number_that_was_seen_is_counted_as_a_duplicate(daemon: Daemon) -> None:
    """And answered with where the daemon is."""
    dealer = daemon.peer(zmq.DEALER, "ingest router")
    before = refused(daemon, "duplicate")
    for _ in range(2):
        dealer.send_json({"series": "numbered", "value": 1, "seq": 1, "producer": "p"})
        assert dealer.recv_json() == {"ack": 1}
    until(lambda: refused(daemon, "duplicate") > before)


def test_a_refused_number_is_told_and_does_not_hold_up_the_next(daemon: Daemon) -> None:
    """Malformed by the wire, nonfinite by the pipeline."""
    dealer = daemon.peer(zmq.DEALER, "ingest router")
    for frame in (
        b'{"series":"a","value":1,"seq":1,"producer":"q"}',
        b'{"series":"a","value":{},"seq":2,"producer":"q"}',
        b'{"series":"a","value":NaN,"seq":3,"producer":"q"}',
        b'{"series":"a","value":4,"seq":4,"producer":"q"}',
    ):
        dealer.send(frame)
    said = []
    while {"ack": 4} not in said:
        said.append(dealer.recv_json())
    assert {"refused": "malformed", "seq": 2} in said
    assert {"refused": "nonfinite", "seq": 3} in said


def test_18_names_beyond_the_limit_are_counted_and_known_ones_go_on(daemon: Daemon) -> None:
    """Ten thousand of them, in arrays."""
    dealer = daemon.peer(zmq.DEALER, "ingest router")
    before = refused(daemon, "too_many_series")
    for start in range(0, 10_000, 1000):
        dealer.send_json([{"series": f"name {n}", "value": n} for n in range(start, start + 1000)])
    until(lambda: refused(daemon, "too_many_series") >= before + 10_000 - SERIES_MAX)
    assert daemon.metric("forecastd_series") == SERIES_MAX
    lives(daemon)


@pytest.mark.parametrize("where", ["ingest router", "ingest pull", "ingest sub", "publish", "web"])
def test_16_random_bytes_to_every_socket_stop_nothing(daemon: Daemon, where: str) -> None:
    """Twenty connections of noise, long and short; on ingest sockets they are counted as malformed."""
    noise = random.Random(where)
    host, _, port = daemon.address[where].rpartition("//")[2].partition(":")
    before = refused(daemon, "malformed")
    for size in [1, 10, 64, 100, 1000, 100_000] * 4:
        with socket.create_connection((host, int(port)), timeout=10) as connection, suppress(OSError):
            connection.sendall(noise.randbytes(size))
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
    if where.startswith("ingest"):
        until(lambda: refused(daemon, "malformed") >= before + 20)
    lives(daemon)
    assert daemon.fetch("/healthz")


def test_17_a_frame_beyond_all_bounds_ends_its_connection_alone(daemon: Daemon) -> None:
    """20 MB in one frame: ZeroMQ cuts the line, before it is in memory."""
    peer = daemon.peer(zmq.DEALER, "ingest router")
    resident = _resident(daemon)
    events = peer.get_monitor_socket(zmq.Event.DISCONNECTED)
    try:
        peer.send(b"x" * 20_000_000)
        assert events.poll(20_000)
    finally:
        peer.disable_monitor()
        events.close(0)
        peer.close(0)
    lives(daemon)
    assert _resident(daemon) < resident + 20_000


def test_noise_on_established_connections_stops_nothing(daemon: Daemon) -> None:
    """Two thousand messages of one to five frames of noise, and what looks nearly right."""
    noise = random.Random(7)
    dealer = daemon.peer(zmq.DEALER, "ingest router")
    good = b'[{"series":"good","value":1,"seq":3,"time":1.0},{"series":"good","value":NaN}]'
    for _ in range(2000):
        if noise.random() < 0.5:
            frames = [noise.randbytes(noise.randrange(100)) for _ in range(noise.randrange(1, 6))]
        else:
            mangled = bytearray(good)
            for _ in range(noise.randrange(1, 4)):
                mangled[noise.randrange(len(mangled))] = noise.randrange(256)
            frames = [bytes(mangled)]
        dealer.send_multipart(frames)
    lives(daemon)


def _resident(daemon: Daemon) -> int:
    """Kilobytes of the engine."""
    lines = Path(f"/proc/{daemon.children()['engine']}/status").read_text().splitlines()
    fields = (line.split() for line in lines)
    return next(int(words[1]) for words in fields if words[0] == "VmRSS:")


def test_what_was_let_in_is_forgotten(daemon: Daemon) -> None:
    """After all of the above the engine is no larger than it may be at the start."""
    lives(daemon)
    assert _resident(daemon) < 400_000
