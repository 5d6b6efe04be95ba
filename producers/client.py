"""A producer for programs of one's own: numbers samples, sends them to the daemon, and keeps each until it is
acknowledged.

    with Producer("tcp://127.0.0.1:5555") as producer:
        producer.send("boiler", 71.3)

The caller's threads put samples into an `Outbox`; one thread of the producer's own, the `Link`, owns the socket.
"""

from __future__ import annotations

import atexit
import logging
import time as clock
from array import array
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import compress
from math import isfinite, nan
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from .block import Block
from .key import BadKey, curve, read
from .link import Link, Target
from .outbox import Outbox, WhenFull, WindowFull
from .spool import Spool, SpoolError

__all__ = ["BadKey", "Producer", "SpoolError", "Stats", "WindowFull"]

NAME_MAX = 200

logger = logging.getLogger(__name__)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Samples since the producer was made.

    `sent` left for the daemon, each counted once; `resent` counts the sendings after the first. `acked`: the daemon
    has taken them (0 where it has no way to say so). `refused` by reason, by the daemon or by the client itself
    ("nonfinite"). `dropped` to make room. `waiting` now, sent or not. `connections`: how many there were.
    """

    sent: int
    acked: int
    refused: dict[str, int]
    resent: int
    dropped: int
    waiting: int
    connections: int
    connected: bool


class Producer:
    """Sends samples to `to`, the endpoint that `forecastd run` prints as its ingest. Its methods may be called from
    any thread.

    `name` and `epoch` say whose the numbers are; by default a name of its own and the time of its start. At most
    `window` samples wait for their acknowledgement; when it is full, `send` blocks, raises `WindowFull`, or drops the
    oldest sample that was not sent yet. What is not acknowledged in `resend_after` seconds, or when the connection
    breaks, is sent again; the daemon takes each sample once. With `spool`, a file, samples also survive the producer:
    the next one with this file goes on where it ended, under the same name. A sample without a time gets this
    machine's; with `stamp=False`, the daemon's when it arrives.

    With `key`, the file of a secret key (`forecastd keys new`), and `server_key`, the daemon's public key or its file,
    the connection is encrypted, and each side knows the other. The name is then that of the key, since the daemon takes
    no other from it. `BadKey`, a ValueError, says what is wrong with a file.

    An endpoint `pull+…` or `sub+…` has no way back: nothing is acknowledged there, and what is lost is lost. `bind+`
    after it lets the daemon connect to the producer.
    """

    def __init__(
        self,
        to: str = "tcp://127.0.0.1:5555",
        *,
        name: str | None = None,
        epoch: int | None = None,
        window: int = 50_000,
        when_full: WhenFull = "block",
        spool: str | Path | None = None,
        resend_after: float = 2.0,
        stamp: bool = True,
        key: str | Path | None = None,
        server_key: str | Path | None = None,
    ) -> None:
        target = Target.parse(to)
        keys = curve(key, server_key)
        if keys and target.bind:
            raise ValueError(f"{to!r}: only a producer that connects can use a key")
        if key is not None and name is None:
            # The daemon takes from a key what comes in its owner's name.
            name = read(key).name
        if name is not None and not (0 < len(name) <= NAME_MAX and name.isprintable()):
            raise ValueError(f"a producer's name has 1 to {NAME_MAX} printable characters, not {name!r}")
        file = Spool(spool) if spool is not None else None
        try:
            self.outbox = Outbox(window, when_full, name, epoch or clock.time_ns(), file)
        except BaseException:
            if file:
                file.close()
            raise
        self.to = to
        self._stamp = stamp
        self._known: dict[str, None] = {}
        self._columns: list[str] = []
        self._link = Link(self.outbox, target, resend_after, keys)
        self._link.start()
        # A program that ends without closing its producer still has what it sent delivered.
        atexit.register(self.close)

    @property
    def name(self) -> str:
        """Whose the numbers are."""
        return self.outbox.head.producer

    @property
    def window(self) -> int:
        """How many samples may wait for their acknowledgement."""
        return self.outbox.window.size

    @property
    def acknowledged(self) -> bool:
        """Whether the daemon says what it has; not so at `pull+` and `sub+`."""
        return self._link.target.answers

    @property
    def barred(self) -> bool:
        """Whether the daemon did not let us in when we last tried: it does not know our key, or is not who we think."""
        return self._link.barred

    @property
    def epoch(self) -> int:
        """The present life of the numbers; it changes when the daemon has lost its place."""
        return self.outbox.head.epoch

    def send(self, series: str, value: float, time: float | None = None) -> None:
        """Sends one sample: `time` in seconds since the epoch. A value or time that is not finite is refused and
        counted.

        Returns as soon as the window has it. TypeError for a value that is no number, `WindowFull` as `when_full` says,
        ValueError when closed, OSError when the spool has failed.
        """
        if series not in self._known:
            self._learn(series)
        value = float(value)
        if time is None:
            time = clock.time() if self._stamp else nan
        elif not isfinite(time):
            return self.outbox.refuse("nonfinite", 1)
        if not isfinite(value):
            return self.outbox.refuse("nonfinite", 1)
        return self.outbox.add(series, value, time)

    def send_columns(
        self,
        series: str | Sequence[str],
        values: Iterable[float],
        time: float | Iterable[float] | None = None,
        step: float | None = None,
    ) -> None:
        """Sends many samples at once, at a fraction of the price of `send`.

        With one name, the values are its samples, oldest first. With k names, they are rounds of k: one value a name,
        oldest round first. `time` is one moment for all, the times of the rounds, the times of the values, or the
        first round's with `step` seconds to each next. Float64 arrays (NumPy, `array`) are taken without a loop. Else
        as `send`.
        """
        value = _column(values)
        if not value:
            return
        names = self._names(series)
        k = 1 if isinstance(names, str) else len(names)
        if len(value) % k:
            raise ValueError(f"{len(value)} values for {k} names: not whole rounds")
        rounds = len(value) // k
        moments = self._moments(time, step, rounds, len(value))
        if rounds > 1 and k > 1:
            names = names * rounds
            if len(moments) == rounds:
                moments = array("d", [moment for moment in moments for _ in range(k)])
        # The sum of finite values is finite, or too large, which the loop below finds out; one that is not spoils it.
        if not isfinite(sum(value)):
            names, value, moments = self._finite(names, value, moments)
        if value:
            self.outbox.put(Block(names, value, moments))

    def refuse(self, reason: str, samples: int = 1) -> None:
        """Counts samples that the program itself refuses, so that the statistics tell of them."""
        self.outbox.refuse(reason, samples)

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all samples are acknowledged (or gone, where nothing is);
        False when some are not after `timeout` seconds.
        """
        return self.outbox.await_empty(timeout)

    def await_room(self, samples: int = 1, timeout: float | None = None) -> bool:
        """Waits until the window has room for so many; False when it has not after `timeout` seconds."""
        return self.outbox.await_room(samples, timeout)

    def stats(self) -> Stats:
        """What became of the samples so far."""
        window = self.outbox.window
        return Stats(
            sent=window.total_sent,
            acked=max(0, window.total_acked - window.total_told),
            refused=dict(window.refused),
            resent=window.total_resent,
            dropped=window.total_dropped,
            waiting=window.waiting,
            connections=self._link.connections,
            connected=self._link.connected,
        )

    def close(self, timeout: float = 5.0) -> bool:
        """Flushes and ends;
        False when samples were left without acknowledgement. With a spool, those wait there for the next life.
        """
        atexit.unregister(self.close)
        if not self._link.is_alive() and self.outbox.closed:
            return not self.outbox.window.waiting
        with suppress(OSError):  # a spool that failed was told to who sent; nothing more can be flushed
            self.outbox.await_empty(timeout)
        self.outbox.close()
        self._link.stop()
        left = self.outbox.window.waiting
        self.outbox.shut()
        return not left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.close() and kind is None:
            logger.warning("%s: %d samples were not acknowledged", self.name, self.outbox.window.waiting)

    def _learn(self, series: str) -> None:
        if not isinstance(series, str):
            raise TypeError(f"a series is named by a string, not {series!r}")
        series.encode()  # what is no Unicode raises here, to its caller, instead of in the thread that sends
        if len(self._known) >= 100_000:
            self._known.clear()
        self._known[series] = None

    def _names(self, series: str | Sequence[str]) -> str | list[str]:
        if isinstance(series, str):
            if series not in self._known:
                self._learn(series)
            return series
        names = list(series)
        if not names:
            raise ValueError("no names for the values")
        if names != self._columns:
            for name in names:
                if name not in self._known:
                    self._learn(name)
            self._columns = names
        return self._columns[0] if len(self._columns) == 1 else self._columns

    def _moments(self, time: float | Iterable[float] | None, step: float | None, rounds: int, n: int) -> array[float]:
        if time is None:
            if rounds > 1:
                raise ValueError(f"{rounds} samples of one series need their times")
            return array("d", [clock.time() if self._stamp else nan])
        if isinstance(time, int | float):
            if step is not None:
                return array("d", [time + i * step for i in range(rounds)])
            moments = array("d", [time])
        else:
            moments = _column(time)
        if len(moments) not in (rounds, n):
            raise ValueError(f"{len(moments)} times for {n} values in {rounds} rounds")
        if not isfinite(sum(moments)):
            raise ValueError("a time is not finite")
        return moments

    def _finite(
        self, names: str | list[str], value: array[float], moments: array[float]
    ) -> tuple[str | list[str], array[float], array[float]]:
        keep = [isfinite(each) for each in value]
        if not all(keep):
            self.outbox.refuse("nonfinite", keep.count(False))
        if len(moments) == len(value):
            moments = array("d", compress(moments, keep))
        if not isinstance(names, str):
            names = list(compress(names, keep))
        return names, array("d", compress(value, keep)), moments


def _column(values: Iterable[float]) -> array[float]:
    column = array("d")
    try:
        view = memoryview(values)  # type: ignore[arg-type]
    except TypeError:
        column.extend(values)
        return column
    if view.format == "d" and view.contiguous:
        column.frombytes(view.cast("B"))
    else:
        column.extend(values)
    return column
