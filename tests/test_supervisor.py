"""The supervisor over real processes: it starts, restarts, kills what hangs, passes signals on, and ends with them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forecastd.daemon import process as module
from forecastd.daemon.errors import CannotStart
from forecastd.daemon.process import (
    BACKOFF_S,
    BACKOFF_S_MAX,
    BROKEN_S,
    DEATHS_MAX,
    HEALTHY_S,
    Child,
    Spec,
)
from forecastd.daemon.settings import Settings
from forecastd.daemon.supervisor import check_ports, specs
from forecastd.daemon.systemd import Notifier

from .patience import until

#: A child that does as its first line says; it writes down what it was told, and its process id.
CHILD = """
import json, os, signal, sys, time
hello = json.loads(sys.stdin.readline())
say = lambda **line: print(json.dumps(line), flush=True)
note = open(hello["folder"] + "/" + hello["name"], "a", buffering=1)
note.write(json.dumps({"pid": os.getpid(), "hello": hello}) + "\\n")
manner = hello["manner"]
def end(*_):
    note.write(json.dumps({"ended": True}) + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in manner else end)
if "failing" in manner:
    say(failed="the dog ate it", status=hello["status"])
    sys.exit(hello["status"])
if "crashing" in manner:
    sys.exit(9)
if "late" in manner:
    time.sleep(0.3)
if "wanting" in manner:
    say(want="trainer", link="ipc://" + hello["bound"]["folder"][0] + "/x")
if "never" in manner:
    time.sleep(60)
for line in hello["binds"]:
    say(bound=line)
if "silent" not in manner:
    say(beat=time.monotonic())  # before it is ready, so that who waits for that knows that it has beaten
say(ready=True)
while True:
    if "silent" not in manner:
        say(beat=time.monotonic())
    line = sys.stdin.readline() if "reading" in manner else time.sleep(0.1)
    if line == "":
        break  # the supervisor is gone
    if line == "":
        end()
    elif line:
        note.write(line)
"""

#: A supervisor over such children, with clocks that suit a test.
PARENT = """
import json, sys, logging
from forecastd.daemon import process, supervisor
from forecastd.daemon.process import Spec
from forecastd.daemon.settings import Settings
from forecastd.daemon.errors import Failure
logging.basicConfig(level=logging.INFO, format="%(message)s")
plan = json.loads(sys.argv[1])
for name, value in plan["constants"].items():
    setattr(process if hasattr(process, name) else supervisor, name, value)
def spec(child):
    def hello(settings, bound):
        return None if child.get("needs") and child["needs"] not in bound else {**child, "bound": bound}
    spare, silent_s = child.get("spare", False), child.get("silent_s")
    return Spec(child["name"], [sys.executable, "-c", plan["code"]], hello, {"PLANNED": "1"}, spare, silent_s)
settings = Settings(ingest=("tcp://127.0.0.1:0",), publish="tcp://127.0.0.1:0", web="")
try:
    supervisor.Supervisor(settings, lambda line: print(line, flush=True), [spec(c) for c in plan["children"]]).run()
except Failure as failure:
    print(failure.format_message(), file=sys.stderr, flush=True)
    sys.exit(failure.exit_code)
"""


class Stage:
    """A supervisor process, what it printed, and what its children wrote down."""

    def __init__(
        self, folder: Path, *children: dict[str, Any], environment: dict[str, str] | None = None, **constants: float
    ) -> None:
        self.folder = folder
        for child in children:
            child.setdefault("manner", "")
            child.update(folder=str(folder), binds=child.get("binds", []))
        plan = {"children": children, "constants": constants, "code": CHILD}
        self._log = (folder / "log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, json.dumps(plan)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def lines(self) -> list[str]:
        """What it prints, up to `ready`."""
        assert self.process.stdout
        lines = []
        while not lines or lines[-1] != "ready":
            line = self.process.stdout.readline()
            assert line, self.log()
            lines.append(line.rstrip("\n"))
        return lines

    def notes(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def lives(self, name: str) -> list[int]:
        """The process ids it has had."""
        return [note["pid"] for note in self.notes(name) if "pid" in note]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def close(self) -> None:
        """Nothing is left; if the supervisor ended by itself, nothing may have been left."""
        pids = [pid for name in ("engine", "web", "trainer") for pid in self.lives(name)]
        ended = self.process.poll() is not None
        self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()
        self._log.close()
        left = [pid for pid in pids if not gone(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not (ended and left), "children outlived their supervisor"


@pytest.fixture
def stages(tmp_path: Path) -> Iterator[Any]:
    made: list[Stage] = []

    def make(*children: dict[str, Any], **extra: Any) -> Stage:
        made.append(Stage(tmp_path, *children, **extra))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


ENGINE = {
    "name": "engine",
    "binds": ["ingest router tcp://127.0.0.1:1", "publish tcp://127.0.0.1:2", "board tcp://127.0.0.1:3"],
}
WEB = {"name": "web", "needs": "board", "binds": ["web http://127.0.0.1:4"], "manner": "reading"}


# ---- start


def test_it_prints_what_was_bound_and_then_ready(stages: Any) -> None:
    """But for the socket between engine and web, which is nobody's business."""
    assert stages(dict(ENGINE), dict(WEB)).lines() == [
        "ingest router tcp://127.0.0.1:1",
        "publish tcp://127.0.0.1:2",
        "web http://127.0.0.1:4",
        "ready",
    ]


def test_all_start_at_once_and_one_is_told_what_the_other_bound(stages: Any) -> None:
    """The web process waits for its first line, not for its start."""
    stage = stages(dict(ENGINE, manner="late"), dict(WEB))
    stage.lines()
    (hello,) = [note["hello"] for note in stage.notes("web") if "hello" in note]
    assert hello["bound"] == {
        "ingest": ["tcp://127.0.0.1:1"],
        "publish": ["tcp://127.0.0.1:2"],
        "board": ["tcp://127.0.0.1:3"],
    }


def test_the_children_are_of_groups_of_their_own_and_have_their_environment(stages: Any) -> None:
    """So that Ctrl-C in a terminal reaches the supervisor alone."""
    stage = stages(dict(ENGINE))
    stage.lines()
    (pid,) = stage.lives("engine")
    assert os.getpgid(pid) == pid
    assert b"PLANNED=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.parametrize("status", [2, 3])
def test_a_child_that_cannot_start_is_the_end_in_its_words(stages: Any, status: int) -> None:
    """With the exit status it asks for; nobody is restarted."""
    stage = stages(dict(ENGINE, manner="failing", status=status), dict(WEB))
    assert stage.process.wait(20) == status
    assert stage.log() == "the dog ate it\n"
    assert len(stage.lives("engine")) == 1


def test_a_child_that_dies_before_it_was_ready_is_the_end_too(stages: Any) -> None:
    """Exit status 3."""
    stage = stages(dict(ENGINE, manner="crashing"))
    assert stage.process.wait(20) == 3
    assert stage.log() == "the process 'engine' ended with status 9 before it was ready; its log is above\n"


# ---- restart


def test_a_child_that_dies_is_started_again_where_it_was(stages: Any) -> None:
    """It is told what was bound the first time, and the others go on; the web process hears of it."""
    stage = stages(dict(ENGINE), dict(WEB))
    stage.lines()
    (first,) = stage.lives("engine")
    os.kill(first, signal.SIGKILL)
    until(lambda: len(stage.lives("engine")) == 2)
    second = [note["hello"] for note in stage.notes("engine") if "hello" in note][1]
    assert second["bound"]["publish"] == ["tcp://127.0.0.1:2"]
    assert len(stage.lives("web")) == 1
    assert "engine was ended by SIGKILL: started again in 0.1 s" in stage.log()

    def told() -> list[Any]:
        return [note["processes"] for note in stage.notes("web") if "processes" in note]

    up = {"engine": {"up": 1, "restarts": 1}, "web": {"up": 1, "restarts": 0}}
    until(lambda: told()[-1] == up)
    assert {"engine": {"up": 0, "restarts": 1}, "web": {"up": 1, "restarts": 0}} in told()
    assert told()[0]["engine"]["restarts"] == 0


def test_one_that_dies_again_and_again_is_waited_for_longer_and_longer() -> None:
    """Twice as long each time, up to a bound; a minute of health is forgiven all."""
    child = Child(Spec("x", [], lambda *_: {}))
    child.started_at = 0.0
    waits = [child.rest(1.0) for _ in range(12)]
    assert waits[:4] == [BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S, 8 * BACKOFF_S]
    assert waits[-1] == BACKOFF_S_MAX
    assert child.start_at == 1.0 + BACKOFF_S_MAX
    assert child.rest(HEALTHY_S + 1.0) == BACKOFF_S
    assert child.restarts == 13


def test_a_child_whose_loop_hangs_is_killed_and_started_again(stages: Any) -> None:
    """It has beaten once; SIGSTOP keeps it from beating on, and it is alive all the while."""
    stage = stages(dict(ENGINE), SILENT_S=0.5)
    stage.lines()
    (first,) = stage.lives("engine")
    os.kill(first, signal.SIGSTOP)
    until(lambda: len(stage.lives("engine")) == 2)
    assert "engine hangs: killed" in stage.log()
    assert gone(first)


def test_one_that_has_never_beaten_is_not_taken_for_hanging(stages: Any) -> None:
    """Not every child has a loop that can say so."""
    stage = stages(dict(ENGINE), dict(WEB, manner="silent reading"), SILENT_S=0.2)
    stage.lines()
    engine = stage.lives("engine")[0]
    os.kill(engine, signal.SIGSTOP)
    until(lambda: len(stage.lives("engine")) == 2)
    assert len(stage.lives("web")) == 1


def test_one_that_never_gets_ready_is_killed(stages: Any) -> None:
    """It may take its time, but not for ever."""
    stage = stages(dict(ENGINE, manner="never"), START_S=0.1)
    assert stage.process.wait(20) == 3
    assert "engine hangs: killed" in stage.log()


# ---- a spare one

WANTING = dict(ENGINE, manner="wanting reading")
TRAINER = {"name": "trainer", "needs": "link", "spare": True}


def hellos(stage: Stage, name: str) -> list[dict[str, Any]]:
    return [note["hello"] for note in stage.notes(name) if "hello" in note]


def test_a_spare_process_is_not_started_before_it_is_wanted(stages: Any) -> None:
    """The daemon is ready without it, and nothing is told of it."""
    stage = stages(dict(ENGINE, manner="reading"), dict(TRAINER), dict(WEB))
    assert stage.lines()[-1] == "ready"
    until(lambda: [note for note in stage.notes("web") if "processes" in note])
    assert all("trainer" not in note["processes"] for note in stage.notes("web") if "processes" in note)
    assert stage.end() == 0
    assert stage.lives("trainer") == []


def test_a_spare_process_is_started_when_it_is_wanted_and_told_where(stages: Any) -> None:
    """In a folder that is its user's alone and goes when the daemon goes."""
    stage = stages(dict(WANTING), dict(TRAINER))
    stage.lines()
    until(lambda: stage.lives("trainer"))
    (hello,) = hellos(stage, "trainer")
    folder = Path(hello["bound"]["folder"][0])
    assert hello["bound"]["link"] == [f"ipc://{folder}/x"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert stage.end() == 0
    assert not folder.exists()


def test_nothing_waits_for_a_spare_process_that_does_not_get_ready(stages: Any) -> None:
    """Nor does its end, which is at once and no failure."""
    stage = stages(dict(WANTING), dict(TRAINER, manner="never deaf"))
    assert stage.lines()[-1] == "ready"
    until(lambda: stage.lives("trainer"))
    assert stage.end() == 0
    assert gone(stage.lives("trainer")[0])


def test_who_wanted_a_spare_process_hears_that_it_is_lost(stages: Any) -> None:
    """And whether it died or hung, by a bound of its own."""
    stage = stages(dict(WANTING), dict(TRAINER, silent_s=0.3), dict(WEB))
    stage.lines()

    def up(restarts: int) -> bool:
        """Whether it is ready, and so has beaten: one that has not would only be late."""
        state = {"up": 1, "restarts": restarts, "spare": 1}
        return any(note.get("processes", {}).get("trainer") == state for note in stage.notes("web"))

    until(lambda: up(0))
    os.kill(stage.lives("trainer")[0], signal.SIGKILL)
    until(lambda: up(1))
    os.kill(stage.lives("trainer")[1], signal.SIGSTOP)
    until(lambda: len(stage.lives("trainer")) == 3)
    lost = [note for note in stage.notes("engine") if "lost" in note]
    assert lost == [
        {"lost": "trainer", "hung": False, "again_s": BACKOFF_S},
        {"lost": "trainer", "hung": True, "again_s": 2 * BACKOFF_S},
    ]
    assert len(stage.lives("engine")) == 1


def test_a_spare_process_that_dies_again_and_again_is_left_alone(stages: Any) -> None:
    """After so many deaths; the others go on, and who wanted it is told for how long."""
    stage = stages(dict(WANTING), dict(TRAINER, manner="crashing"), BACKOFF_S_MAX=0.1)
    stage.lines()
    until(lambda: "started again in 3600 s" in stage.log())
    assert len(stage.lives("trainer")) == DEATHS_MAX
    until(lambda: [note for note in stage.notes("engine") if note.get("again_s") == BROKEN_S])
    assert stage.end() == 0


def test_a_spare_process_that_gets_something_done_is_not_left_alone() -> None:
    """Deaths count only in a row."""
    child = Child(Spec("x", [], lambda *_: {}, spare=True))
    child.stdout, writing = os.pipe()
    try:
        for _ in range(DEATHS_MAX - 1):
            child.rest(1.0)
        os.write(writing, b'{"done": true}\n')
        child.hear(1.0)
        assert child.rest(1.0) < BROKEN_S
        for _ in range(DEATHS_MAX - 2):
            assert child.rest(1.0) < BROKEN_S
        assert child.rest(1.0) == BROKEN_S
    finally:
        os.close(writing)
        os.close(child.stdout)


def test_when_the_engine_dies_its_trainer_ends_and_comes_back_when_the_next_one_wants_it(stages: Any) -> None:
    """What the trainer knows is the dead engine's."""
    stage = stages(dict(WANTING), dict(TRAINER))
    stage.lines()
    until(lambda: stage.lives("trainer"))
    os.kill(stage.lives("engine")[0], signal.SIGKILL)
    until(lambda: len(stage.lives("trainer")) == 2)
    assert gone(stage.lives("trainer")[0])
    assert len(stage.lives("engine")) == 2


# ---- end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_children_and_then_the_supervisor(stages: Any, number: int) -> None:
    """Exit status 0; the children were asked and not killed."""
    stage = stages(dict(ENGINE), dict(WEB, manner=""))
    stage.lines()
    assert stage.end(number) == 0
    assert {"ended": True} in stage.notes("engine")
    assert {"ended": True} in stage.notes("web")


def test_a_second_signal_ends_all_at_once(stages: Any) -> None:
    """Though a child does not hear; exit status 1."""
    stage = stages(dict(ENGINE, manner="deaf"), DRAIN_S=60.0)
    stage.lines()
    began = time.monotonic()
    stage.process.send_signal(signal.SIGTERM)
    # The two must not be taken for one.
    assert not _ends_within(stage, 0.3)
    assert stage.end() == 1
    assert time.monotonic() - began < 10
    assert "ended at once, as asked" in stage.log()


def test_one_signal_that_comes_twice_is_one(stages: Any) -> None:
    """As `timeout` sends it, to the process and to its group."""
    stage = stages(dict(ENGINE))
    stage.lines()
    stage.process.send_signal(signal.SIGTERM)
    assert stage.end() == 0


def test_a_child_that_does_not_end_is_killed_in_the_end(stages: Any) -> None:
    """Exit status 1, since it did not drain."""
    stage = stages(dict(ENGINE, manner="deaf"), DRAIN_S=0.3)
    stage.lines()
    assert stage.end() == 1
    assert "not drained within 0.3 s" in stage.log()


def test_a_signal_before_anything_is_ready_ends_it_as_well(stages: Any) -> None:
    """The children that have no handler yet are simply gone."""
    stage = stages(dict(ENGINE, manner="late"))
    until(lambda: stage.lives("engine"))
    assert stage.end() == 0


def _ends_within(stage: Stage, seconds: float) -> bool:
    try:
        stage.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


# ---- ports


def test_a_port_that_is_taken_is_named_with_who_holds_it() -> None:
    """Before any process is started; each of the endpoints is looked at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = {"ingest": ("tcp://127.0.0.1:0",), "publish": "tcp://127.0.0.1:0", "web": "127.0.0.1:0"}
        name = Path("/proc/self/comm").read_text().strip()
        holder = f"taken by {name} (pid {os.getpid()})"
        for setting, value, shown in (
            ("ingest", (f"pull+tcp://127.0.0.1:{port}",), f"tcp://127.0.0.1:{port}"),
            ("ingest", (f"tcp://*:{port}",), f"tcp://*:{port}"),
            ("publish", f"tcp://127.0.0.1:{port}", f"tcp://127.0.0.1:{port}"),
            ("web", f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"),
        ):
            with pytest.raises(CannotStart) as caught:
                check_ports(Settings(**{**free, setting: value}))  # type: ignore[arg-type]
            assert caught.value.format_message().startswith(f"{shown}: {holder}; ")
        check_ports(Settings(**{**free, "ingest": (f"sub+connect+tcp://127.0.0.1:{port}",)}))  # type: ignore[arg-type]
    check_ports(Settings(**free))  # type: ignore[arg-type]


# ---- what the real ones are told


def test_without_a_web_address_there_is_no_web_process() -> None:
    """`web = ""`."""
    assert [spec.name for spec in specs(Settings())] == ["engine", "web", "trainer"]
    assert [spec.name for spec in specs(Settings(web=""))] == ["engine", "trainer"]


def test_a_daemon_that_is_not_to_learn_has_no_trainer() -> None:
    """`finetune = false`; otherwise it has the time of one job before it is taken for hanging."""
    assert [spec.name for spec in specs(Settings(finetune=False))] == ["engine", "web"]
    trainer = specs(Settings())[-1]
    assert (trainer.spare, trainer.silent_s) == (True, Settings().learning.timeout_s)


def test_a_restarted_engine_gets_the_addresses_of_the_first() -> None:
    """Kinds and connections stay as they were configured."""
    settings = Settings(
        ingest=("tcp://127.0.0.1:0", "pull+tcp://127.0.0.1:0", "sub+connect+tcp://127.0.0.1:9"),
        publish="tcp://127.0.0.1:0",
    )
    engine, web, trainer = specs(settings)
    assert engine.hello(settings, {}) == {"settings": settings, "board": "", "folder": ""}
    bound = {
        "ingest": ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:9"],
        "publish": ["tcp://127.0.0.1:3"],
        "board": ["tcp://127.0.0.1:4"],
        "web": ["http://127.0.0.1:5"],
    }
    again = engine.hello(settings, bound)
    assert again and again["board"] == "tcp://127.0.0.1:4"
    assert again["settings"].ingest == (
        "router+tcp://127.0.0.1:1",
        "pull+tcp://127.0.0.1:2",
        "sub+connect+tcp://127.0.0.1:9",
    )
    assert again["settings"].publish == "tcp://127.0.0.1:3"
    assert web.hello(settings, {}) is None
    told = web.hello(settings, bound)
    assert told and (told["feed"], told["board"]) == ("tcp://127.0.0.1:3", "tcp://127.0.0.1:4")
    assert told["settings"].web == "127.0.0.1:5"
    assert trainer.hello(settings, bound) is None
    assert trainer.hello(settings, {**bound, "link": ["ipc:///x"]}) == {"settings": settings, "link": "ipc:///x"}


def test_the_supervisor_imports_nothing_heavy() -> None:
    """Nor what its children need: it is there first and stays."""
    code = "import sys, forecastd.daemon.run; print(*{name.partition('.')[0] for name in sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "zmq", "starlette", "tensorflow", "rich", "prometheus_client"} & set(found) == set()


# ---- systemd


def test_systemd_is_told_what_it_asks_to_be_told(stages: Any, tmp_path: Path) -> None:
    """READY once all are ready, WATCHDOG while it runs, STOPPING at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000", "WATCHDOG_PID": ""}
        stage = stages(dict(ENGINE), environment=environment)
        assert [systemd.recv(99) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert stage.end() == 0
        while (said := systemd.recv(99)) == b"WATCHDOG=1":
            pass
        assert said == b"STOPPING=1"


def test_the_watchdog_is_anothers_where_its_process_id_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And without systemd nothing is told to anybody."""
    assert Notifier({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 1.0
    assert Notifier({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}).watchdog_s is None
    assert Notifier({}).watchdog_s is None
    Notifier({}).tell("READY=1")
    Notifier({"NOTIFY_SOCKET": "/nowhere"}).tell("READY=1")


def test_an_abstract_socket_is_found() -> None:
    """Its name starts with @ in the environment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0forecastd-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": f"@forecastd-test-{os.getpid()}"}).tell("READY=1")
        systemd.settimeout(20)
        assert systemd.recv(99) == b"READY=1"


def test_the_times_are_sane() -> None:
    """A hanging child is found before systemd gives up on the whole, and a step's time is far below it."""
    assert module.SILENT_S < module.START_S
    assert module.BACKOFF_S < module.BACKOFF_S_MAX < module.HEALTHY_S
