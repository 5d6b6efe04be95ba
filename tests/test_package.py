"""What is installed is the package, whole, and nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from what git tracks, as a user's pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\0"):
        if name and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    # No isolation: the builder is installed here, and a test asks no registry.
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path) -> None:
    """Every module, the page and the shipped models are in it, under the one name; tests and tools are not."""
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {"forecastd/__init__.py", "forecastd/__main__.py", "forecastd/py.typed"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in tracked:
        if re.fullmatch(r"(daemon|models|producers)/(\w+\.py|page/.*|shipped/.*)", name) and (ROOT / name).is_file():
            expected.add(f"forecastd/{name}")
    assert held == expected


def test_the_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked anywhere it answers with its version."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = "import sys; sys.path.insert(0, '.'); from forecastd.daemon import cli as c"
    program += "; print(c.__file__); c.main(['--version'])"
    result = subprocess.run([sys.executable, "-Ic", program], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert result.returncode == 0, result.stderr
    version = re.search(r'__version__ = "(.*)"', (ROOT / "__init__.py").read_text())
    assert version and result.stdout.split("\n")[1] == f"forecastd {version[1]}"
    assert Path(result.stdout.split("\n")[0]).resolve().is_relative_to(tmp_path)


def test_every_requirement_has_its_pin() -> None:
    """And the pins are names and versions, without a word on where they come from."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[\w.!+]+", line)] == []
    assert lines == sorted(lines)
    pinned = {line.partition("==")[0] for line in lines}
    wanted = [*PROJECT["dependencies"], *chain.from_iterable(PROJECT["optional-dependencies"].values())]
    assert {re.split(r"[^a-z0-9-]", requirement)[0] for requirement in wanted} <= pinned
