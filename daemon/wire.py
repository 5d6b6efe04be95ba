"""What the frames of a message mean: samples on the way in, forecasts and replies on the way out.

The transport hands each message's payload to `Inbox.add`, which grows a batch; a payload that cannot be read is
refused by name and counted, and never raises. `docs/protocol.md` shows every payload byte by byte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from itertools import chain

import msgspec
import numpy as np

from . import payload
from .batch import Alone, Batch, Floats, Forecast, Forecasts, Parcel, Reply
from .clients import Client
from .payload import NAN, Header, Headers, Numbered, Sample
from .settings import Limits


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a message came from: `peer` is where replies go (empty: nowhere), `lossless` that what is not accepted
    will be sent again, `name` who speaks where the payload does not say. `client`: whose key it is, and what it may
    send; None where there are no keys."""

    peer: bytes = b""
    lossless: bool = False
    name: str = ""
    client: Client | None = None


NOWHERE = Origin()

_encode = msgspec.json.Encoder().encode
#: Items of an array that are no samples, after which nothing more is looked for in it: each costs four microseconds.
SALVAGE_MAX = 1_000
#: What a sample has at least.
_SAID = {"series", "value"}


class Inbox:
    """A batch as it grows: `add` takes messages in the order they came, `take` hands over the batch and starts the
    next."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._headers = Headers()
        self._clear()

    def _clear(self) -> None:
        self.size = 0
        #: What is to be told at once: it is no business of the pipeline, nor of the producer in whose name it came.
        self.told: list[Reply] = []
        self._refusals = 0
        self.refused: dict[str, int] = {}
        self._series: list[str] = []
        self._value: list[float] = []
        self._time: list[float] = []
        self._blocks: list[tuple[list[str], Floats, Floats]] = []
        self._parcels: list[Parcel] = []
        self._origin = NOWHERE
        self._producer = ""
        self._epoch = 0
        self._start = 0
        self._first = 0
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self.size or self.refused)

    @property
    def room(self) -> int:
        """Samples still to be taken into this batch; a message is never split, so it may go negative. What is refused
        counts, too: a flood of it must come to an end."""
        return self.limits.batch_samples - self.size - self._refusals

    @property
    def full(self) -> bool:
        """Whether more must not come from whoever can be held back without others. A batch has no such bound."""
        return False

    @property
    def behind(self) -> bool:
        """Whether something waits, though not much: that nothing was heard lately then means nothing."""
        return False

    def add(self, frames: Sequence[bytes], origin: Origin = NOWHERE) -> None:
        """Takes one message: its payload frames, without identity and delimiter."""
        if len(frames) == 1:
            self._add_json(frames[0], origin)
        elif len(frames) <= 3 and frames[0][:1] == b"{":
            self._add_columns(frames, origin)
        elif len(frames) == 2:
            self._add_topic(frames[0], frames[1], origin)
        else:
            self.refuse("malformed")

    def refuse(self, reason: str, origin: Origin = NOWHERE, told: Numbered | None = None, samples: int = 1) -> None:
        """Counts a payload that is no sample. Where it was numbered, a parcel without samples says so to the pipeline:
        its numbers are dealt with, and its sender is to be told."""
        self.refused[reason] = self.refused.get(reason, 0) + samples
        self._refusals += 1
        if told is None or not told.seq:
            return
        if origin.client is not None and told.producer not in ("", origin.client.producer):
            # The number is another's, who would miss it.
            if origin.peer:
                self.told.append(Reply(origin.peer, refused="unauthorised", seq=told.seq))
            return
        self._close()
        self._parcels.append(
            Parcel(
                start=self.size,
                stop=self.size,
                peer=origin.peer,
                lossless=origin.lossless,
                producer=told.producer or origin.name,
                epoch=told.epoch,
                seq=told.seq,
                refused=reason,
                numbers=max(told.n or 1, 1),
            )
        )
        self._next = -1

    def take(self) -> Batch:
        """The batch so far; the inbox is empty afterwards. `value` and `time` may be read-only views of frames."""
        self._close()
        if self._blocks:
            self._flush()
            # One block alone keeps the very list of its header, so that who comes after may know it again by identity.
            names, values, times = zip(*self._blocks, strict=True)
            alone = len(names) == 1
            series = names[0] if alone else list(chain.from_iterable(names))
            value, time = (values[0], times[0]) if alone else (np.concatenate(values), np.concatenate(times))
            batch = Batch(series, value, time, self._parcels, self.refused)
        else:
            batch = Batch(self._series, self._value, self._time, self._parcels, self.refused)
        self._clear()
        return batch

    # ---- payloads

    def _add_json(self, frame: bytes, origin: Origin) -> None:
        try:
            said = payload.samples(frame)
        except payload.Unreadable as error:
            return self._salvage(frame, origin, error)
        if isinstance(said, Sample):
            self._one(said, origin)
        else:
            self._several(said, origin)
        return None

    def _barred(self, series: Iterable[str], count: int, said: Sample | Header | Numbered, origin: Origin) -> bool:
        """Whether the key of the sender is not good for these `count` samples, which then are refused."""
        client = origin.client
        if client is None or (said.producer in ("", client.producer) and all(map(client.may_send, series))):
            return False
        self.refuse("unauthorised", origin, Numbered(said.seq, said.producer, said.epoch, count), count)
        return True

    def _one(self, sample: Sample, origin: Origin) -> None:
        if origin.client is not None and self._barred((sample.series,), 1, sample, origin):
            return
        self._continue(1, origin, sample.producer, sample.epoch, sample.seq)
        self._series.append(sample.series)
        self._value.append(sample.value)
        self._time.append(NAN if sample.time is None else sample.time)

    def _several(self, samples: list[Sample], origin: Origin) -> None:
        if origin.client is not None or any(s.seq or s.producer for s in samples):
            for sample in samples:
                self._one(sample, origin)
        elif samples:
            self._continue(len(samples), origin, "", 0, 0)
            self._series += [s.series for s in samples]
            self._value += [s.value for s in samples]
            self._time += [NAN if s.time is None else s.time for s in samples]

    def _add_topic(self, topic: bytes, text: bytes, origin: Origin) -> None:
        try:
            series = topic.decode()
        except UnicodeDecodeError:
            return self.refuse("name")
        value = payload.number(text)
        if value is None:
            return self.refuse("malformed")
        if origin.client is not None and self._barred((series,), 1, Numbered(), origin):
            return None
        self._continue(1, origin, "", 0, 0)
        self._series.append(series)
        self._value.append(value)
        self._time.append(NAN)
        return None

    def _add_columns(self, frames: Sequence[bytes], origin: Origin) -> None:
        try:
            header = self._headers.decode(frames[0])
        except payload.Unreadable:
            return self.refuse("malformed", origin, payload.numbered(payload.from_frame, frames[0]))
        columns = payload.columns(header, frames)
        if columns is None:
            told = Numbered(header.seq, header.producer, header.epoch, header.n)
            return self.refuse("malformed", origin, told)
        series, value, time = columns
        if origin.client is not None and self._barred(series, len(series), header, origin):
            return None
        self._continue(len(series), origin, header.producer, header.epoch, header.seq)
        self._flush()
        self._blocks.append((series, value, time))
        return None

    def _salvage(self, frame: bytes, origin: Origin, error: Exception) -> None:
        """What can be had of a payload that is not as it should be: the good samples of an array, a bad one's
        number."""
        try:
            items = payload.loosely(frame, error)
        except payload.Unreadable:
            return self.refuse("malformed")
        items = items if isinstance(items, list) else [items]
        objects = [item for item in items if isinstance(item, dict) and ("seq" in item or item.keys() >= _SAID)]
        if len(objects) < len(items):
            # Neither samples nor numbers that somebody waits for: a megabyte of such is counted at once.
            self.refuse("malformed", samples=len(items) - len(objects))
        bad = 0
        for place, item in enumerate(objects):
            if bad == SALVAGE_MAX:
                return self.refuse("malformed", samples=len(objects) - place)
            try:
                if item.get("value", 0) is None:
                    item["value"] = NAN
                sample = payload.sample_of(item)
            except payload.Unreadable:
                bad += 1
                self.refuse("malformed", origin, payload.numbered(payload.from_object, item))
                continue
            if sample.time is not None and not math.isfinite(sample.time):
                sample.value, sample.time = NAN, None
            self._one(sample, origin)
        return None

    # ---- the order of things

    def _continue(self, count: int, origin: Origin, producer: str, epoch: int, seq: int) -> None:
        """Counts samples into the open parcel where they go on from it, into a new one where they do not."""
        if not seq:
            if origin.client is not None:
                producer = origin.name
            origin = NOWHERE
        elif not producer:
            producer = origin.name
        if (
            seq != self._next
            or (origin is not self._origin and origin != self._origin)
            or producer != self._producer
            or epoch != self._epoch
        ):
            self._close()
            self._origin, self._producer, self._epoch, self._first = origin, producer, epoch, seq
        self.size += count
        self._next = seq + count if seq else 0

    def _close(self) -> None:
        if self.size > self._start:
            origin = self._origin
            self._parcels.append(
                Parcel(self._start, self.size, origin.peer, origin.lossless, self._producer, self._epoch, self._first)
            )
            self._start = self.size

    def _flush(self) -> None:
        if self._value:
            self._blocks.append((self._series, np.array(self._value), np.array(self._time)))
            self._series, self._value, self._time = [], [], []


def encode_reply(reply: Reply) -> bytes:
    """`{"ack": n}` or `{"refused": reason, "seq": n}`."""
    return _encode({"refused": reply.refused, "seq": reply.seq} if reply.refused else {"ack": reply.ack})


def encode_forecasts(
    forecasts: Forecasts, chosen: list[int], experts: Sequence[str], levels: tuple[float, ...]
) -> list[bytes]:
    """The messages of the `chosen` rows, in their order, as the JSON of `docs/protocol.md`.

    `experts` names the last axis of `forecasts.experts`, `levels` that of `lower` and `upper`, the published level
    first. What is unknown (NaN) is null; experts that had nothing to say are left out.
    """
    if isinstance(forecasts, Alone):
        return [_encode_forecast(forecasts.one, experts, levels)]
    f = forecasts if len(chosen) == len(forecasts) else _subset(forecasts, chosen)
    columns = (getattr(f, name) for name in Forecast.__struct_fields__)
    rows = zip(*(column if isinstance(column, list) else column.tolist() for column in columns), strict=True)
    return [_encode_forecast(Forecast(*row), experts, levels) for row in rows]


class _Anomaly(msgspec.Struct, gc=False):
    score: float
    flag: bool


class _Message(msgspec.Struct, gc=False, omit_defaults=True):
    """A forecast as it is published: up to `model` while the series is warming."""

    series: str
    time: float
    value: float
    step: float
    seq: int
    status: str
    anomaly: _Anomaly
    model: int
    level: float | None = None
    mean: list[float] | None = None
    lower: Sequence[float] | None = None
    upper: Sequence[float] | None = None
    experts: dict[str, float] | None = None
    weights: dict[str, float] | None = None
    intervals: dict[str, dict[str, Sequence[float]]] | None = None


def _encode_forecast(f: Forecast, experts: Sequence[str], levels: tuple[float, ...]) -> bytes:
    status, anomaly = "ready" if f.ready else "warming", _Anomaly(f.score, f.flag)
    message = _Message(f.series, f.time, f.value, f.step, f.count, status, anomaly, f.model)
    if f.ready:
        message.level, message.mean = levels[0], f.mean
        (message.lower, *lower), (message.upper, *upper) = zip(*f.lower, strict=True), zip(*f.upper, strict=True)
        message.experts, message.weights = _spoken(experts, f.experts[0], f.weights[0])
        if lower:
            message.intervals = {
                name: {"lower": low, "upper": high}
                for name, low, high in zip(_further(levels), lower, upper, strict=True)
            }
    return _encode(message)


@cache
def _further(levels: tuple[float, ...]) -> list[str]:
    """The names of the levels but the first: the same for each message, and slow to write."""
    return [f"{level:g}" for level in levels[1:]]


def _spoken(names: Sequence[str], expert: list[float], weight: list[float]) -> tuple[dict[str, float], ...]:
    """Forecasts and weights by name, of those experts that had something to say."""
    total = sum(expert)
    if total == total:
        return dict(zip(names, expert, strict=True)), dict(zip(names, weight, strict=True))
    spoke = [k for k, mean in enumerate(expert) if mean == mean]
    return {names[k]: expert[k] for k in spoke}, {names[k]: weight[k] for k in spoke}


def _subset(f: Forecasts, chosen: list[int]) -> Forecasts:
    columns = {field.name: getattr(f, field.name)[chosen] for field in fields(f) if field.name != "series"}
    return Forecasts(series=[f.series[i] for i in chosen], **columns)
