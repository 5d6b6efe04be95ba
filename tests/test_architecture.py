"""The import rules of pyproject.toml hold, and each of them notices when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

#: For each contract, a module that must not, and the line it must not have.
VIOLATIONS = {
    "models": ("models/table.py", "from ..daemon import batch"),
    "producers": ("producers/__init__.py", "from ..daemon import settings"),
    "tensorflow": ("models/kernel.py", "import keras"),
    "serving": ("daemon/pipeline.py", "def lazily() -> None:\n    import tensorflow"),
    "web": ("models/kernel.py", "import prometheus_client"),
    "sockets": ("daemon/pipeline.py", "import zmq"),
    "pure": ("daemon/batch.py", "import time"),
}


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the linter says of the package `forecastd` that lies in `folder`."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=folder / "forecastd", env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a copy of the package, sources only."""
    folder = tmp_path_factory.mktemp("copy")
    copy = folder / "forecastd"
    for source in (ROOT, ROOT / "daemon", ROOT / "models", ROOT / "producers"):
        target = copy / source.relative_to(ROOT)
        target.mkdir()
        for file in source.glob("*.py"):
            shutil.copy(file, target)
    shutil.copy(ROOT / "pyproject.toml", copy)
    return folder


def test_the_package_keeps_its_import_rules(original: Path) -> None:
    """Every contract is kept by the sources as they are."""
    result = lint(original)
    assert result.returncode == 0, result.stdout
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in result.stdout


def test_every_contract_is_a_sentence_and_has_its_violation_here() -> None:
    """A contract without a violation that shows it working would be taken on trust."""
    assert [contract["id"] for contract in CONTRACTS] == list(VIOLATIONS)
    for contract in CONTRACTS:
        assert contract["name"][0].isupper() and contract["name"].endswith(".") and " " in contract["name"]


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_violation_breaks_its_contract(contract: str, original: Path, tmp_path: Path) -> None:
    """One import too many, even one inside a function, fails the check and is named."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    file, line = VIOLATIONS[contract]
    with (tmp_path / "forecastd" / file).open("a") as module:
        module.write(f"\n\n{line}\n")
    result = lint(tmp_path, "--contract", contract)
    assert result.returncode == 1, result.stdout + result.stderr
    module_name = "forecastd." + file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    assert f"{module_name} -> " in result.stdout
    assert "0 kept, 1 broken." in result.stdout
