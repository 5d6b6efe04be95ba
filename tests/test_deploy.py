"""What is deployed is valid by the judges of its own kind, and points at things that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
BIN = Path(sys.executable).parent

Debian = Callable[[str], str]


def said(*command: str | Path, cwd: Path = DEPLOY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def passes(*command: str | Path, cwd: Path = DEPLOY) -> str:
    result = said(*command, cwd=cwd)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The systemd unit, with the program where it is here: systemd looks whether it can be started."""
    text = (DEPLOY / "forecastd.service").read_text()
    file = tmp_path_factory.mktemp("unit") / "forecastd.service"
    file.write_text(text.replace("/opt/forecastd/bin/", f"{BIN}/"))
    return file


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path, debian: Debian) -> None:
    """Not a word on stderr: an unknown key is a warning there and exit status 0."""
    result = said(debian("systemd-analyze"), "verify", unit)
    assert (result.returncode, result.stderr) == (0, "")


def test_systemd_rates_the_unit_as_little_exposed(unit: Path, debian: Debian) -> None:
    """At most 1.5 of 10."""
    passes(debian("systemd-analyze"), "security", "--offline=true", "--threshold=15", unit)


def test_the_unit_leaves_tensorflow_its_machine_code() -> None:
    """MemoryDenyWriteExecute would end the trainer."""
    settings = re.findall(r"^(\w+)=", (DEPLOY / "forecastd.service").read_text(), re.M)
    assert "MemoryDenyWriteExecute" not in settings
    assert "ExecStart" in settings


def test_the_compose_file_follows_its_schema() -> None:
    passes(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_the_compose_file_mounts_what_exists_and_publishes_on_loopback_alone() -> None:
    """A port published without an address is open to the whole network."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    sources = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    for source in sources:
        assert not source.startswith(".") or (DEPLOY / source).exists(), source
    for service in services.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_kubernetes_accepts_the_manifests() -> None:
    passes(BIN / "kubernetes-validate", "--strict", "kubernetes/forecastd.yaml")


def test_the_image_copies_what_exists() -> None:
    """Each source of a COPY lies in the checkout and is let through to the build."""
    text = (DEPLOY / "Dockerfile").read_text()
    let_through = [
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.M):
        for source in line.split()[:-1]:
            assert source == "." or source in let_through, source
    for name in let_through:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("name", ["prometheus.yml", "compose.yml"])
def test_prometheus_accepts_its_configuration(name: str, debian: Debian) -> None:
    passes(debian("promtool"), "check", "config", name, cwd=RULES.parent)


def test_each_alert_fires_when_it_should_and_is_silent_when_not(debian: Debian) -> None:
    """The unit tests of the rules pass, and no alert is left out of them."""
    passes(debian("promtool"), "test", "rules", "rules_test.yml", cwd=RULES.parent)
    alerts = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    tests = (RULES.parent / "rules_test.yml").read_text()
    assert [alert for alert in alerts if f'alertname="{alert}"' not in tests] == []


THRESHOLDS = ["> 3", "< -0.05", "< 0.8", "> 0.1\n", "> 15\n", "(20 *", "== 0\n", "> 0\n", "> 10\n"]


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_the_tests_of_the_rules_notice_a_threshold_that_is_off(threshold: str, debian: Debian, tmp_path: Path) -> None:
    """Each threshold, moved out of reach, lets its alert stay silent, and that is noticed."""
    text = RULES.read_text()
    assert threshold in text
    (tmp_path / "rules.yml").write_text(
        text.replace(threshold, re.sub(r"-?[\d.]+", "-7e9" if "<" in threshold else "7e9", threshold))
    )
    (tmp_path / "rules_test.yml").write_text((RULES.parent / "rules_test.yml").read_text())
    result = said(debian("promtool"), "test", "rules", "rules_test.yml", cwd=tmp_path)
    assert result.returncode == 1, threshold


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """The module that builds the dashboard."""
    spec = importlib.util.spec_from_file_location("dashboard_builder", DEPLOY / "grafana" / "dashboard.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def board() -> Any:
    return json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())


def test_the_dashboard_is_the_one_that_is_built(builder: ModuleType) -> None:
    """If not: `.venv/bin/python deploy/grafana/dashboard.py`."""
    assert builder.FILE.read_text() == builder.text()


def test_no_two_panels_of_the_dashboard_overlap_or_share_a_number(board: Any) -> None:
    cells = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        area = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not area & cells, panel["title"]
        cells |= area
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_dashboard_asks_for_no_variable_that_it_does_not_have(board: Any) -> None:
    known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= known, target["expr"]


def test_grafana_is_provisioned_with_the_dashboard_and_its_source() -> None:
    """Grafana reads dashboards where Compose puts this one, and its source is the Prometheus there."""
    provisioning = DEPLOY / "grafana" / "provisioning"
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    folder = yaml.safe_load((provisioning / "dashboards" / "forecastd.yaml").read_text())["providers"][0]["options"][
        "path"
    ]
    assert any(f":{folder}/dashboard.json" in volume for volume in services["grafana"]["volumes"])
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services
