"""Models of a running daemon, changed by hand and by itself, as a user sees it."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from forecastd.models import checkpoint
from forecastd.tests.e2e.daemon import Daemon, forecast
from forecastd.tests.patience import until


def models(folder: Path, *arguments: str, status: int = 0) -> str:
    command = [sys.executable, "-m", "forecastd", "models", *arguments, "--state", str(folder / "state")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.returncode == status, said.stderr
    return said.stdout if status == 0 else said.stderr


def listed(folder: Path) -> dict[int, dict[str, Any]]:
    return {one["version"]: one for one in json.loads(models(folder, "list", "--json")) if one["version"]}


@pytest.fixture
def worse(tmp_path: Path) -> Path:
    """A file with `general`, spoilt on purpose: noise on its readout."""
    general = checkpoint.load("general")
    noise = np.random.default_rng(0).normal(0.0, 0.3, 100).astype(np.float32)
    weights = replace(general.weights, readout=general.weights.readout + noise)
    checkpoint.save(tmp_path / "worse.npz", checkpoint.Checkpoint(weights, {"name": "worse"}))
    return tmp_path / "worse.npz"


class Wave:
    """A producer of one noisy wave, and a subscriber to its forecasts. `send` returns the forecast of each sample."""

    def __init__(self, daemon: Daemon) -> None:
        self.subscriber = daemon.listen("wave")
        self.dealer = daemon.peer(zmq.DEALER, "ingest router")
        self._values = self._wave()

    def _wave(self) -> Iterator[float]:
        noise, t = random.Random(7), 0
        while True:
            t += 1
            yield math.sin(t / 5.0) + noise.gauss(0.0, 0.1)

    def ask(self) -> dict[str, Any] | None:
        """`send` to a daemon that may not be there yet."""
        self.dealer.send_json({"series": "wave", "value": next(self._values)})
        return forecast(self.subscriber) if self.subscriber.poll(200) else None

    def send(self) -> dict[str, Any]:
        self.dealer.send_json({"series": "wave", "value": next(self._values)})
        return forecast(self.subscriber)


def test_a_worse_model_promoted_by_hand_is_rolled_back_by_itself_within_500_samples(
    tmp_path: Path, worse: Path
) -> None:
    """From the sample after the order on it forecasts; and it is seen in the store, in the metrics and in the API."""
    with Daemon(tmp_path) as daemon:
        wave, feed = Wave(daemon), daemon.peer(zmq.SUB, "publish", "\0events")
        for _ in range(100):
            assert wave.send()["model"] == 1
        assert models(tmp_path, "import", str(worse), "--promote") == "version 2: worse, serves\n"
        assert listed(tmp_path)[2]["status"] == "champion", "on the disk when the command has returned"
        assert wave.send()["model"] == 2
        count = 1
        while wave.send()["model"] == 2:
            count += 1
            assert count <= 500
        fed = [json.loads(feed.recv_multipart()[1]) for _ in range(2)]
        assert [event["event"] for event in fed] == ["promoted", "rolled_back"]
        told = {number: one["status"] for number, one in listed(tmp_path).items()}
        assert told == {1: "champion", 2: ""}
        until(lambda: daemon.metric("forecastd_model_rollbacks_total") == 1.0)
        assert daemon.metric("forecastd_model_promotions_total") == 1.0
        answer = json.loads(daemon.fetch("/api/v1/models"))
        events = {event["event"]: event for event in answer["events"]}
        assert (events["promoted"]["cause"], events["rolled_back"]["before"]) == ("by_hand", 2)
        assert events["rolled_back"]["gain"] > 0.1 and events["rolled_back"]["samples"] <= 500
        assert [(one["status"], one["version"]) for one in answer["models"]] == [("champion", 1)]
        assert [one["number"] for one in answer["versions"]] == [1, 2]
        assert [(one["number"], one["reason"]) for one in answer["champions"]] == [
            (1, "configured"),
            (2, "by_hand"),
            (1, "rolled_back"),
        ]
        assert daemon.end(signal.SIGTERM) == 0
    decision = json.loads(models(tmp_path, "show", "1", "--json"))["decisions"][-1]
    assert decision["reason"] == "rolled_back" and decision["evidence"] > 1.0
    with Daemon(tmp_path) as daemon:
        assert Wave(daemon).send()["model"] == 1


def test_an_order_survives_a_kill_as_soon_as_the_command_has_returned(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        wave = Wave(daemon)
        before = [wave.send()["seq"] for _ in range(30)]
        assert models(tmp_path, "promote", "sine") == "version 2: sine, serves\n"
        os.kill(daemon.children()["engine"], signal.SIGKILL)
        assert listed(tmp_path)[2]["status"] == "champion"
        again = until(wave.ask)
        assert again["model"] == 2
        assert again["seq"] > before[-1], "what was forecast is there"
        assert models(tmp_path, "rollback") == "version 1: general, serves\n"
        while wave.subscriber.poll(200):  # forecasts that came after `ask` had given up
            assert forecast(wave.subscriber)["model"] == 2
        assert wave.send()["model"] == 1


def test_a_stored_model_may_be_named_at_the_start(tmp_path: Path, worse: Path) -> None:
    """By the name it was imported with; it begins another line."""
    models(tmp_path, "import", str(worse), "--name", "plant")
    with Daemon(tmp_path, "--model", "plant") as daemon:
        assert Wave(daemon).send()["model"] == 1
    assert listed(tmp_path)[1]["status"] == "champion" and listed(tmp_path)[1]["name"] == "plant"
    command = [sys.executable, "-m", "forecastd", "run", "--web", "", "--model", "plants"]
    said = subprocess.run([*command, "--state", str(tmp_path / "state")], capture_output=True, text=True, timeout=60)
    assert said.returncode == 2 and "no model is called 'plants'" in said.stderr


def test_what_cannot_be_done_is_said_in_one_line_and_changes_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        wave = Wave(daemon)
        assert "no version has served before" in models(tmp_path, "rollback", status=2)
        assert "units are 64" in models(tmp_path, "promote", "path", status=2)
        assert wave.send()["model"] == 1
        assert list(listed(tmp_path)) == [1]


@pytest.mark.timeout(300)
def test_a_challenger_of_the_shared_model_is_drawn_when_asked_for_and_put_on_trial(tmp_path: Path) -> None:
    """By the trainer, from what has arrived; it serves nobody unless it wins."""
    with Daemon(tmp_path, FORECASTD_RUN_FINETUNE="true", FORECASTD_RUN_LEARNING_COPIES="0") as daemon:
        wave = Wave(daemon)
        for _ in range(700):
            wave.send()
        until(lambda: daemon.children().get("trainer"))

        def trials() -> list[dict[str, Any]]:
            command = [sys.executable, "-m", "forecastd", "models", "finetune", "--shared"]
            said = subprocess.run([*command, "--state", str(tmp_path / "state")], capture_output=True, text=True)
            assert said.returncode == 0 or "no trainer yet" in said.stderr, said.stderr
            for _ in range(100):
                wave.send()
            events = json.loads(daemon.fetch("/api/v1/models"))["events"]
            return [one for one in events if one["event"] == "challenger" and one["outcome"] != "none_better"]

        first = until(trials, within_s=240)[0]
        assert (first["outcome"], first["name"]) == ("on_trial", "general-tuned")
        assert daemon.end(signal.SIGTERM) == 0
        assert "Traceback" not in daemon.log()
