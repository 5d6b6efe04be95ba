"""The engine: the process that takes samples in and sends forecasts out. Start, loop, drain: its life is on one screen.

It is told its settings on stdin and reports on stdout (`daemon/child.py`). Everything it computes is the pipeline's;
everything it hears and says is the transport's.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from ..models import checkpoint
from ..models.checkpoint import Checkpoint, CheckpointError
from ..producers import key
from ..producers.key import BadKey
from . import scoreboard
from .batch import Batch, Forecasts, Reply
from .catalogue import Catalogue, Unknown
from .champion import Unfit, compared
from .child import Parent
from .clients import Entry
from .control import PEER, Control, Order, Told
from .descriptors import spare
from .disk import Failed
from .door import FAILED
from .histogram import BOUNDS, Histogram
from .keeper import CannotOpen, Ephemeral, Keeper, Kept
from .lanes import Reception
from .learning import Learning
from .pace import Pace
from .portion import Portions, Share
from .record import Damaged, Foreign
from .settings import Limits, Settings
from .sockets import EndpointError
from .standings import standings
from .store import Store
from .succession import SHARE, Succession
from .transport import Transport
from .wire import encode_forecasts, encode_reply

log = logging.getLogger("forecastd.engine")

#: Seconds between heartbeats and scoreboards.
TICK_S = 1.0
#: A stream is quiet where the engine had nothing to do for so many seconds before a sample came.
QUIET_S = 0.001
#: So many samples cost less one after the other than together.
FEW = 3
#: The topic of events: no series is called so.
EVENTS = "\0events"
#: Events kept for the page.
EVENTS_MAX = 100
#: Seconds given to what had arrived when the engine was told to end.
DRAIN_S = 1.0
#: Seconds between two lines of the log about peers that were not let in.
COMPLAIN_S = 10.0


class Engine:
    """The loop around the pipeline. Signal handlers only record; the loop acts."""

    def __init__(
        self, settings: Settings, transport: Transport, keeper: Kept, parent: Parent, folder: str = ""
    ) -> None:
        self.transport = transport
        self.keeper = keeper
        self.pipeline = keeper.pipeline
        self.parent = parent
        self.inbox = Reception(settings.limits, keeper.pipeline.rows)
        self.durations = Histogram()
        self.failures = 0
        self._rested_from = 0.0
        # With more steps ahead a lone sample goes the way of many.
        self._few = FEW if settings.horizon == 1 else 0
        self.stopping = self._copying = False
        self.control: Control | None = None
        slots = len(keeper.champions)
        self.successions = [
            Succession(self.pipeline, champions, time.perf_counter, group, SHARE / slots)
            for group, champions in enumerate(keeper.champions)
        ]
        #: What was decided about the models lately, for the page.
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS_MAX)
        self._tick_at = self._complain_at = 0.0
        self._complained = dict.fromkeys(FAILED.values(), 0)
        self.learning = Learning.of(self.pipeline, parent, folder, transport.watch)
        self._wakeup = _signals(self._stop)
        self._written = keeper.fileno()
        for descriptor in (self._wakeup, parent.fileno(), self._written):
            if descriptor is not None:
                transport.watch(descriptor)

    def run(self) -> None:
        """Start, loop, drain."""
        self.parent.report(ready=True, beat=time.monotonic())
        while not self.stopping:
            busy = self.inbox.lanes or self._copying
            ready = self.transport.wait(0.0 if busy else self._tick_at - time.monotonic())
            self.turn(ready)
            self.hear(ready)
            self.tick()
        log.info("draining")
        self.drain()
        if self.control is not None:
            self.control.close()
        if self.learning:
            self.learning.close()
        self.transport.close()

    def take_orders(self, folder: str) -> None:
        """Listen for orders in the state folder; without them the daemon serves all the same."""
        try:
            self.control = Control(folder, self.transport.context)
            self.transport.watch(self.control.socket)
        except OSError as error:
            log.warning("%s", error)

    def hear(self, ready: list[Any]) -> None:
        """Looks after all that is not samples: who wants in, new subscribers, signals, the supervisor."""
        self.transport.admit(ready)
        if self.transport.publish.socket in ready:
            self.transport.publish.listen()
        if self.transport.board.socket in ready and self.transport.board.listen():
            self.show()
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        if self._written in ready:
            self.answer(self.keeper.durable())
        if self.learning and self.learning.socket in ready:
            self.learning.hear()
            self.challenge()
        if self.control is not None and self.control.socket in ready:
            while (asked := self.control.receive()) is not None:
                self.obey(*asked)
        if self.parent.fileno() in ready:
            for line in self.parent.lines():
                self.reload(line)
                if self.learning:
                    self.learning.told(line)
            self.stopping = self.stopping or self.parent.gone

    def reload(self, line: dict[str, Any]) -> None:
        """Takes over what may change while the daemon runs; the supervisor has checked it."""
        if "limits" in line:
            self.inbox.limits = msgspec.convert(line["limits"], Limits)
            self.transport.restrict(self.inbox.limits)
        if "clients" in line:
            self.transport.allow(msgspec.convert(line["clients"], list[Entry]))

    def turn(self, ready: list[Any] | None = None) -> bool:
        """Takes what has arrived through the pipeline, and a share of what waits; false if there was nothing."""
        inbox = self.inbox
        marks: list[tuple[float, int]] = []
        self.transport.receive(inbox, marks, ready)
        worked = bool(inbox)
        if worked:
            self.answer(inbox.told)
            self.advance(inbox.take(), marks)
        if inbox.lanes:
            dealt = inbox.deal()
            self.answer(dealt.told)
            self.apply(dealt.batch, dealt.marks, inbox.slow)
            return True
        return worked

    def advance(self, batch: Batch, marks: list[tuple[float, int]]) -> None:
        """Takes what went straight in through the pipeline: a few samples one by one, which costs less than together,
        and the first forecast is out before the second sample is looked at."""
        if not 1 < len(batch) <= self._few:
            return self.apply(batch, marks, self.inbox.pace)
        portions, known = Portions(batch), self.pipeline.rows
        for place in range(len(batch)):
            mark = next(mark for mark in marks if mark[1] > place)
            self.apply(portions.take(Share(samples=1, rounds=1, new=1), known), [(mark[0], 1)], self.inbox.pace)
        return None

    def apply(self, batch: Batch, marks: list[tuple[float, int]], pace: Pace) -> None:
        """Takes a batch through the pipeline and sends what comes out. `marks`: when its messages came, and where the
        samples of each end."""
        watching = any(succession.watching for succession in self.successions)
        self.pipeline.learning = watching or self.learning is not None
        try:
            now, began = time.time(), time.perf_counter()
            effects = self.pipeline.step(batch, now)
            spent_s = time.perf_counter() - began
            published = sum(self.publish(forecasts) for forecasts in effects.forecasts)
            self.observe(published, marks)
            if published == 1 and began - self._rested_from > QUIET_S:
                # ZeroMQ's own thread sends it: should it wait for our core, it goes first. So does whoever else waits
                # for it, which a stream that is not as quiet could not afford.
                os.sched_yield()
            pace.learn(published, len(effects.forecasts), spent_s)
            if self.learning:
                self.learning.note(effects)
            self.tell(effects.events, now)
            # What is to be said may promise that nothing is lost: the keeper says when.
            self.answer(self.keeper.append(batch, now, effects, effects.replies, spent_s))
            # The scores can wait until nobody waits for a forecast any more.
            self.pipeline.finish()
            for succession in self.successions:
                succession.take(effects.lessons)
            if self.learning:
                self.learning.take(effects)
        except Exception:
            # A batch that the pipeline cannot digest must not take the other series' forecasts with it.
            log.exception("a batch of %d samples failed and is lost", len(batch))
            self.failures += 1
            self.keeper.lose()
        self._rested_from = time.perf_counter()

    def tell(self, events: Sequence[Mapping[str, Any]], now: float) -> None:
        """Sends what happened to those who subscribed to it."""
        publisher = self.transport.publish
        if events and publisher.prefixes and (topic := publisher.topic(EVENTS)):
            for event in events:
                publisher.send(topic, msgspec.json.encode({"time": now, **event}))

    def answer(self, replies: list[Reply]) -> None:
        """Tells producers what has become of their samples."""
        for reply in replies:
            if reply.peer != PEER:
                self.transport.reply(reply.peer, encode_reply(reply))
            elif self.control is not None:
                self.control.answer(reply)

    def obey(self, peer: bytes, order: Order, body: bytes) -> None:
        """Do what was ordered by hand; the answer leaves when the disk has what came of it."""
        assert self.control is not None
        succession = next((one for one in self.successions if one.champions.slot == order.slot), None)
        if succession is None:
            return self.control.send(peer, Told(error=self._no_slot(order.slot)))
        try:
            if order.do == "finetune":
                return self.control.send(peer, Told(self.teach(order)))
            done = succession.obey(order, body, time.time(), self.keeper.step + 1)
        except ValueError as error:
            return self.control.send(peer, Told(error=" ".join(str(error).split())))
        return self.decide([self.control.later(peer, Told(done.said, number=done.number))])

    def _no_slot(self, slot: str) -> str:
        if not self.successions:
            return "no model serves: the expert 'rnn' is off"
        slots = ", ".join(repr(one.champions.slot) for one in self.successions[1:]) or "none"
        return f"no [[model]] of the configuration has match = {slot!r}; there are {slots}"

    def challenge(self) -> None:
        """Have the challenger that the trainer sent, if any, forecast in the champion's shadow."""
        assert self.learning is not None
        if self.learning.challenger is None:
            return None
        (weights, told), self.learning.challenger = self.learning.challenger, None
        if weights is None:
            return self.successions[0].spare()
        data = {"source": "live", "series": told.series, "windows": told.windows}
        scores = {"held_out_mae": told.after, "parent_held_out_mae": told.before}
        try:
            if not self.successions[0].challenge(weights, data, scores):
                log.info("model: a challenger was passed over, for another one is on trial")
        except ValueError as error:
            log.warning("model: a challenger was refused: %s", error)
        return None

    def teach(self, order: Order) -> str:
        """Have copies tuned, or a challenger of the shared model; what to say of it. ValueError, in one line."""
        if self.learning is None:
            raise ValueError("this daemon does not learn: `finetune` is off, or its model cannot be tuned")
        return self.learning.dare() if order.shared else self.learning.order(order.series)

    def decide(self, replies: list[Reply]) -> None:
        """Put what was decided about the models into a step of its own, between the samples before and those after."""
        events, changes = [], []
        for succession in self.successions:
            news, changed = succession.taken()
            events += news
            changes += changed
        batch, now = Batch([], np.empty(0), np.empty(0), []), time.time()
        effects = self.pipeline.step(batch, now)
        effects.events, effects.changes = events, changes
        self.events.extend({"time": now, **event} for event in events)
        self.tell(events, now)
        self.answer(self.keeper.append(batch, now, effects, replies, 0.0))

    def publish(self, forecasts: Forecasts) -> int:
        """Sends the forecasts somebody subscribed to; returns how many there were in all."""
        publisher = self.transport.publish
        if publisher.prefixes:
            wanted = [(i, topic) for i, series in enumerate(forecasts.series) if (topic := publisher.topic(series))]
            if wanted:
                chosen = [i for i, _ in wanted]
                messages = encode_forecasts(forecasts, chosen, self.pipeline.experts, self.pipeline.levels)
                for (_, topic), message in zip(wanted, messages, strict=True):
                    publisher.send(topic, message)
        return len(forecasts)

    def observe(self, published: int, marks: list[tuple[float, int]]) -> None:
        """Counts how long each forecast took, from receiving its sample to having published it."""
        now = time.perf_counter()
        if published == 1:
            self.durations.observe(now - marks[0][0])
        elif published:
            received, sizes = (np.array(column, float) for column in zip(*marks, strict=True))
            # Refused samples have no forecast: the count stops where the forecasts do.
            shares = np.diff(np.clip(sizes, 0, published), prepend=0.0)
            self.durations.observe_all(now - received, shares)

    def tick(self) -> None:
        """Once a second: a heartbeat, the scoreboard, and the connections that spoke no ZeroMQ. A snapshot when it is
        time for one."""
        self._copying = self.keeper.turn()
        now = time.monotonic()
        due = now >= self._tick_at
        if any(succession.turn(time.time(), self.keeper.step + 1, due) for succession in self.successions):
            self.decide([])
        if not due:
            return
        self._tick_at = now + TICK_S
        self.parent.report(beat=now)
        if self.learning:
            self.learning.tick()
        for _ in range(self.transport.strangers()):
            self.inbox.refuse("malformed")
        self.complain(now)
        if self.transport.board.prefixes:
            self.show()

    def complain(self, now: float) -> None:
        """Says in the log that peers are not let in, every `COMPLAIN_S` at most: they may be many, and insist."""
        told = self.transport.told()
        failed = {why: int(told[f"handshakes_{why}"]) for why in FAILED.values()}
        if failed != self._complained and now >= self._complain_at:
            log.warning("handshakes failed so far: %s", ", ".join(f"{why} {n}" for why, n in failed.items() if n))
            self._complained, self._complain_at = failed, now + COMPLAIN_S

    def show(self) -> None:
        """Sends the scoreboard to the web process."""
        board = standings(self.pipeline, time.time())
        board.duration_bounds, board.duration_counts = list(BOUNDS), list(self.durations.counts)
        board.duration_sum = self.durations.sum
        board.counters["failures"] = self.failures
        board.events = list(self.events)
        if self.successions:
            board.models = [line for succession in self.successions for line in succession.told()]
            board.lineage = self.successions[0].champions.lineage.told()
            board.counters["model_promotions"] = sum(succession.promotions for succession in self.successions)
            board.counters["model_rollbacks"] = sum(succession.rollbacks for succession in self.successions)
        board.counters.update(self.keeper.told() | self.transport.told())
        if self.learning:
            self.learning.show(board)
        self.transport.board.send(b"scoreboard", scoreboard.encode(board))

    def drain(self) -> None:
        """Takes what had arrived through the pipeline, for `DRAIN_S` at most."""
        deadline = time.monotonic() + DRAIN_S
        while self.turn() and time.monotonic() < deadline:
            pass
        self.answer(self.keeper.close())

    def _stop(self, *_: object) -> None:
        self.stopping = True


def _signals(stop: Any) -> int:
    """Makes SIGTERM and SIGINT call `stop`; the descriptor that can be read after one came."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return reading


def load_model(settings: Settings) -> Checkpoint | None:
    """The shared model the settings name, where an expert needs one; ValueError when there is none of that name."""
    if "rnn" not in settings.experts:
        return checkpoint.serving(settings.model, settings.experts, settings.horizon)
    return checkpoint.equipped(named(settings, settings.model), settings.experts, settings.horizon)


def load_groups(settings: Settings) -> list[Checkpoint]:
    """The models of `[[model]]`, in their order; ValueError for one that is none, or does not go with that of all."""
    if "rnn" not in settings.experts or not settings.models:
        return []
    like, found = named(settings, settings.model).weights, []
    for group in settings.models:
        try:
            model = named(settings, group.model)
            compared(model.weights, like)
        except ValueError as error:
            raise Unfit(f"[[model]] {group.match!r}: {error}") from None
        found.append(model)
    return found


def named(settings: Settings, name: str) -> Checkpoint:
    """The model of that name: of the package, of the state folder, or a file. ValueError when there is none."""
    try:
        return checkpoint.load(name)
    except CheckpointError:
        if settings.ephemeral or name in checkpoint.shipped():
            raise
        try:
            return Catalogue(Store.read(settings.state)).find(name).model
        except (OSError, Damaged, Foreign, Unknown):
            pass
        raise


def open_state(settings: Settings) -> Kept:
    """The state to go on from. ValueError for a model that is none, CannotOpen for a folder that cannot be used."""
    model, groups = load_model(settings), load_groups(settings)
    if settings.ephemeral:
        return Ephemeral(settings, model, groups)
    return Keeper.open(settings, model, time.time(), groups)


def main() -> int:
    """The process: exit status 0 after a drain, 1 when the disk failed, 2 for a model that is none, 3 for an endpoint
    or a state folder that cannot be had."""
    logging.basicConfig(level=logging.INFO, format="forecastd engine: %(message)s")
    parent = Parent()
    try:
        hello = parent.hello()
    except EOFError:
        return 1
    settings = msgspec.convert(hello["settings"], Settings)
    clients = msgspec.convert(hello.get("clients", []), list[Entry])
    try:
        secret = key.read(settings.key).secret if settings.key else ""
        transport = Transport(settings, hello.get("board") or "tcp://127.0.0.1:*", secret, clients)
    except BadKey as error:
        parent.report(failed=str(error), status=2)
        return 2
    except EndpointError as error:
        parent.report(failed=str(error), status=3)
        return 3
    for line in transport.bound:
        parent.report(bound=line)
    try:
        keeper = open_state(settings)
    except CannotOpen as error:
        parent.report(failed=str(error), status=3)
        return 3
    except (ValueError, OSError) as error:
        parent.report(failed=" ".join(f"model {settings.model!r}: {error}".split()), status=2)
        return 2
    engine = Engine(settings, transport, keeper, parent, hello.get("folder", ""))
    if not settings.ephemeral:
        engine.take_orders(settings.state)
    transport.connections_max = spare(settings.limits.connections)
    if transport.connections_max < settings.limits.connections:
        log.warning("the limit of open files leaves room for %d connections", transport.connections_max)
    # What exists now lives as long as the process; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    try:
        engine.run()
    except Failed as failure:
        # Nothing may be acknowledged after this, and whatever was has been on the disk before.
        log.error("the disk failed, so the engine stops: %s", failure)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
