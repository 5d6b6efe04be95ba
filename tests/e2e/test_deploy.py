"""The dashboard and the alerts against the real thing: Debian's Prometheus, scraping a running daemon that is fed."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ..keyring import Keyring

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
BOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
TARGETS = [target for panel in BOARD["panels"] for target in panel.get("targets", [])]
VARIABLES = {item["name"]: item for item in BOARD["templating"]["list"] if item["type"] == "query"}
ALERTS = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]

#: What stands for the dashboard's variables here. The interval holds four scrapes, as Grafana's does.
CHOSEN = {"instance": ".*", "series": "boiler", "step": "1", "level": "0.9", "__rate_interval": "10s"}
SOON_S = 60.0

Debian = Callable[[str], str]


def forecastd(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "forecastd", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})})


def end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def fetch(url: str, **query: str | float) -> str:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def soon(what: str, probe: Callable[[], Any]) -> Any:
    """What `probe` gives once it is not empty."""
    deadline = time.monotonic() + SOON_S
    while True:
        try:
            if found := probe():
                return found
        except OSError as error:
            what = f"{what} ({error})"
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


class Daemon(NamedTuple):
    """Where a running daemon's sockets are."""

    ingest: str
    publish: str
    web: str


def started(*arguments: str, environment: dict[str, str] | None = None) -> tuple[subprocess.Popen[str], Daemon]:
    """A daemon with the options given, once it says that it is ready."""
    process = forecastd("run", *arguments, environment=environment)
    assert process.stdout
    bound = {}
    for line in process.stdout:
        if line.strip() == "ready":
            return process, Daemon(**bound)
        if words := line.split():
            bound[words[0]] = words[-1]
    end(process)
    pytest.fail(f"the daemon ended before it was ready; it printed {bound}")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a journal that hears of the series `boiler` twenty times a second."""
    process, daemon = started(
        *("--state", str(tmp_path_factory.mktemp("state"))),
        *("--ingest", "router+tcp://127.0.0.1:0", "--publish", "tcp://127.0.0.1:0", "--web", "127.0.0.1:0"),
    )
    producer = forecastd("produce", "sine", "--to", daemon.ingest, "--series", "boiler", "--rate", "20", "--for", "300")
    yield daemon
    end(producer)
    end(process)


@pytest.fixture(scope="module")
def prometheus(daemon: Daemon, debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with the configuration and the alerts of `deploy`, only faster, that has scraped the daemon."""
    folder = tmp_path_factory.mktemp("prometheus")
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    settings["rule_files"] = [str(RULES)]
    settings["scrape_configs"][0]["static_configs"][0]["targets"] = [urllib.parse.urlsplit(daemon.web).netloc]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        debian("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        url = f"http://{address}"
        try:
            soon("Prometheus has scraped the daemon five times", lambda: len(values(url, "forecastd_series")) >= 5)
            yield url
        finally:
            end(process)


def values(prometheus: str, expression: str) -> list[float]:
    """The finite values of an expression over the last minute."""
    now = time.time()
    text = fetch(f"{prometheus}/api/v1/query_range", query=expression, start=now - 60, end=now, step=1)
    found = [float(value) for series in json.loads(text)["data"]["result"] for _, value in series["values"]]
    return [value for value in found if math.isfinite(value)]


def chosen(expression: str) -> str:
    for name, value in CHOSEN.items():
        expression = expression.replace(f"${name}", value)
    return expression


@pytest.mark.parametrize("target", TARGETS, ids=[target["expr"] for target in TARGETS])
def test_each_expression_of_the_dashboard_returns_data(target: dict[str, Any], prometheus: str) -> None:
    """No panel is empty on a daemon that is fed."""
    expression = chosen(target["expr"])
    assert "$" not in expression
    soon(f"{expression} returns data", lambda: values(prometheus, expression))


@pytest.mark.parametrize("name", VARIABLES)
def test_each_variable_of_the_dashboard_offers_a_choice(name: str, prometheus: str) -> None:
    """And what is chosen in these tests is among it."""
    asked = re.fullmatch(r"label_values\((.*), (\w+)\)", VARIABLES[name]["query"])
    assert asked
    metric, label = asked.groups()
    url = f"{prometheus}/api/v1/label/{label}/values"
    offered = soon(f"a choice of {name}", lambda: json.loads(fetch(url, **{"match[]": chosen(metric)}))["data"])
    assert any(re.fullmatch(CHOSEN[name], offer) for offer in offered), offered


def test_every_metric_that_is_asked_for_is_on_the_daemons_page(daemon: Daemon, prometheus: str) -> None:
    """A misspelt metric in an alert would never be noticed: it just never fires."""
    asked = "\n".join(target["expr"] for target in TARGETS) + "\n".join(rule["expr"] for rule in ALERTS)
    names = set(re.findall(r"\bforecastd_\w+", asked))
    assert len(names) > 20
    page = fetch(f"{daemon.web}/metrics")
    assert names - set(re.findall(r"^(forecastd_\w+)", page, re.M)) == set()


def test_the_page_pleases_promtool(daemon: Daemon, prometheus: str, debian: Debian) -> None:
    """Names, units and help texts are as Prometheus wants them."""
    command = [debian("promtool"), "check", "metrics"]
    result = subprocess.run(command, input=fetch(f"{daemon.web}/metrics"), capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_prometheus_can_evaluate_every_alert_and_none_fires_on_a_daemon_that_is_well(prometheus: str) -> None:
    def judged() -> list[dict[str, Any]]:
        groups = json.loads(fetch(f"{prometheus}/api/v1/rules"))["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [] if any(rule["health"] == "unknown" for rule in rules) else rules

    rules = soon("every alert has been evaluated", judged)
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in ALERTS}
    assert [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_the_unit_starts_a_daemon_that_tells_systemd_when_it_is_ready(tmp_path: Path) -> None:
    """The command of the unit, with its settings and state elsewhere, says READY=1 to the manager's socket."""
    unit = (DEPLOY / "forecastd.service").read_text()
    assert "\nType=notify\n" in unit
    command = re.search(r"^ExecStart=/opt/forecastd/bin/forecastd (.*)$", unit, re.M)
    assert command
    settings = tmp_path / "forecastd.toml"
    subprocess.run(
        [sys.executable, "-m", "forecastd", "config", "init", settings], check=True, stdout=subprocess.DEVNULL
    )
    ports = 'ingest = ["tcp://127.0.0.1:0"]\npublish = "tcp://127.0.0.1:0"\nweb = "127.0.0.1:0"\n'
    settings.write_text(ports + settings.read_text())
    line = command[1].replace("/etc/forecastd", str(tmp_path)).replace("${STATE_DIRECTORY}", str(tmp_path / "state"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(0.2)
        process = forecastd(*line.split(), environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            assert soon("READY=1", lambda: process.poll() is not None or manager.recv(100)) == b"READY=1"
        finally:
            end(process)
    assert process.returncode == 0


def image_options() -> list[str]:
    """The options of the Dockerfile's command, with free ports and without a state."""
    command = re.search(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert command
    options = json.loads(re.sub(r":(5555|5556|9595)\b", ":0", command[1]))
    return ["--ephemeral", *options[1 : options.index("--state")]]


def keys(folder: Path) -> dict[str, Path]:
    """The files of a daemon that asks who comes, by their names in the Kubernetes manifest."""
    ring = Keyring(folder)
    (folder / "web.token").touch(0o600)
    (folder / "web.token").write_text("0123456789abcdef0123456789abcdef\n")
    ring.write(ring.entry("plc-7", "*"))
    ring.pair("daemon")
    return {name: folder / name for name in ("daemon.key", "clients.toml", "web.token")}


def test_the_image_starts_the_daemon_once_it_is_told_who_may_come(tmp_path: Path) -> None:
    """On all addresses of the container; by keys and a token, or, as in the Compose file, whoever comes."""
    files = keys(tmp_path)
    names = ("KEY", "CLIENTS", "WEB_TOKEN")
    told = {f"FORECASTD_RUN_{name}": str(file) for name, file in zip(names, files.values(), strict=True)}
    everybody = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["forecastd"]["environment"]
    for environment in (told, everybody):
        process, daemon = started(*image_options(), environment=environment)
        end(process)
        assert all("//0.0.0.0:" in address for address in daemon), daemon
        assert process.returncode == 0


def test_the_image_does_not_start_by_itself() -> None:
    """One line that says what to give it."""
    command = [sys.executable, "-m", "forecastd", "run", *image_options()]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.count("\n") == 1 and "give --key and --clients; --insecure does it all the same" in said.stderr


def test_the_signal_of_the_compose_file_is_one_that_can_be_produced() -> None:
    """The arguments of its demo producer are understood."""
    command = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["sine"]["command"]
    producer = forecastd(*command, "--help")
    try:
        assert producer.wait(30) == 0
    finally:
        end(producer)


def test_the_settings_of_the_kubernetes_manifest_start_the_daemon(tmp_path: Path) -> None:
    """Its forecastd.toml, with free ports, is read and leads to a daemon that is ready."""
    manifests = yaml.safe_load_all((DEPLOY / "kubernetes" / "forecastd.yaml").read_text())
    text = next(item["data"]["forecastd.toml"] for item in manifests if item["kind"] == "ConfigMap")
    file = tmp_path / "forecastd.toml"
    keys(tmp_path)
    file.write_text(re.sub(r":(5555|5556|9595)\b", ":0", text).replace("/keys/", f"{tmp_path}/"))
    assert tomllib.loads(text)["web"].endswith(":9595")
    process, _ = started("--ephemeral", "--config", str(file))
    end(process)
    assert process.returncode == 0
