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
from typing import Any

import msgspec
import numpy as np

from ..models import checkpoint
from ..models.weights import Weights
from . import scoreboard
from .batch import Forecasts
from .child import Parent
from .histogram import BOUNDS, Histogram
from .pipeline import Pipeline
from .settings import Settings
from .transport import EndpointError, Transport
from .wire import Inbox, encode_forecasts, encode_reply

log = logging.getLogger("forecastd.engine")

#: Seconds between heartbeats and scoreboards.
TICK_S = 1.0
#: Seconds given to what had arrived when the engine was told to end.
DRAIN_S = 1.0


class Engine:
    """The loop around the pipeline. Signal handlers only record; the loop acts."""

    def __init__(self, settings: Settings, transport: Transport, pipeline: Pipeline, parent: Parent) -> None:
        self.transport = transport
        self.pipeline = pipeline
        self.parent = parent
        self.inbox = Inbox(settings.limits)
        self.durations = Histogram()
        self.failures = 0
        self.stopping = False
        self._marks: list[tuple[float, int]] = []
        self._tick_at = 0.0
        self._wakeup = _signals(self._stop)
        transport.watch(self._wakeup)
        transport.watch(parent.fileno())

    def run(self) -> None:
        """Start, loop, drain."""
        self.parent.report(ready=True)
        while not self.stopping:
            ready = self.transport.wait(self._tick_at - time.monotonic())
            self.turn(ready)
            self.hear(ready)
            self.tick()
        log.info("draining")
        self.drain()
        self.transport.close()

    def hear(self, ready: list[Any]) -> None:
        """Looks after all that is not samples: new subscribers, signals, the supervisor."""
        if self.transport.publish.socket in ready:
            self.transport.publish.listen()
        if self.transport.board.socket in ready and self.transport.board.listen():
            self.show()
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        if self.parent.fileno() in ready:
            self.parent.lines()
            self.stopping = self.stopping or self.parent.gone

    def turn(self, ready: list[Any] | None = None) -> bool:
        """Takes what has arrived through the pipeline once, and sends what comes out; false if nothing had arrived."""
        self.transport.receive(self.inbox, self._marks, ready)
        if not self.inbox:
            return False
        batch = self.inbox.take()
        try:
            effects = self.pipeline.step(batch, time.time())
            published = sum(self.publish(forecasts) for forecasts in effects.forecasts)
            self.observe(published)
            # The journal commits here: what follows promises that nothing is lost.
            for reply in effects.replies:
                self.transport.reply(reply.peer, encode_reply(reply))
        except Exception:
            # A batch that the pipeline cannot digest must not take the other series' forecasts with it.
            log.exception("a batch of %d samples failed and is lost", len(batch))
            self.failures += 1
        self._marks.clear()
        return True

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

    def observe(self, published: int) -> None:
        """Counts how long each forecast took, from receiving its sample to having published it."""
        now = time.perf_counter()
        if published == 1:
            self.durations.observe(now - self._marks[0][0])
        elif published:
            received, sizes = (np.array(column, float) for column in zip(*self._marks, strict=True))
            # Refused samples have no forecast: the count stops where the forecasts do.
            shares = np.diff(np.minimum(sizes, published), prepend=0.0)
            self.durations.observe_all(now - received, shares)

    def tick(self) -> None:
        """Once a second: a heartbeat, the scoreboard, and the connections that spoke no ZeroMQ."""
        now = time.monotonic()
        if now < self._tick_at:
            return
        self._tick_at = now + TICK_S
        self.parent.report(beat=now)
        for _ in range(self.transport.garbage()):
            self.inbox.refuse("malformed")
        if self.transport.board.prefixes:
            self.show()

    def show(self) -> None:
        """Sends the scoreboard to the web process."""
        board = self.pipeline.scoreboard(time.time())
        board.duration_bounds, board.duration_counts = list(BOUNDS), list(self.durations.counts)
        board.duration_sum = self.durations.sum
        board.counters["failures"] = self.failures
        self.transport.board.send(b"scoreboard", scoreboard.encode(board))

    def drain(self) -> None:
        """Takes what had arrived through the pipeline, for `DRAIN_S` at most."""
        deadline = time.monotonic() + DRAIN_S
        while self.turn() and time.monotonic() < deadline:
            pass

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


def load_model(settings: Settings) -> Weights | None:
    """The shared model the settings name, where an expert needs one; ValueError when there is none of that name."""
    return checkpoint.load(settings.model).weights if "rnn" in settings.experts else None


def main() -> int:
    """The process: exit status 0 after a drain, 2 for a model that is none, 3 for an endpoint that cannot be bound."""
    logging.basicConfig(level=logging.INFO, format="forecastd engine: %(message)s")
    parent = Parent()
    try:
        hello = parent.hello()
    except EOFError:
        return 1
    settings = msgspec.convert(hello["settings"], Settings)
    try:
        transport = Transport(settings, hello.get("board") or "tcp://127.0.0.1:*")
    except EndpointError as error:
        parent.report(failed=str(error), status=3)
        return 3
    for line in transport.bound:
        parent.report(bound=line)
    try:
        pipeline = Pipeline(settings, load_model(settings))
    except (ValueError, OSError) as error:
        parent.report(failed=" ".join(f"model {settings.model!r}: {error}".split()), status=2)
        return 2
    engine = Engine(settings, transport, pipeline, parent)
    # What exists now lives as long as the process; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    engine.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
