"""Learning while it serves, with real processes: a trainer that works, and what becomes of one that does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forecastd.daemon import record
from forecastd.daemon.inventory import verify
from forecastd.daemon.keeper import models_of
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.snapshot import settings_of
from forecastd.daemon.store import Store
from forecastd.producers.client import Producer

from ..patience import until
from .daemon import Daemon, gone

NAMES = ["saw-0", "saw-1"]
LEARNING = {"FORECASTD_RUN_FINETUNE": "true", "FORECASTD_RUN_LEARNING_COOLDOWN_S": "0"}
UNTRUE = Path(__file__).with_name("untrue.py")


class Feed:
    """Saws of different length, sent from a thread as fast as they are acknowledged, and the forecasts of the first as
    published. A copy gains more than half by them, so it is never taken back."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.forecasts: dict[int, dict[str, Any]] = {}
        self.sent = 0
        self.names = NAMES
        self._subscriber = daemon.listen(NAMES[0])
        self._producer = Producer(daemon.address["ingest router"], name="feed", window=40)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        random = np.random.default_rng(0)
        while not self._stop.is_set():
            self.sent += 1
            names = self.names
            saws = self.sent % (5.0 + 2.0 * np.arange(len(names)))
            self._producer.send_columns(names, saws + 0.02 * random.normal(size=len(names)))

    def hear(self) -> int:
        """The number of the newest forecast that was heard."""
        while self._subscriber.poll(0):
            forecast = json.loads(self._subscriber.recv_multipart()[1])
            self.forecasts[forecast["seq"]] = forecast
        return max(self.forecasts, default=0)

    def more(self, count: int) -> None:
        """Waits for so many more forecasts."""
        aim = self.hear() + count
        until(lambda: self.hear() >= aim, within_s=60)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(60)
        self._producer.close()


def outcome(daemon: Daemon, name: str) -> float:
    return daemon.metric(f'forecastd_finetunes_total{{outcome="{name}"}}')


def finetune(state: Path, series: str) -> subprocess.CompletedProcess[str]:
    """`forecastd models finetune`."""
    command = [sys.executable, "-m", "forecastd", "models", "finetune", "--state", str(state), series]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def without_learning(folder: Path) -> Iterator[dict[str, Any]]:
    """What a daemon that never learns says of the first series, to the samples that this one took in."""
    store = Store.read(folder)
    lives = store.lives()
    assert len(lives) == 1
    pipeline, names = Pipeline(settings_of(lives[1].settings), models_of(store)[lives[1].model]), store.names()
    for commit in store.commits():
        for entry in record.decode(commit.body, commit.step, names):
            for forecasts in pipeline.step(entry.batch, entry.now):
                for k, series in enumerate(forecasts.series):
                    if series == NAMES[0]:
                        mean, lower, upper = (a[k].ravel() for a in (forecasts.mean, forecasts.lower, forecasts.upper))
                        yield {"seq": int(forecasts.count[k]), "mean": mean[0], "lower": lower[0], "upper": upper[0]}


@pytest.mark.timeout(300)
def test_a_daemon_tunes_copies_for_its_series_while_it_serves(tmp_path: Path) -> None:
    """In a process of little priority that was not there before; its weights survive the engine, and the engine is not
    larger for it."""
    with Daemon(tmp_path, **LEARNING) as daemon:
        assert set(daemon.children()) == {"engine", "web"}
        feed = Feed(daemon)
        until(lambda: outcome(daemon, "tuned") >= 4, within_s=120)
        until(lambda: daemon.metric("forecastd_copies") == 2)
        assert daemon.metric("forecastd_finetune_duration_seconds_count") >= 1
        pids = daemon.children()
        threads = [int(thread.name) for thread in Path(f"/proc/{pids['trainer']}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {19}
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
        assert os.getpriority(os.PRIO_PROCESS, pids["engine"]) < 19
        assert "tensorflow" in Path(f"/proc/{pids['trainer']}/maps").read_text()
        assert "tensorflow" not in Path(f"/proc/{pids['engine']}/maps").read_text()
        assert daemon.metric('forecastd_process_up{process="trainer"}') == 1
        events = json.loads(daemon.fetch("/api/v1/models"))["events"]
        assert {event["series"] for event in events if event["outcome"] == "tuned"} == set(NAMES)
        assert "asked the trainer for 1 series" in finetune(tmp_path / "state", "saw-1").stdout
        refused = finetune(tmp_path / "state", "saw-9")
        assert (refused.returncode, "no series is called 'saw-9'" in refused.stderr) == (2, True)
        os.kill(pids["engine"], signal.SIGKILL)
        # What the web process shows is the old engine's until the new one has said something: that has no fine-tune to
        # tell of yet, so its copies are those it found.
        until(lambda: outcome(daemon, "tuned") == 0 and daemon.metric("forecastd_copies") == 2, within_s=60)
        assert daemon.children()["engine"] != pids["engine"]
        until(lambda: gone(pids["trainer"]))
        # the next trainer goes on from them
        until(lambda: outcome(daemon, "tuned") >= 2, within_s=120)
        feed.end()
        assert daemon.end(signal.SIGTERM) == 0
        assert "Traceback" not in daemon.log()
    store = Store.read(tmp_path / "state")
    found = verify(store)
    assert (found.ok, found.copies) == (True, 2)
    kept = [event for event in store.db.events() if event["event"] == "finetune"]
    assert "dropped" not in {event["outcome"] for event in kept}
    for name in NAMES:
        first, *_, last = [event["before"] for event in kept if event["series"] == name]
        assert last < 0.7 * first, "the copy, and not the shared model, is what was tuned again"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "manner, named",
    [
        ("killed", "failed"),
        ("stopped", "timeout"),
        ("memory", "failed"),
        ("nan", "nonfinite"),
        ("worse", "rejected"),
        ("mad", "dropped"),
    ],
)
def test_faults_20_21_22_whatever_the_trainer_does_the_forecasts_are_those_of_a_daemon_without_one(
    tmp_path: Path, manner: str, named: str
) -> None:
    """To the bit; what came of its fine-tunes is counted by name, and the next good one works."""
    (tmp_path / "bad").touch()
    program = [str(UNTRUE), manner, str(tmp_path / "bad")]
    # of a busy machine a sound trainer may get no more than a job in seconds
    patience = {"FORECASTD_RUN_LEARNING_TIMEOUT_S": "2" if manner == "stopped" else "60"}
    with Daemon(tmp_path, program=program, **LEARNING, **patience) as daemon:
        feed = Feed(daemon)
        until(lambda: feed.hear() and outcome(daemon, named) >= 2, within_s=120)
        feed.more(200)
        assert json.loads(daemon.fetch("/readyz"))["status"] == "ready"
        last = feed.hear()
        (tmp_path / "bad").unlink()
        # series whose copies were not worth having rest for long
        feed.names = [*NAMES, "saw-2", "saw-3"]
        tuned = outcome(daemon, "tuned")
        until(lambda: feed.hear() and outcome(daemon, "tuned") >= tuned + 2, within_s=120)
        until(lambda: daemon.metric("forecastd_copies") >= 2)
        feed.end()
        feed.hear()
        if named in ("failed", "timeout"):
            assert daemon.metric('forecastd_restarts_total{process="trainer"}') >= 1
        assert daemon.metric('forecastd_restarts_total{process="engine"}') == 0
        assert daemon.end(signal.SIGTERM) == 0
        assert ("hangs: killed" in daemon.log()) == (named == "timeout")
    compared = 0
    for plain in without_learning(tmp_path / "state"):
        heard = feed.forecasts.get(plain["seq"])
        if heard and heard["status"] == "ready" and plain["seq"] <= last:
            compared += 1
            assert {name: heard[name][0] for name in ("mean", "lower", "upper")} == {
                name: plain[name] for name in ("mean", "lower", "upper")
            }, plain["seq"]
    assert compared > 200
