"""The supervisor: starts the processes of the daemon, restarts what dies or hangs, passes signals on, and ends with
them.

It spawns and never forks, speaks JSON lines with each child (`daemon/child.py`), and imports nothing heavy, so it
outlives what it looks after. Signal handlers only record; `Supervisor.run` acts.
"""

from __future__ import annotations

import logging
import os
import selectors
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable

import msgspec

from . import exposure
from .endpoint import host_port, parse, taken, tcp
from .errors import CannotStart, Failure, Misuse
from .process import BROKEN_S, Child, Hello, Spec
from .reload import admitted, merged
from .settings import Settings
from .systemd import Notifier

log = logging.getLogger("forecastd")

#: Seconds that children have to drain; after that they are killed.
DRAIN_S = 8.0
#: Seconds between two signals that are two: `timeout` and a terminal's shell send one to a process and to its group.
TWICE_S = 0.1
#: Seconds until a child that has not read all it was told is told the rest.
UNSENT_S = 0.02


#: One core a process: the engine's products are small, and threads that spin for them cost latency.
_ONE_CORE = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_TENSORFLOW = _ONE_CORE | {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    # It tells of its build at length, each time.
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def _engine_hello(settings: Settings, bound: dict[str, list[str]]) -> Hello:
    board = bound.get("board", [""])[0]
    if board:
        # A restarted engine takes the addresses the first one got, so that whoever knows them finds it again.
        ingest = tuple(
            text if "connect+" in text else f"{parse(text).kind}+{address}"
            for text, address in zip(settings.ingest, bound["ingest"], strict=True)
        )
        settings = msgspec.structs.replace(settings, ingest=ingest, publish=bound["publish"][0])
    return {"settings": settings, "board": board, "folder": bound.get("folder", [""])[0]}


def _trainer_hello(settings: Settings, bound: dict[str, list[str]]) -> Hello | None:
    return {"settings": settings, "link": bound["link"][0]} if bound.get("link") else None


def _web_hello(settings: Settings, bound: dict[str, list[str]]) -> Hello | None:
    if not bound.get("board"):
        return None
    if bound.get("web"):
        settings = msgspec.structs.replace(settings, web=bound["web"][0].rpartition("//")[2])
    return {"settings": settings, "feed": bound["publish"][0], "board": bound["board"][0]}


def specs(settings: Settings) -> list[Spec]:
    """The processes these settings ask for, in the order in which they are started."""
    engine = Spec("engine", _module("engine"), _engine_hello, _ONE_CORE)
    children = [engine]
    if settings.web:
        children.append(Spec("web", _module("web"), _web_hello))
    if settings.finetune:
        # Its loop is silent while it works on one job.
        silent_s = settings.learning.timeout_s
        children.append(Spec("trainer", _module("trainer"), _trainer_hello, _TENSORFLOW, spare=True, silent_s=silent_s))
    return children


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.{name}"]


class Supervisor:
    """The loop over the children. `say` gets a line for each socket with the address really bound, and then `ready`.
    `again` reads the settings once more, for a SIGHUP; without it that is a signal like the others."""

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None],
        children: list[Spec] | None = None,
        notifier: Notifier | None = None,
        again: Callable[[], Settings] | None = None,
    ) -> None:
        self.settings = settings
        self.again = again
        self.admitted = admitted(settings)
        self.asked_to_reload = False
        self.reloaded = {"successful": 1.0, "time": time.time()}
        self.say = say
        self.children = [Child(spec) for spec in (specs(settings) if children is None else children)]
        self.notifier = notifier or Notifier()
        self.bound: dict[str, list[str]] = {}
        self.asked_to_stop: list[float] = []
        self.started = False
        self._told: Hello = {}
        self._notify_at = 0.0
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Start, loop, drain. CannotStart when a child cannot start at all, Failure when the end was not a clean
        one."""
        exposure.check(self.settings)
        check_ports(self.settings)
        self._listen_to_signals()
        try:
            self._make_folder()
            while not self.asked_to_stop:
                self.start()
                self.wait()
                self.watch()
                if self.asked_to_reload:
                    self.reload()
            self.drain()
        finally:
            self.kill()
            for folder in self.bound.get("folder", []):
                shutil.rmtree(folder, ignore_errors=True)
            signal.set_wakeup_fd(-1)
            self._selector.close()

    def start(self) -> None:
        """Starts what is due, greets what can be greeted, and tells the world once all are ready."""
        now = time.monotonic()
        for child in self.children:
            if child.start_at is not None and now >= child.start_at:
                child.spawn(now)
                self._selector.register(child.stdout, selectors.EVENT_READ, child)
            if child.process and not child.greeted and (hello := child.spec.hello(self.settings, self.bound)):
                if child.spec.name == "engine" and self.admitted:
                    hello["clients"] = self.admitted
                child.tell(hello)
                child.greeted = True
            child.flush()
        if not self.started and all(child.ready for child in self.children if not child.spec.spare):
            self.started = True
            self.say("ready")
            self.notifier.tell("READY=1")
        self._tell_state()

    def wait(self, timeout_s: float = 1.0) -> None:
        """Hears what the children say, until there was something, or it is time to look at them."""
        now = time.monotonic()
        due = [child.start_at - now for child in self.children if child.start_at is not None]
        due += [UNSENT_S for child in self.children if child.unsent]
        for key, _ in self._selector.select(max(0.0, min([timeout_s, *due]))):
            if key.data is None:
                os.read(key.fd, 4096)
                continue
            self.hear(key.data)

    def hear(self, child: Child) -> None:
        """Takes in what a child said. Where its sockets are is told to the world the first time; they stay there."""
        for line in child.hear(time.monotonic()):
            if "bound" in line and not child.restarts:
                what, address = str(line["bound"]).split()[0], str(line["bound"]).split()[-1]
                self.bound.setdefault(what, []).append(address)
                if what != "board":
                    self.say(str(line["bound"]))
            if "want" in line:
                self._want(str(line["want"]), str(line.get("link", "")))
        if child.silenced:
            # A closed pipe is readable for ever.
            self._forget(child)

    def _want(self, name: str, link: str) -> None:
        """Starts a spare process, and tells it where it is awaited."""
        self.bound["link"] = [link]
        for child in self.children:
            if child.spec.spare and child.spec.name == name:
                child.want(time.monotonic())

    def _forget(self, child: Child) -> None:
        if child.stdout in self._selector.get_map():
            self._selector.unregister(child.stdout)

    def watch(self) -> None:
        """Buries the dead and plans their return, kills what hangs, and feeds systemd's watchdog while the rest
        works."""
        now = time.monotonic()
        for child in self.children:
            if child.process is None:
                continue
            if child.process.poll() is not None:
                self._dead(child, now)
            elif child.hangs(now):
                log.error("%s hangs: killed", child.spec.name)
                child.hung = True
                child.signal(signal.SIGKILL)
        if self.started and self.notifier.watchdog_s and now >= self._notify_at:
            self._notify_at = now + self.notifier.watchdog_s
            self.notifier.tell("WATCHDOG=1")

    def _dead(self, child: Child, now: float) -> None:
        self.hear(child)
        self._forget(child)
        hung = child.hung
        name, how = child.spec.name, _how(child.bury())
        if not child.wanted:
            return
        if not self.started and not child.spec.spare:
            if child.failed:
                raise (Misuse if child.failed[1] == Misuse.exit_code else CannotStart)(child.failed[0])
            raise CannotStart(f"the process '{name}' {how} before it was ready; its log is above")
        wait_s = child.rest(now)
        why = f" ({child.failed[0]})" if child.failed else ""
        without = ", and the daemon goes on without it" if wait_s == BROKEN_S else ""
        log.error("%s %s%s: started again in %g s%s", name, how, why, wait_s, without)
        for other in self.children:
            if child.spec.spare and not other.spec.spare and other.greeted:
                other.tell({"lost": name, "hung": hung, "again_s": wait_s})
            elif other.spec.spare and name == "engine":
                # The next engine has another link, and asks when it needs one.
                other.unwant()

    def _tell_state(self) -> None:
        """Tells the web process when a process came or went, and what became of a reload."""
        state = {
            c.spec.name: {"up": int(c.ready), "restarts": c.restarts} | ({"spare": 1} if c.spec.spare else {})
            for c in self.children
            if c.wanted
        }
        news = {"processes": state, "reload": dict(self.reloaded)}
        if news != self._told:
            self._told = news
            self._tell("web", news)

    def _tell(self, name: str, news: Hello) -> None:
        for child in self.children:
            if child.spec.name == name and child.greeted:
                child.tell(news)

    def reload(self) -> None:
        """Takes over what may change while the daemon runs. Where the files are not in order, what was in force
        stays."""
        self.asked_to_reload = False
        assert self.again is not None
        try:
            settings = self.again()
            clients = admitted(settings)
        except Exception as error:
            # Whatever it is, a daemon that works must not end of a file that does not.
            log.error("not reloaded, and what was in force stays: %s", getattr(error, "message", error))
            self.reloaded["successful"] = 0.0
            return
        self.settings, later = merged(self.settings, settings)
        self.admitted = clients
        self._tell("engine", {"limits": self.settings.limits, "clients": clients})
        self.reloaded = {"successful": 1.0, "time": time.time()}
        log.info("reloaded: %d clients%s", len(clients), f"; at the next start: {', '.join(later)}" if later else "")

    def drain(self) -> None:
        """Ends the children in order. A second signal ends them at once; Failure if they did not end by themselves."""
        self.notifier.tell("STOPPING=1")
        deadline = time.monotonic() + DRAIN_S
        for child in self.children:
            child.start_at = None
            child.signal(signal.SIGKILL if child.spec.spare else signal.SIGTERM)
        while any(child.alive for child in self.children):
            if self.asked_to_stop[-1] - self.asked_to_stop[0] > TWICE_S:
                raise Failure("ended at once, as asked; what had not been worked off is lost")
            if time.monotonic() > deadline:
                raise Failure(f"not drained within {DRAIN_S:g} s; what had not been worked off is lost")
            self.wait(0.1)
        vital = [child for child in self.children if not child.spec.spare]
        ends = {child.spec.name: child.process.returncode for child in vital if child.process}
        if bad := [f"{name} {_how(status)}" for name, status in ends.items() if status not in (0, -signal.SIGTERM)]:
            raise Failure(f"ended, but {' and '.join(bad)}; the log is above")

    def kill(self) -> None:
        """Leaves no process behind."""
        for child in self.children:
            child.signal(signal.SIGKILL)
            if child.process:
                child.bury()

    def _make_folder(self) -> None:
        """A folder that is this user's alone, for the link between engine and a spare process: who could write to it
        could put weights into the engine."""
        if any(child.spec.spare for child in self.children):
            try:
                self.bound["folder"] = [tempfile.mkdtemp(prefix="forecastd-")]
            except OSError as error:
                log.warning("no folder for temporary files, so nothing is learnt: %s", error)

    def _listen_to_signals(self) -> None:
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        self._selector.register(reading, selectors.EVENT_READ, None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        if self.again:
            signal.signal(signal.SIGHUP, self._reload)
        # Not ignored but heard: the end of a child has to wake the loop.
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _stop(self, *_: object) -> None:
        self.asked_to_stop.append(time.monotonic())

    def _reload(self, *_: object) -> None:
        self.asked_to_reload = True


def check_ports(settings: Settings) -> None:
    """CannotStart, naming the endpoint and who holds it, when one of them cannot be bound: before anything is
    started."""
    endpoints = [*(parse(text) for text in settings.ingest), parse(settings.publish, ("publish",))]
    places = [(e.address, tcp(e.address)) for e in endpoints if not e.connect]
    if settings.web:
        places.append((f"http://{settings.web}", host_port(settings.web)))
    for name, place in places:
        if place and (why := taken(*place)):
            raise CannotStart(f"{name}: {why}; end that process, or choose another port (0: any free one)")


def _how(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
