"""What durability costs: `python -m benchmarks.durability`. Ingest with and without a journal side by side,
recovery, and the pause of a snapshot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import click
import msgspec
import numpy as np
import zmq

from forecastd.daemon import recovery, snapshot
from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.database import Life
from forecastd.daemon.journal import Journal
from forecastd.daemon.keeper import models_of
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.settings import Settings
from forecastd.daemon.store import Store
from forecastd.models import checkpoint

from .section import machine, table

#: Samples not acknowledged that the sender lets stand, and the series they are of.
WINDOW, SERIES = 2_000, 1_000
MODES = {"ephemeral": {"ephemeral": True}, "accepted": {"acks": "accepted"}, "durable": {"acks": "durable"}}


@contextmanager
def launched(folder: str, **changes: object) -> Iterator[tuple[str, str]]:
    """An engine in a process of its own; where it takes samples, and where its forecasts leave."""
    settings = Settings(ingest=("router+tcp://127.0.0.1:*",), publish="tcp://127.0.0.1:*", web="", state=folder)
    settings = msgspec.structs.replace(settings, **changes)
    sole = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "forecastd.daemon.engine"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=sole
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode({"settings": settings, "board": ""}) + b"\n")
        process.stdin.flush()
        bound: dict[str, str] = {}
        while "ready" not in (line := json.loads(process.stdout.readline())):
            if what := line.get("bound", "").split():
                bound[what[0]] = what[-1]
        try:
            yield bound["ingest"], bound["publish"]
        finally:
            process.terminate()
            process.stdout.read()


def ingest(address: str, samples: int) -> tuple[float, float]:
    """Samples a second, one a message, all acknowledged; and the median seconds from sending to acknowledgement."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        heads = [
            b'{"series":"s%d","value":%d.5,"producer":"bench","epoch":1,"seq":' % (k, k % 97) for k in range(SERIES)
        ]
        sent = acked = 0
        sent_at: dict[int, float] = {}
        waits: list[float] = []
        began = time.perf_counter()
        while acked < samples:
            while sent < samples and sent - acked < WINDOW:
                sent += 1
                socket.send(heads[sent % SERIES] + b"%d}" % sent)
                if not sent % 100:
                    sent_at[sent] = time.perf_counter()
            socket.poll(1000)
            while socket.poll(0):
                told = json.loads(socket.recv()).get("ack", 0)
                waits += [
                    time.perf_counter() - sent_at.pop(n) for n in range(-(-(acked + 1) // 100) * 100, told + 1, 100)
                ]
                acked = max(acked, told)
        return samples / (time.perf_counter() - began), median(waits)


def compared(samples: int, rounds: int) -> list[list[str]]:
    """The three ways side by side, in turns, so that what else the machine does befalls all of them."""
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    waits: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds):
        for mode, changes in MODES.items():
            with tempfile.TemporaryDirectory() as folder, launched(folder, **changes) as (address, _publish):
                ingest(address, samples // 10)
            with tempfile.TemporaryDirectory() as folder, launched(folder, **changes) as (address, _publish):
                rate, wait = ingest(address, samples)
            rates[mode].append(rate)
            waits[mode].append(wait)
    rows = []
    for mode in MODES:
        ratio = median(own / bare for own, bare in zip(rates[mode], rates["ephemeral"], strict=True))
        rows.append(
            [
                f"ingest, {mode}",
                f"{median(rates[mode]):,.0f} samples/s",
                f"{ratio:.2f} × ephemeral",
                f"ack p50 {median(waits[mode]) * 1e3:.1f} ms",
            ]
        )
    return rows


def recovered(series: int, steps: int) -> list[list[str]]:
    """A journal of `steps` steps with a sample of each series, gone through again; and the copy that a snapshot
    begins with.
    """
    settings, model = Settings(), checkpoint.load("general")
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(folder)
        core = Pipeline(settings, model.weights)
        sha256 = model.sha256
        life = store.enter(Life(snapshot.shaping(settings), sha256), 0.0, checkpoint.encode(model))
        journal = Journal(store, core.names, core.rows, life=life)
        names, value = [f"s{k}" for k in range(series)], np.zeros(series)
        random = np.random.default_rng(0)
        for step in range(steps):
            value = value + random.normal(size=series)
            parcels = [Parcel(0, series, b"", True, "bench", 1, 1 + step * series)]
            batch = Batch(names, value.copy(), np.full(series, 1e9 + step), parcels)
            journal.append(batch, 1e9 + step, core.step(batch, 1e9 + step), [])
            journal.commit()
        began = time.perf_counter()
        found = recovery.recover(store, settings, model.weights, models_of(store).__getitem__)
        took = time.perf_counter() - began
        began = time.perf_counter()
        kept = snapshot.capture(core, steps)
        paused = time.perf_counter() - began
        began = time.perf_counter()
        store.save(steps, snapshot.encode(kept))
        wrote = time.perf_counter() - began
        size = sum(path.stat().st_size for path in Path(folder).glob("snapshot-*")) / 1e6
        log = (Path(folder) / "journal.db").stat().st_size / found.replayed
        store.close()
    return [
        [
            f"replay, {series} series a step",
            f"{found.replayed / took:,.0f} samples/s",
            "promised: 300,000",
            f"{log:.0f} bytes a sample",
        ],
        [
            f"snapshot, {series} series",
            f"{paused * 1e3:.1f} ms pause",
            f"{wrote * 1e3:.0f} ms to write",
            f"{size:.1f} MB",
        ],
    ]


@click.command()
@click.option("--samples", default=60_000, show_default=True, help="Samples of a run of ingest.")
@click.option("--rounds", default=5, show_default=True, help="Runs of each way to ingest.")
def main(samples: int, rounds: int) -> None:
    """What durability costs on this machine."""
    rows = compared(samples, rounds) + recovered(1_000, 300) + recovered(10_000, 30)
    click.echo(machine() + "\n")
    click.echo(table(["what", "figure", "against", ""], rows))


if __name__ == "__main__":
    main()
