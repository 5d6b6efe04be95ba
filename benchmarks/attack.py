"""What peers who mean ill cost the others: `python -m benchmarks.attack`.

A bystander sends a hundred samples a second and waits for their forecasts: alone, beside an attacker, and beside the
same attacker at the same rate who floods a process of no concern (the control). All share the machine, so what the
control costs is the price of its processor time; what the attack costs beyond that is the daemon's doing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
import numpy as np
import zmq

from .durability import launched
from .section import machine, table

#: Seconds between two samples of the bystander.
PAUSE_S = 0.01
#: What is told of each: alone, beside the control, beside the attack.
WAYS = ("calm", "control", "attack")


def _message(what: str, number: int) -> list[bytes]:
    """The `number`th message of an attack, as frames."""
    if what == "names":
        names = (f'{{"series":"bomb {number * 1_000 + n}","value":1,"producer":"bomber"}}' for n in range(1_000))
        return [b"[" + ",".join(names).encode() + b"]"]
    if what == "rounds":
        return [b'{"columns":1,"series":"long"}', np.arange(10_000.0).tobytes()]
    return _SAME[what]


_SAME = {
    "brackets": [b"[" * 100_000 + b"]" * 100_000],
    "refuse": [b"[" + b"{}," * 60_000 + b"{}]"],
    "frames": [b"x" * 65_000] * 2_000,
    "junk": [b"junk"],
}
WHAT = ("names", "rounds", *_SAME)
#: Messages a second; 0 for as many as go. One of 10,000 samples of a series is work for a second or more.
RATE = {"rounds": 0.2}


def flood(what: str, where: str, seconds: float, rate: float) -> None:
    """Sends for so long, at `rate` messages a second (0: as they go), and prints how many went."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.sndhwm, socket.sndtimeo = 0, 10, 100
        socket.connect(where)
        print("begun", flush=True)
        began, sent = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            if rate and sent > rate * (now - began):
                time.sleep(min(0.01, (sent / rate) - (now - began)))
                continue
            try:
                socket.send_multipart(_message(what, sent), copy=False)
                sent += 1
            except zmq.Again:
                pass
        print(sent, flush=True)


def sink() -> None:
    """Takes whatever comes, and makes nothing of it; prints where."""
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    print(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}", flush=True)
    while True:
        socket.recv(copy=False)


@contextmanager
def helper(*words: str) -> Iterator[subprocess.Popen[str]]:
    """This module as a process of its own."""
    command = [sys.executable, "-m", "benchmarks.attack", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


class Bystander:
    """One who sends numbered samples and waits for their forecasts and acknowledgements."""

    def __init__(self, ingest: str, publish: str) -> None:
        self.context: zmq.SyncContext = zmq.Context()
        self.dealer, self.subscriber = self.context.socket(zmq.DEALER), self.context.socket(zmq.SUB)
        for socket, where in ((self.dealer, ingest), (self.subscriber, publish)):
            socket.linger, socket.rcvtimeo = 0, 60_000
            socket.connect(where)
        self.subscriber.subscribe("by")
        self.count = 0
        while not self.subscriber.poll(50):
            self._send()

    def _send(self) -> None:
        self.count += 1
        said = {"series": "by", "value": self.count, "producer": "by", "seq": self.count}
        self.dealer.send(json.dumps(said).encode())

    def waits(self, seconds: float) -> list[float]:
        """Seconds from each sample to its forecast; a sample is due every `PAUSE_S`, whatever the last one took."""
        found: list[float] = []
        due = time.perf_counter()
        until = due + seconds
        while due < until:
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            self._send()
            while json.loads(self.subscriber.recv_multipart()[1])["value"] != self.count:
                pass
            found.append(time.perf_counter() - began)
            due = max(due + PAUSE_S, time.perf_counter())
        return found

    def settle(self) -> None:
        """Goes on until the daemon has nothing left of the attack, a minute at most."""
        until = time.monotonic() + 60.0
        while np.median(self.waits(0.5)) > 0.003 and time.monotonic() < until:
            pass

    def close(self) -> None:
        self.context.destroy(0)


def besieged(what: str, seconds: float, rounds: int, most: float) -> list[list[str]]:
    """The rows of one attack, at `most` messages a second (0: as they go)."""
    waits: dict[str, list[float]] = {way: [] for way in WAYS}
    rate = most
    with tempfile.TemporaryDirectory() as folder, launched(folder) as (ingest, publish), helper("sink") as drain:
        assert drain.stdout
        nowhere = drain.stdout.readline().strip()
        bystander = Bystander(ingest, publish)
        bystander.waits(1.0)
        for _ in range(rounds):
            waits["calm"] += bystander.waits(seconds)
            for way, where in (("attack", ingest), ("control", nowhere)):
                with helper("flood", what, where, str(seconds + 0.5), str(rate)) as attacker:
                    assert attacker.stdout
                    attacker.stdout.readline()
                    time.sleep(0.25)
                    waits[way] += bystander.waits(seconds)
                    rate = int(attacker.stdout.readline()) / (seconds + 0.5)
                bystander.settle()
            told, rate = rate, most
        bystander.close()
    p50, p99 = ({way: float(np.quantile(waits[way], q)) for way in WAYS} for q in (0.5, 0.99))
    figures = [f"{p50[way] * 1e3:.2f} / {p99[way] * 1e3:.1f} / {max(waits[way]) * 1e3:.0f}" for way in WAYS]
    return [[what, f"{told:,.1f}", *figures, f"{p99['attack'] / p99['control']:.1f}"]]


@click.group(invoke_without_command=True)
@click.option("--only", multiple=True, type=click.Choice(WHAT), help="One attack; may be repeated.")
@click.option("--seconds", default=4.0, show_default=True, help="Seconds of each way.")
@click.option("--rounds", default=3, show_default=True, help="How often each comes, in turns.")
@click.option("--rate", default=0.0, help="Messages a second at most; as many as go if not said.")
@click.pass_context
def main(context: click.Context, only: tuple[str, ...], seconds: float, rounds: int, rate: float) -> None:
    """What a bystander's forecasts take, in ms: median / 99th percentile / longest."""
    if context.invoked_subcommand:
        return
    rows = [row for what in only or WHAT for row in besieged(what, seconds, rounds, rate or RATE.get(what, 0.0))]
    click.echo(machine() + "\n")
    click.echo(table(["attack", "messages/s", *WAYS, "p99, attack/control"], rows))


main.command("sink")(sink)


@main.command("flood")
@click.argument("what")
@click.argument("where")
@click.argument("seconds", type=float)
@click.argument("rate", type=float)
def _flood(what: str, where: str, seconds: float, rate: float) -> None:
    flood(what, where, seconds, rate)


if __name__ == "__main__":
    main()
