"""The daemon killed under load: nothing acknowledged is lost, nothing applied twice, forecasts go on to the bit,
and its producers need no code for it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from forecastd.daemon import record
from forecastd.daemon.inventory import samples, verify
from forecastd.daemon.keeper import models_of
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.recovery import recover
from forecastd.daemon.settings import Settings
from forecastd.daemon.snapshot import settings_of
from forecastd.daemon.store import Store
from forecastd.daemon.subscriber import Subscriber
from forecastd.producers.client import Producer
from forecastd.tests.feed import state

KILLS = int(os.environ.get("FORECASTD_SOAK", "6"))
SOLE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.002)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Place:
    """Endpoints and a folder that outlive the daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ingest, self.publish, self.board = (f"tcp://127.0.0.1:{free_port()}" for _ in range(3))

    @property
    def settings(self) -> Settings:
        return Settings(ingest=(f"router+{self.ingest}",), publish=self.publish, web="", state=str(self.folder))

    @contextmanager
    def engine(self) -> Iterator[subprocess.Popen[bytes]]:
        """The engine alone, told what its supervisor would tell it; ready when it is handed over."""
        command = [sys.executable, "-m", "forecastd.daemon.engine"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **SOLE})
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode({"settings": self.settings, "board": self.board}) + b"\n")
            process.stdin.flush()
            while "ready" not in (line := json.loads(process.stdout.readline())):
                assert "failed" not in line, line
            yield process
        finally:
            process.kill()
            process.wait()
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()


class Load:
    """Two producers: one sends single samples of 40 series, the other columns of 100. A sample's value is its
    number.
    """

    def __init__(self, to: str) -> None:
        self.single = Producer(to, name="single", window=600, resend_after=1.0)
        self.columns = Producer(to, name="columns", window=4_000, resend_after=1.0)
        self.sent = {"single": 0, "columns": 0}
        self._names = [f"column-{k}" for k in range(100)]

    def more(self) -> None:
        for _ in range(20):
            self.sent["single"] += 1
            number = self.sent["single"]
            self.single.send(f"single-{number % 40}", float(number))
        values = self.sent["columns"] + 1.0 + np.arange(100.0)
        self.columns.send_columns(self._names, values)
        self.sent["columns"] += 100

    @property
    def acked(self) -> dict[str, int]:
        return {"single": self.single.stats().acked, "columns": self.columns.stats().acked}

    def finish(self) -> None:
        for producer in (self.single, self.columns):
            assert producer.flush(60.0)
            producer.close()


def audit(folder: Path, sent: dict[str, int], epochs: dict[str, int]) -> Pipeline:
    """Each sample of each producer is there once and in order; what was recovered is what a run without a break
    gives, the kernel's forecasts included. Returns the pipeline of that run.
    """
    store = Store.read(folder)
    found = verify(store)
    assert found.ok, found.problems
    assert {name: account.samples for name, account in found.producers.items()} == sent
    assert {name: account.epoch for name, account in found.producers.items()} == epochs
    numbers: dict[str, list[int]] = {name: [] for name in sent}
    for sample in samples(store):
        assert sample.value == sample.seq
        numbers[sample.producer].append(sample.seq)
    assert numbers == {name: list(range(1, count + 1)) for name, count in sent.items()}
    models, lives = models_of(store), store.lives()
    settings, weights = settings_of(lives[1].settings), models[lives[1].model]
    assert {life.model for life in lives.values()} == {lives[1].model}
    unbroken = Pipeline(settings, weights)
    names = store.names()
    for commit in store.commits():
        for entry in record.decode(commit.body, commit.step, names):
            effects = unbroken.step(entry.batch, entry.now)
            for said, recorded in zip(effects.recorded, entry.recorded, strict=True):
                assert np.asarray(said).tobytes() == recorded.tobytes(), f"step {entry.step}"
    recovered = recover(store, settings, weights, models.__getitem__)
    assert recovered.whole
    assert state(recovered.pipeline) == state(unbroken)
    return unbroken


def test_faults_1_2_killed_at_random_moments_under_load_it_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """`FORECASTD_SOAK=200` makes it two hundred moments."""
    place, chance = Place(tmp_path / "state"), random.Random(5)
    load = Load(place.ingest)
    for _ in range(KILLS):
        with place.engine() as engine:
            aim = {name: load.acked[name] + chance.randrange(0, 3_000) for name in load.sent}
            until(lambda aim=aim: load.more() or any(load.acked[name] >= aim[name] for name in aim))
            engine.kill()
            engine.wait()
        told = load.acked
        found = verify(Store.read(place.folder))
        assert found.ok, found.problems
        for name, account in found.producers.items():
            assert account.seq >= told[name], "acknowledged, and gone"
    with place.engine() as engine:
        load.finish()
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(20) == 0
    audit(place.folder, load.sent, {"single": load.single.epoch, "columns": load.columns.epoch})


def test_what_is_published_after_a_kill_is_what_an_unbroken_run_would_have_published(tmp_path: Path) -> None:
    place = Place(tmp_path / "state")
    load = Load(place.ingest)
    with place.engine():
        until(lambda: load.more() or min(load.acked.values()) > 3_000)
    with place.engine() as engine:
        subscriber = Subscriber(place.publish, "single-7")
        heard: dict[int, dict[str, Any]] = {}

        def listen() -> bool:
            load.more()
            for _, message in subscriber:
                forecast = json.loads(message)
                heard[forecast["seq"]] = forecast
            return len(heard) > 50

        until(listen)
        load.finish()
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(20) == 0
    subscriber.close()
    store = Store.read(place.folder)
    lives = store.lives()
    unbroken = Pipeline(settings_of(lives[1].settings), models_of(store)[lives[1].model])
    compared = 0
    for commit in store.commits():
        for entry in record.decode(commit.body, commit.step, store.names()):
            for forecasts in unbroken.step(entry.batch, entry.now):
                for k, series in enumerate(forecasts.series):
                    forecast = heard.get(int(forecasts.count[k])) if series == "single-7" else None
                    if forecast and forecast["status"] == "ready":
                        compared += 1
                        assert forecast["mean"] == forecasts.mean[k].tolist()
                        assert forecast["lower"] == forecasts.lower[k, :, 0].tolist()
                        assert forecast["upper"] == forecasts.upper[k, :, 0].tolist()
    assert compared > 30


def tree(pid: int) -> list[int]:
    """A process and all that come from it."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


@contextmanager
def daemon(place: Place) -> Iterator[subprocess.Popen[str]]:
    """`forecastd run`, ready."""
    web = f"127.0.0.1:{free_port()}"
    arguments = ["--ingest", place.ingest, "--publish", place.publish, "--web", web, "--state", str(place.folder)]
    command = [sys.executable, "-m", "forecastd", "run", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while process.stdout.readline() not in ("ready\n", ""):
            pass
        assert process.poll() is None
        yield process
    finally:
        for pid in tree(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def engine_of(process: subprocess.Popen[str]) -> int | None:
    for pid in tree(process.pid)[1:]:
        with suppress(OSError):
            if b"daemon.engine" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def test_the_supervisor_brings_a_killed_engine_back_and_the_producers_notice_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path / "state")
    load = Load(place.ingest)
    with daemon(place) as process:
        for _ in range(2):
            before = load.acked
            until(lambda before=before: load.more() or load.acked["single"] > before["single"] + 1_000)
            engine = engine_of(process)
            assert engine is not None
            os.kill(engine, signal.SIGKILL)
        load.finish()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    audit(place.folder, load.sent, {"single": load.single.epoch, "columns": load.columns.epoch})


def test_the_whole_tree_killed_and_started_again_goes_on(tmp_path: Path) -> None:
    place = Place(tmp_path / "state")
    load = Load(place.ingest)
    for _ in range(2):
        with daemon(place):
            before = load.acked
            until(lambda before=before: load.more() or load.acked["columns"] > before["columns"] + 5_000)
        # all of it was killed, in whatever it was doing
    with daemon(place) as process:
        load.finish()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    audit(place.folder, load.sent, {"single": load.single.epoch, "columns": load.columns.epoch})


def test_with_a_thousand_series_it_is_back_in_seconds(tmp_path: Path) -> None:
    """Two on a machine of its own; here others may be running."""
    place, names = Place(tmp_path / "state"), [f"series-{k}" for k in range(1_000)]
    producer = Producer(place.ingest, name="many", resend_after=1.0)
    with daemon(place):
        for number in range(300):
            producer.send_columns(names, np.sin(number / 9.0 + np.arange(1_000.0)))
        assert producer.flush(60.0)
    began = time.monotonic()
    with daemon(place):
        took = time.monotonic() - began
        producer.send_columns(names, np.zeros(1_000))
        assert producer.flush(60.0)
    producer.close()
    print(f"ready again after {took:.2f} s")
    assert took < 6.0
    found = verify(Store.read(place.folder))
    assert (found.ok, found.samples, found.series) == (True, 301_000, 1_000)
