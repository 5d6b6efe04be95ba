"""`forecastd produce` as a user runs it, against a real `forecastd run`."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from forecastd.daemon.produce import produce
from forecastd.daemon.simulated import KINDS
from forecastd.producers.waves import WAVES

FORECASTD = [sys.executable, "-m", "forecastd"]


class Daemon(NamedTuple):
    """Where a running daemon listens."""

    router: str
    pull: str
    web: str

    def samples(self) -> dict[str, int]:
        """How many samples each series has had."""
        with urllib.request.urlopen(f"{self.web}/metrics", timeout=20) as page:
            text = page.read().decode()
        found = re.findall(r'^forecastd_series_samples_total\{series="(.*)"\} (.*)$', text, re.MULTILINE)
        return {name: int(float(count)) for name, count in found}

    def has(self, **samples: int) -> bool:
        """Waits for the page to show these counts; False when it does not in time."""
        deadline = time.monotonic() + 20
        wanted = {name.replace("_", "-"): count for name, count in samples.items()}
        while not wanted.items() <= self.samples().items():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    command = [*FORECASTD, "run", "--ephemeral", "--state", str(tmp_path_factory.mktemp("state"))]
    for option, address in (("ingest", ""), ("ingest", "pull+"), ("publish", "")):
        command += [f"--{option}", f"{address}tcp://127.0.0.1:0"]
    command += ["--web", "127.0.0.1:0", "--experts", "naive", "--experts", "ses"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = "".join(iter(process.stdout.readline, "ready\n"))
            where = dict(re.findall(r"^(?:ingest )?(router|pull|web) (\S+)$", said, re.MULTILINE))
            yield Daemon(where["router"], where["pull"], where["web"])
        finally:
            process.terminate()


def run(*arguments: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
    """`forecastd produce` with these arguments, to its end."""
    command = [*FORECASTD, "produce", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload, no-any-return]


def test_a_wave_is_sent_acknowledged_and_says_its_floor(daemon: Daemon) -> None:
    done = run("sine", "--to", daemon.router, "--rate", "0", "--count", "500")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "sine: one tone; noise floor (RMSE) 0.0866",
        "sent 500, acknowledged 500, refused 0",
    ]
    assert done.stderr == ""
    assert daemon.has(sine=500)


def test_a_second_run_with_the_same_times_is_told_why_it_is_refused(daemon: Daemon) -> None:
    for _ in range(2):
        done = run("sine", "--to", daemon.router, "--rate", "0", "--count", "20", "--series", "twice")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "sent 20, acknowledged 0, refused 20 (duplicate 1, late 19)"
    assert "those series already have samples of a later time" in done.stderr


def test_series_are_numbered_or_named(daemon: Daemon) -> None:
    assert run("waves", "--kind", "chirp", "--series", "3", "--to", daemon.router, "--rate", "0", "--count", "9").stdout
    assert daemon.has(chirp_1=9, chirp_2=9, chirp_3=9)
    options = ("--kind", "square", "--series", "valve", "--series", "lid", "--rate", "0", "--count", "9")
    assert run("waves", *options, "--to", daemon.router).returncode == 0
    assert daemon.has(valve=9, lid=9)


def test_all_waves_at_once_over_a_socket_without_acknowledgements(daemon: Daemon) -> None:
    done = run("waves", "--to", f"pull+{daemon.pull}", "--rate", "0", "--count", "50", "--seed", "4")
    assert done.returncode == 0
    *floors, last = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in floors] == list(KINDS)
    assert f"outliers: {WAVES['outliers'].about}; noise floor (RMSE) {WAVES['outliers'](0).floor:.4g}" in floors
    assert re.fullmatch(r"sent \d+, acknowledged none \(there is no way back on this socket\), refused 0", last)
    assert daemon.has(two_tone=50, heavy_tails=50)


def test_a_paced_wave_ends_in_time_and_its_samples_have_their_times(daemon: Daemon) -> None:
    begin = time.time()
    done = run("sine", "--to", daemon.router, "--rate", "50", "--for", "1", "--series", "paced")
    sent = int(re.findall(r"sent (\d+), acknowledged \1, refused 0", done.stdout)[0])
    assert 45 <= sent <= 50
    assert daemon.has(paced=sent)
    with urllib.request.urlopen(f"{daemon.web}/metrics", timeout=20) as page:
        assert 'series="paced"' in page.read().decode()
    assert time.time() - begin < 15


def test_recordings_are_played_flat_out_with_what_was_skipped(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "north.csv").write_text("timestamp,value\n" + "".join(f"{k},{k}\n" for k in range(10_000, 11_000)))
    (tmp_path / "plant.csv").write_text("time,hot,cold\n2024-01-01,1,\n2024-01-02,2,5\n2024-01-03,nan,6\n")
    done = run("csv", tmp_path / "north.csv", tmp_path / "plant.csv", "--rate", "0", "--to", daemon.router)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "north: 1000 samples",
        "hot: 2 samples, 1 empty cells skipped",
        "cold: 2 samples, 1 empty cells skipped",
        "sent 1004, acknowledged 1004, refused 0",
    ]
    assert daemon.has(north=1000, hot=2, cold=2)


def test_one_series_of_a_recording_at_many_times_its_pace(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "slow.csv"
    path.write_text("time,quick,other\n" + "".join(f"{k * 3600},{k},{k}\n" for k in range(10)))
    begin = time.monotonic()
    done = run("csv", path, "--series", "quick", "--speed", "36000", "--now", "--to", daemon.router)
    assert time.monotonic() - begin > 0.9
    assert done.stdout.splitlines() == ["quick: 10 samples", "sent 10, acknowledged 10, refused 0"]
    assert daemon.has(quick=10) and "other" not in daemon.samples()


def test_lines_are_samples_and_bad_ones_are_counted(daemon: Daemon) -> None:
    lines = "# from a script\nin 1\nin 2 1700000000\nwhat\nin nan\nin 3 2023-11-14T22:13:21Z"
    done = run("stdin", "--to", daemon.router, input=lines)
    assert done.returncode == 0
    assert done.stdout == "sent 3, acknowledged 2, refused 3 (late 1, malformed 1, nonfinite 1)\n" or (
        done.stdout == "sent 3, acknowledged 1, refused 4 (late 2, malformed 1, nonfinite 1)\n"
    )
    assert done.stderr.splitlines()[0] == "line 4: 'what' is not `name value [time]`"


def test_lines_without_names_and_a_count(daemon: Daemon) -> None:
    done = run(
        "stdin", "--series", "counter", "--count", "30", "--to", daemon.router, input="\n".join(map(str, range(99)))
    )
    assert done.stdout == "sent 30, acknowledged 30, refused 0\n"
    assert daemon.has(counter=30)


def test_complaints_about_bad_lines_are_bounded(daemon: Daemon) -> None:
    done = run("stdin", "--to", daemon.router, input="bad\n" * 1000)
    assert done.stdout == "sent 0, acknowledged 0, refused 1000 (malformed 1000)\n"
    assert len(done.stderr.splitlines()) == 10
    assert done.stderr.endswith("; further ones are only counted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("source", [("sine", "--rate", "200"), ("sine", "--rate", "0"), ("stdin",)])
def test_a_signal_ends_it_cleanly(daemon: Daemon, number: signal.Signals, source: tuple[str, ...]) -> None:
    name = f"end-{number}-{source[-1]}"
    command = [*FORECASTD, "produce", *source, "--series", name, "--to", daemon.router]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        if source == ("stdin",):
            process.stdin.write("1\n2\n3\n")
            process.stdin.flush()
        deadline = time.monotonic() + 20
        while name not in daemon.samples():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    sent, acked = map(int, re.findall(r"^sent (\d+), acknowledged (\d+), refused", out, re.MULTILINE)[0])
    assert sent == acked > 0
    assert "Traceback" not in err


def test_a_daemon_that_comes_late_gets_everything(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/ingest"
    command = [*FORECASTD, "produce", "stdin", "--series", "early", "--to", address]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write("1\n2\n3\n")
        process.stdin.flush()
        assert process.stderr.readline() == f"nobody answers at {address}; waiting\n"
        late = ["run", "--ephemeral", "--ingest", address, "--publish", "tcp://127.0.0.1:0", "--web", ""]
        with subprocess.Popen([*FORECASTD, *late], stdout=subprocess.PIPE, text=True) as daemon:
            try:
                assert daemon.stdout is not None and "ready\n" in iter(daemon.stdout.readline, "")
                out, _ = process.communicate("4\n", timeout=30)
            finally:
                daemon.terminate()
    assert out == "sent 4, acknowledged 4, refused 0\n"


def test_what_nobody_took_waits_in_the_spool_for_the_next_run(daemon: Daemon, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    nowhere = f"ipc://{tmp_path}/nowhere"
    first = run("stdin", "--series", "kept", "--spool", spool, "--to", nowhere, input="1\n2\n")
    assert first.returncode == 0
    assert first.stdout == "sent 0, acknowledged 0, refused 0\n"
    assert f"2 samples wait in {spool} for the next run" in first.stderr
    second = run("stdin", "--series", "kept", "--spool", spool, "--to", daemon.router, input="3\n")
    assert second.stdout == "sent 3, acknowledged 3, refused 0\n"
    assert daemon.has(kept=3)


def test_without_a_daemon_and_a_spool_it_fails_and_says_what_to_do(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/nowhere"
    done = run("sine", "--rate", "0", "--count", "3", "--to", address)
    assert done.returncode == 1
    assert done.stdout.endswith("sent 0, acknowledged 0, refused 0\n")
    expected = f"Error: 3 samples were not acknowledged; is `forecastd run` listening at {address}?"
    assert done.stderr.splitlines()[-1] == expected


def test_prometheus_results_become_forecasts(daemon: Daemon, debian: Callable[[str], str], tmp_path: Path) -> None:
    address = daemon.web.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: f, static_configs: [{{targets: ['{address}']}}]}}]\n"
    )
    where = "127.0.0.1:" + str(free_port())
    command = [debian("prometheus"), f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with subprocess.Popen([*command, f"--web.listen-address={where}"], stderr=subprocess.DEVNULL) as server:
        try:
            options = ("--url", f"http://{where}", "--every", "0.5", "--for", "8", "--series", "self-{job}")
            done = run("prometheus", 'up{job="f"}', *options, "--to", daemon.router)
        finally:
            server.terminate()
    sent = int(re.findall(r"sent (\d+), acknowledged \1, refused 0", done.stdout)[0])
    assert sent >= 2
    assert daemon.has(self_f=sent)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_prometheus_that_is_not_there_is_asked_again_and_a_wrong_query_is_not(daemon: Daemon) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run("prometheus", "up", "--url", url, "--every", "0.1", "--count", "3", "--to", daemon.router)
    assert done.returncode == 0
    assert done.stderr == f"{url} does not answer: Connection refused; asking again\n"
    wrong = run("prometheus", "up", "--url", daemon.web, "--to", daemon.router)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("Error: Prometheus refuses the query: ")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["sine", "--to", "nowhere"], 2, "--to 'nowhere' is no endpoint; write tcp://HOST:PORT"),
        (["sine", "--period", "0"], 2, "period and step must be above zero"),
        (["sine", "--series", "0"], 2, "--series: at least 1"),
        (["waves", "--series", "x"], 2, "a name for several kinds of waves"),
        (["sine", "--series", "x", "--series", "x"], 2, "each name once"),
        (["csv", "{tmp}/one.csv", "--speed", "2", "--rate", "3"], 2, "give one of them"),
        (["csv", "{tmp}/one.csv", "--now", "--rate", "0"], 2, "--now needs a pace"),
        (["csv", "{tmp}/one.csv", "--series", "two"], 2, "no series 'two'; there is one"),
        (["csv", "{tmp}/bad.csv"], 1, "bad.csv:2: 'x' is not a number"),
        (["csv", "{tmp}/none.csv"], 2, "does not exist"),
        (["csv", "{tmp}/empty.csv"], 1, "nothing to send: all cells are empty"),
        (["prometheus", "up", "--url", "here"], 2, "is no address of a Prometheus"),
        (["prometheus", "up", "--series", "{{"], 2, "is no format of labels"),
        (["sine", "--spool", "{tmp}/one.csv"], 3, "is no spool of a producer"),
        (["sine", "--spool", "{tmp}/no/folder"], 3, "No such file or directory"),
    ],
)
def test_wrong_usage_is_told_in_a_line(arguments: list[str], status: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("timestamp,value\n1,2\n")
    (tmp_path / "bad.csv").write_text("timestamp,value\n1,x\n")
    (tmp_path / "empty.csv").write_text("timestamp,value\n1,\n")
    done = CliRunner().invoke(produce, [argument.format(tmp=tmp_path) for argument in arguments])
    assert done.exit_code == status
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_the_kinds_on_the_command_line_are_those_there_are() -> None:
    assert set(KINDS) == set(WAVES) - {"sine"}
    page = CliRunner().invoke(produce, ["waves", "--help"]).output
    assert all(f"  {kind} " in page for kind in KINDS)


def test_every_command_has_examples() -> None:
    for command in ("sine", "waves", "csv", "stdin", "prometheus"):
        page = CliRunner().invoke(produce, [command, "--help"]).output
        assert f"forecastd produce {command}" in page.partition("Examples:")[2]
    assert json.dumps(CliRunner().invoke(produce, ["--help"]).output).count("forecastd produce") >= 5


PAGE = (Path(__file__).resolve().parent.parent / "docs" / "producers.md").read_text()


def test_the_programs_on_the_page_run_as_they_stand(daemon: Daemon) -> None:
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        program = program.replace("tcp://127.0.0.1:5555", daemon.router)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert daemon.has(boiler=2, inlet=1, outlet=1, pump=3)


def test_the_commands_on_the_page_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boiler.csv").write_text("timestamp,value\n1,2\n")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"forecastd produce ([^#\n`]*)", "".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)))
    assert len(lines) == 5
    for line in lines:
        name, *arguments = shlex.split(line)
        with produce.commands[name].make_context(name, arguments) as context:
            assert context.params["to"] == "tcp://127.0.0.1:5555"


def test_the_floors_on_the_page_are_those_of_the_waves() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert {kind: float(floor) for kind, _, floor in rows} == {
        kind: float(f"{wave().floor:.4g}") for kind, wave in WAVES.items()
    }
    assert all(about.startswith(WAVES[kind].about) for kind, about, _ in rows)
