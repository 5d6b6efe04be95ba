"""The command line as a user meets it: its overview, its speed, and how it says what is wrong."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

import forecastd
from forecastd.daemon import cli
from forecastd.daemon.cli import COMMANDS, Entry, main
from forecastd.daemon.errors import CannotStart, Failure, Misuse


def forecastd_says(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forecastd", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=60)


def test_the_version_is_the_packages() -> None:
    """`forecastd --version`."""
    said = forecastd_says("--version")
    assert said.stdout == f"forecastd {forecastd.__version__}\n"


def test_the_overview_has_a_line_for_each_command_there_is() -> None:
    """And none for a command that does not exist yet."""
    said = forecastd_says("--help").stdout
    for name, entry in COMMANDS.items():
        exists = importlib.util.find_spec(f"forecastd.daemon.{entry.module}") is not None
        assert (f"\n  {name} " in said and entry.summary.split()[0] in said) == exists, name


def test_every_command_that_is_listed_has_a_help_text_with_an_example() -> None:
    """And what the overview says of it is a sentence."""
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None and command.help, name
        assert COMMANDS[name].summary.endswith("."), name
        groups = isinstance(command, click.Group)
        assert groups or "forecastd" in (command.epilog or "") + command.help, name


def test_the_overview_imports_no_command_and_nothing_heavy() -> None:
    """Neither numpy nor ZeroMQ, nor a module of a command."""
    code = (
        "import sys; from forecastd.daemon.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    heavy = {"numpy", "zmq", "msgspec", "rich", "tensorflow", "starlette", "prometheus_client", "plotly"}
    assert heavy & set(modules) == set()
    assert {f"forecastd.daemon.{entry.module}" for entry in COMMANDS.values()} & set(modules) == set()


def test_the_overview_is_there_in_less_than_a_third_of_a_second() -> None:
    """The best of five, since this machine may be busy."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        forecastd_says("--help")
        times.append(time.perf_counter() - began)
    assert min(times) < 0.3


def test_an_unknown_command_is_one_line_that_says_where_to_look() -> None:
    """Exit status 2."""
    said = forecastd_says("fly")
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr == "Error: No such command 'fly'. Try 'forecastd --help'.\n"


def test_an_unknown_option_is_one_line_too() -> None:
    """With the command whose help to read."""
    said = forecastd_says("run", "--horizont", "3")
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert said.stderr.endswith("Try 'forecastd run --help'.\n")


def test_no_command_at_all_shows_the_overview() -> None:
    """As wrong usage."""
    said = forecastd_says()
    assert said.returncode == 2
    assert "Commands:" in said.stderr + said.stdout


@pytest.mark.parametrize(("kind", "status"), [(Failure, 1), (Misuse, 2), (CannotStart, 3)])
def test_each_kind_of_failure_has_its_exit_status(
    kind: type[Failure], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says one line, whatever was in its text."""

    @click.command()
    def fail() -> None:
        raise kind("first\nsecond")

    monkeypatch.setattr(cli, "fail", fail, raising=False)
    monkeypatch.setitem(COMMANDS, "fail", Entry("cli", "fail", "Fails."))
    result = CliRunner().invoke(main, ["fail"])
    assert (result.exit_code, result.stdout) == (status, "")
    assert result.stderr == "Error: first second\n"


@pytest.mark.parametrize("error", [ValueError("boom\nboom"), OSError("boom boom"), ZeroDivisionError("boom boom")])
def test_what_nobody_foresaw_is_one_line_and_no_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit status 1; FORECASTD_DEBUG shows the traceback."""

    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "fail", fail, raising=False)
    monkeypatch.setitem(COMMANDS, "fail", Entry("cli", "fail", "Fails."))
    result = CliRunner().invoke(main, ["fail"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {type(error).__name__}: boom boom (FORECASTD_DEBUG=1")
    assert result.stderr.count("\n") == 1
    assert CliRunner().invoke(main, ["fail"], env={"FORECASTD_DEBUG": "1"}).exception is error


def test_a_command_that_ends_well_gives_its_callers_nothing_to_catch() -> None:
    """Called as a function, the group returns."""
    assert main(["config", "page"], standalone_mode=False) is None
