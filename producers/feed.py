"""A producer at work: paces what it sends, waits for room, and ends when told to, when the time is over, or when all
is sent.

`forecastd produce` runs each kind of source through one of these. Times here are of the monotonic clock, in seconds.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf

import numpy as np

from .client import Producer
from .playback import Recording, played
from .waves import Floats, Wave

#: A message of a source that is not paced has about so many samples.
CHUNK = 1_000
#: Values a wave makes at a time, over all its series.
BATCH = 250_000
#: A source that is due oftener than this sends several samples at once.
TICK_S = 0.001
#: How often a wait looks whether it was told to end.
LOOK_S = 0.1
#: A daemon that is not there is mentioned after so long; at the end, it is waited for so long.
PATIENCE_S, GIVE_UP_S = 1.5, 5.0
#: The end waits for an acknowledgement so long, then for the next.
FLUSH_S = 15.0


class Feed:
    """Sends through `producer` for `seconds` at most (None: no end). `stop` may be called from a signal handler.

    `notice` gets what the user should know in between, in lines.
    """

    def __init__(self, producer: Producer, seconds: float | None, notice: Callable[[str], None]) -> None:
        self.producer = producer
        self.start = clock.monotonic()
        self.until = inf if seconds is None else self.start + seconds
        self.sent = 0
        self.notice = notice
        self._stopped = False
        self._noticed = False

    def stop(self) -> None:
        """Nothing more is to be sent."""
        self._stopped = True

    @property
    def over(self) -> bool:
        """Whether nothing more is to be sent."""
        return self._stopped or clock.monotonic() >= self.until

    def sleep_until(self, moment: float) -> bool:
        """Waits for a moment; False when it is over before."""
        while not self.over:
            left = moment - clock.monotonic()
            if left <= 0:
                return True
            clock.sleep(min(left, LOOK_S, max(self.until - clock.monotonic(), 0)))
            self.look()
        return False

    def room(self, samples: int) -> bool:
        """Waits until the window has room; False when it is over before."""
        while not self.over:
            if self.producer.await_room(samples, min(LOOK_S, max(self.until - clock.monotonic(), 0))):
                return True
            self.look()
        return False

    def send(self, series: Sequence[str], values: Floats | Sequence[float], times: Floats | Sequence[float]) -> bool:
        """Sends samples, a name and a time each or a name and a time a round; False when it is over before.

        They have to fit into the window: what waits in there could not be told to stop.
        """
        if not self.room(len(values)):
            return False
        self.producer.send_columns(series, values, times)
        self.sent += len(values)
        return True

    def finish(self) -> bool:
        """Waits for the last acknowledgements as long as some come, and somebody is there to give them; False when some
        are missing.
        """
        moved = seen = clock.monotonic()
        waiting = -1
        while not self.producer.flush(LOOK_S):
            now, stats = clock.monotonic(), self.producer.stats()
            if stats.waiting != waiting:
                moved, waiting = now, stats.waiting
            if stats.connected:
                seen = now
            if now > moved + FLUSH_S or now > seen + GIVE_UP_S:
                return False
        return True

    def look(self) -> None:
        """Says once when nobody is there; to be called from whatever else waits."""
        if not self._noticed and clock.monotonic() > self.start + PATIENCE_S and not self.producer.stats().connected:
            self._noticed = True
            self.notice(f"nobody answers at {self.producer.to}; waiting")


class Pace:
    """When samples are due: `rate` a second from `start`, the first at once. A rate of 0 is: all of them now."""

    def __init__(self, rate: float, start: float) -> None:
        self.rate, self.start = rate, start

    def due(self, now: float) -> float:
        """How many samples of each series should have been sent by now."""
        return inf if not self.rate else max(0, int((now - self.start) * self.rate) + 1)

    def moment(self, index: int, now: float) -> float:
        """When to send sample `index`, or a little later, so that a fast source sends several at once."""
        return now if not self.rate else max(self.start + index / self.rate, now + TICK_S)


def play_waves(feed: Feed, waves: Sequence[tuple[list[str], Wave]], rate: float, count: int | None) -> None:
    """Sends waves side by side, `count` steps of each (None: no end), at `rate` steps a second (0: as fast as it goes).

    Each comes with the names of its series. A step that lacks a sample is passed over.
    """
    names = [name for each, _ in waves for name in each]
    pace, made = Pace(rate, feed.start), 0
    for time, value in _steps(waves, len(names), rate, count):
        while len(time):
            now = clock.monotonic()
            n = int(min(len(time), max(1, CHUNK // len(names)), pace.due(now) - made))
            if n <= 0:
                if not feed.sleep_until(pace.moment(made, now)):
                    return
                continue
            if not _send_steps(feed, names, time[:n], value[:n]):
                return
            time, value, made = time[n:], value[n:], made + n


def play_recordings(
    feed: Feed, recordings: list[Recording], speed: float | None, rate: float, count: int | None
) -> None:
    """Sends recordings, `count` samples of each (None: all): by their own times, `speed` times as fast, or at `rate`
    samples of each a second (0: as fast as it goes) where `speed` is None.
    """
    names = [recording.name for recording in recordings]
    pace = Pace(rate, feed.start)
    first = min(float(recording.time[0]) for recording in recordings)
    waiting: list[tuple[int, float, float]] = []
    for which, time, value, index in played(recordings, speed is not None or not rate):
        if count is not None and index >= count:
            continue
        due = feed.start + (time - first) / speed if speed else pace.start + index / rate if rate else 0.0
        now = clock.monotonic()
        if len(waiting) >= CHUNK or (due > now and waiting):
            if not _send_samples(feed, names, waiting):
                return
            waiting = []
        if due > now and not feed.sleep_until(max(due, now + TICK_S)):
            return
        waiting.append((which, time, value))
    if waiting:
        _send_samples(feed, names, waiting)


def restamped(recordings: list[Recording], speed: float | None, rate: float, now: float) -> list[Recording]:
    """The recordings with the times at which they are going to be sent when they are played from `now` on."""
    first = min(float(recording.time[0]) for recording in recordings)

    def times(recording: Recording) -> Floats:
        if speed is None:
            return now + np.arange(len(recording)) / rate
        return now + (recording.time - first) / speed

    return [Recording(each.name, times(each), each.value, each.skipped) for each in recordings]


def _steps(
    waves: Sequence[tuple[list[str], Wave]], series: int, rate: float, count: int | None
) -> Iterator[tuple[Floats, Floats]]:
    """Times (n,) and values (n, series) of the waves, piece by piece."""
    batch = max(1, min(BATCH // series, 4096 if not rate else max(1, int(rate))))
    left = inf if count is None else count
    while left > 0:
        n = int(min(batch, left))
        pieces = [wave.rows(n) for _, wave in waves]
        yield pieces[0][0], np.concatenate([value for _, value in pieces], axis=1)
        left -= n


def _send_steps(feed: Feed, names: list[str], time: Floats, value: Floats) -> bool:
    flat = np.ascontiguousarray(value).ravel()
    there = ~np.isnan(flat)
    if there.all():
        return feed.send(names, flat, time)
    who = [name for name, is_there in zip(names * len(time), there.tolist(), strict=True) if is_there]
    return feed.send(who, flat[there], np.repeat(time, len(names))[there])


def _send_samples(feed: Feed, names: list[str], samples: Iterable[tuple[int, float, float]]) -> bool:
    which, times, values = zip(*samples, strict=True)
    return feed.send([names[k] for k in which], values, times)
