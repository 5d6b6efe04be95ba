"""The commands of the README, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)
SHOWN = [line for block in re.findall(r"^```text\n(.*?)^```$", README, re.M | re.S) for line in block.splitlines()]
SHOWN_FORECASTS = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", README, re.M | re.S)]
TOUR = next((block for block in BLOCKS if "forecastd run" in block), "")

#: Brings the loopback of a new network up, then becomes the command given.
LOOPBACK = """
import fcntl, os, socket, struct, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
os.execvp(sys.argv[1], sys.argv[1:])
"""


@cache
def network_of_its_own() -> tuple[str, ...]:
    """What gives a command a network of its own, where the usual ports are free; nothing where that is forbidden."""
    for unshare in (("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net")):
        prefix = (*unshare, sys.executable, "-c", LOOPBACK)
        if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    return ()


def run(script: str, timeout_s: float, **environment: str) -> str:
    """What `script` prints, run in the checkout; it must end by itself, with status 0, and leave nothing running."""
    command = [*network_of_its_own(), "bash", "-euo", "pipefail", "-c", script]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
                left_over = True
            except ProcessLookupError:
                left_over = False
    assert process.returncode == 0, out + err
    assert not left_over, "something was still running when the script had ended"
    return out


def test_the_first_commands_are_those_that_everything_starts_with() -> None:
    assert BLOCKS[:2] == ["make demo\n", "make test\n"]


def test_the_demo_shows_where_everything_is_and_ends_by_itself() -> None:
    """`make demo`, told to end after some seconds."""
    out = run(BLOCKS[0], 90, ARGS="--for 6")
    assert "http://127.0.0.1:" in out


def shape(line: str) -> str:
    """A line with its numbers left out, except those that are part of an address or in quotes, spaces single."""
    return " ".join(re.sub(r'(?<![":/.\w])[-+]?\d[\d.:e+-]*', "0", line).split())


def test_the_tour_goes_as_written_and_prints_what_the_readme_shows() -> None:
    """Each line shown comes out of it, with numbers of its own, and the forecasts have the fields that are shown."""
    lines = run(TOUR, 60).splitlines()
    forecasts = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(forecasts) == len(SHOWN_FORECASTS) == 1
    for shown, real in zip(SHOWN_FORECASTS, forecasts, strict=True):
        assert shown.keys() <= real.keys()
        assert shown["experts"].keys() == shown["weights"].keys() == real["experts"].keys()
        assert (shown["series"], shown["level"], shown["status"]) == (real["series"], real["level"], real["status"])
    printed = {shape(line) for line in lines}
    assert [line for line in SHOWN if shape(line) not in printed] == []
    assert len(SHOWN) == 7


def test_every_block_of_commands_is_run_by_a_test_here() -> None:
    """A block that is added needs its test."""
    assert [block for block in BLOCKS if block not in (*BLOCKS[:2], TOUR)] == []
