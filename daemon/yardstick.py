"""What the daemon is measured against on the wire: a bare echo through the same kinds of sockets, and clients that
time both alike.

Used by `forecastd bench` alone. `python -m forecastd.daemon.yardstick` is the echo: it binds two free ports, prints
them, and publishes what it receives until its standard input ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import zmq

PATIENCE_S = 20.0


def echo() -> None:
    """ROUTER in, XPUB out, nothing between."""
    context = zmq.Context()
    router, xpub = context.socket(zmq.ROUTER), context.socket(zmq.XPUB)
    ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in (router, xpub)]
    print(*(f"tcp://127.0.0.1:{port}" for port in ports), flush=True)
    poller = zmq.Poller()
    for watched in (router, xpub, sys.stdin.fileno()):
        poller.register(watched, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 1):
            context.destroy(linger=0)
            return
        if xpub in ready:
            xpub.recv()
        if router in ready:
            _, message = router.recv_multipart()
            xpub.send_multipart([b"bench", message])


class RoundTrip:
    """One series, one sample at a time: sent, and the time until its forecast has come."""

    def __init__(self, ingest: str, publish: str) -> None:
        self._context = zmq.Context()
        self._out, self._in = self._context.socket(zmq.DEALER), self._context.socket(zmq.SUB)
        self._in.subscribe(b"bench")
        self._in.rcvtimeo = int(PATIENCE_S * 1000)
        self._out.connect(ingest)
        self._in.connect(publish)
        self._number = 0
        self._meet()

    def _meet(self) -> None:
        """Until the subscription has arrived forecasts are not sent: ask until one comes, and let the others come in
        too."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self._send()
            if self._in.poll(100):
                while self._in.poll(200):
                    self._in.recv_multipart()
                return
        raise TimeoutError("no forecast came back")

    def _send(self) -> None:
        self._number += 1
        value = (self._number * 7919 % 1000) / 1000.0
        self._out.send(b'{"series":"bench","value":%f}' % value)

    def measure(self, count: int, pause_s: float) -> list[float]:
        """Seconds of `count` round trips, with a pause before each so that both sides are idle."""
        taken = []
        for _ in range(count):
            time.sleep(pause_s)
            began = time.perf_counter()
            self._send()
            self._in.recv_multipart()
            taken.append(time.perf_counter() - began)
        return taken

    def close(self) -> None:
        """End both sockets."""
        self._context.destroy(linger=0)


def flood(ingest: str, publish: str, payloads: Sequence[Sequence[Any]], last: str, rounds: int) -> float:
    """Seconds from sending the first of `rounds` rounds to the forecast that the last of them calls for.

    A round is all of `payloads`, each a list of frames, on a PUSH socket; the last sample of the last one is of the
    series `last`. Twelve rounds before are not timed: they make the series known and warm."""
    context = zmq.Context()
    push, feed = context.socket(zmq.PUSH), context.socket(zmq.SUB)
    sent = 0

    def pour() -> None:
        nonlocal sent
        sent += 1
        for frames in payloads:
            push.send_multipart(frames)

    def settled() -> bool:
        """Whether the forecast of the newest round has come, waiting a little for it."""
        while feed.poll(200):
            if msgspec.json.decode(feed.recv_multipart()[1])["seq"] == sent:
                return True
        return False

    def settle() -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not settled():
            if time.monotonic() > deadline:
                raise TimeoutError("no forecast came back")

    try:
        feed.subscribe(last.encode())
        feed.connect(publish)
        push.connect(ingest)
        deadline = time.monotonic() + PATIENCE_S
        pour()
        while not settled() and time.monotonic() < deadline:
            pour()
        for _ in range(12):
            pour()
        settle()
        began = time.perf_counter()
        for _ in range(rounds):
            pour()
        settle()
        return time.perf_counter() - began
    finally:
        context.destroy(linger=0)


if __name__ == "__main__":
    echo()
