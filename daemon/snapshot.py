"""A pipeline's whole state at one moment, as a value and as bytes.

`freeze` holds it fast between two steps, to be copied in pieces and written while the pipeline goes on; `restore` puts
it into a new pipeline. The bytes are a header (msgpack) and the columns of the tables, each with a checksum. Nothing in
them is ever run.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from ..models import blend, conformal, dispersion, score
from ..models.frozen import Frozen
from ..models.table import Array, Table
from .ledger import Account
from .pipeline import Pipeline
from .record import Damaged, Foreign
from .settings import Settings

#: Version of the layout below; bytes that say a higher one are refused, not guessed at.
FORMAT = 1
MAGIC = b"forecastd snapshot\n"
#: Magic, format, length of the header, checksum of the header.
_OPENING = struct.Struct(f"<{len(MAGIC)}sIQI")
#: A column is written in pieces of this many bytes, so that a slow disk holds up nothing for long.
PIECE = 1 << 20


@dataclass(slots=True)
class State:
    """All that a pipeline is after its step number `step`.

    `tables` holds the columns of each table by name, shape (rows, ...), which are there when the state is `whole`;
    `experts` are the names of the experts in the order of the columns' last axis.
    """

    step: int
    settings: Settings
    experts: tuple[str, ...]
    names: list[str]
    accounts: dict[str, Account]
    refused: dict[str, int]
    counters: dict[str, int]
    tables: dict[str, dict[str, Array]]
    brought: dict[str, int] = field(default_factory=dict)
    frozen: list[Frozen] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether all has been copied."""
        return all(table.whole for table in self.frozen)

    def advance(self) -> None:
        """Copy the next piece of each table, where some are left."""
        for table in self.frozen:
            table.advance()


class _Header(msgspec.Struct):
    step: int
    settings: dict[str, Any]
    experts: list[str]
    names: list[str]
    accounts: list[tuple[bytes, int, int, int, int, int]]
    refused: dict[str, int]
    counters: dict[str, int]
    #: table, column, dtype, shape, checksum; in the order in which the columns follow
    columns: list[tuple[str, str, str, list[int], int]]
    #: what each producer brought; earlier versions did not count it
    brought: list[tuple[bytes, int]] = []


def capture(pipeline: Pipeline, step: int) -> State:
    """A copy of the pipeline's state after `step` steps: nothing in it changes when the pipeline goes on."""
    state = freeze(pipeline, step)
    while not state.whole:
        state.advance()
    return state


def freeze(pipeline: Pipeline, step: int) -> State:
    """The pipeline's state after `step` steps, which does not change when the pipeline goes on: it is whole when it has
    been told often enough to `advance`."""
    pipeline.finish()
    frozen = {name: table.freeze() for name, table in _tables(pipeline).items()}
    ledger = pipeline.admission.ledger
    return State(
        step=step,
        settings=pipeline.settings,
        experts=pipeline.experts,
        names=list(pipeline.names),
        accounts={
            name: Account(a.epoch, a.seq, a.samples, a.duplicates, a.gaps) for name, a in ledger.accounts.items()
        },
        refused=dict(pipeline.admission.refused),
        brought=dict(pipeline.admission.brought),
        counters={name: getattr(pipeline, name) for name in _COUNTERS},
        tables={name: table.columns for name, table in frozen.items()},
        frozen=list(frozen.values()),
    )


_COUNTERS = ("samples", "forecasts")


def _tables(pipeline: Pipeline) -> dict[str, Table]:
    return {
        "series": pipeline.series,
        "forecaster": pipeline.forecaster.table,
        "scores": pipeline.forecaster.scores,
    }


def restore(pipeline: Pipeline, state: State) -> None:
    """Put `state` into a new pipeline, which may have other settings, or another model, than the one the state is
    from.

    Columns that mean the same in both are taken over. Where some do not, the windows fill anew, as after a long gap,
    and what was learnt about the others begins anew too.
    """
    admission = pipeline.admission
    admission.names.extend(state.names)
    admission.rows.update((name, row) for row, name in enumerate(state.names))
    admission.ledger.accounts.update(state.accounts)
    admission.refused.update(state.refused)
    admission.brought.update(state.brought)
    for name, number in state.counters.items():
        setattr(pipeline, name, number)
    rows = len(state.names)
    pipeline.series.append(rows)
    pipeline.forecaster.append(rows)
    pipeline.assign(range(rows))
    same = _alike(pipeline, state)
    whole = same
    for name, table in _tables(pipeline).items():
        stored = state.tables.get(name, {})
        for column, kind in table.columns.items():
            array = stored.get(column)
            fits = array is not None and array.shape == table[column].shape and array.dtype == np.dtype(kind.dtype)
            if array is not None and fits and (same or column not in _DEPENDENT):
                table.arrays[column][:rows] = array
            else:
                whole = False
    if not whole:
        pipeline.forecaster.restart(slice(0, rows))


#: Columns whose places stand for experts, levels or steps ahead: they carry over only where all of those are the same.
_DEPENDENT = {
    *blend.columns(1, 1),
    *conformal.columns(1, 1),
    *dispersion.columns(1),
    *score.columns(1, 1, 1),
    *("due", "due_made", "due_widths", "due_situation", "weights", "forecast", "lower", "upper"),
}


def _alike(pipeline: Pipeline, state: State) -> bool:
    now, then = pipeline.settings, state.settings
    return (
        pipeline.experts == state.experts
        and now.horizon == then.horizon
        and (now.level, now.levels) == (then.level, then.levels)
    )


def encode(state: State) -> Iterator[bytes | memoryview]:
    """The state as pieces of bytes, whose whole is the snapshot. The first one is made last: it holds the checksums."""
    flat = [
        (table, column, np.ascontiguousarray(array, array.dtype.newbyteorder("<")))
        for table, columns in state.tables.items()
        for column, array in columns.items()
    ]
    header = msgspec.msgpack.encode(
        _Header(
            step=state.step,
            settings=shaping(state.settings),
            experts=list(state.experts),
            names=state.names,
            accounts=[
                (name.encode("utf-8", "surrogatepass"), a.epoch, a.seq, a.samples, a.duplicates, a.gaps)
                for name, a in state.accounts.items()
            ],
            refused=state.refused,
            counters=state.counters,
            brought=[(name.encode("utf-8", "surrogatepass"), count) for name, count in state.brought.items()],
            columns=[(t, c, a.dtype.str, list(a.shape), zlib.crc32(_raw(a))) for t, c, a in flat],
        )
    )
    yield _OPENING.pack(MAGIC, FORMAT, len(header), zlib.crc32(header)) + header
    for _, _, array in flat:
        raw = _raw(array)
        for start in range(0, len(raw), PIECE):
            yield raw[start : start + PIECE]


def decode(data: bytes) -> State:
    """The state in `encode`'s bytes. Damaged where they are not as they were written, Foreign where a newer
    forecastd wrote them.
    """
    if len(data) < _OPENING.size or not data.startswith(MAGIC):
        raise Damaged("it does not begin like a snapshot")
    _, version, length, total = _OPENING.unpack_from(data)
    raw = data[_OPENING.size : _OPENING.size + length]
    if version > FORMAT and zlib.crc32(raw) == total:
        raise Foreign(f"the snapshot has format {version}, newer than the {FORMAT} known here; use a newer forecastd")
    if version != FORMAT or len(raw) != length or zlib.crc32(raw) != total:
        raise Damaged("its header does not match its checksum")
    try:
        header = msgspec.msgpack.decode(raw, type=_Header)
        settings = settings_of(header.settings)
        accounts = {name.decode("utf-8", "surrogatepass"): Account(*rest) for name, *rest in header.accounts}
        brought = {name.decode("utf-8", "surrogatepass"): count for name, count in header.brought}
    except (msgspec.DecodeError, ValueError) as error:
        raise Damaged(f"its header cannot be read: {error}") from None
    return State(
        step=header.step,
        settings=settings,
        experts=tuple(header.experts),
        names=header.names,
        accounts=accounts,
        refused=header.refused,
        brought=brought,
        counters={name: number for name, number in header.counters.items() if name in _COUNTERS},
        tables=_columns(memoryview(data)[_OPENING.size + length :], header),
    )


#: The settings that the state depends on.
_SHAPING = (
    *("experts", "horizon", "level", "levels"),
    *("alarm_rate", "alarm_direction", "alarm_deviation", "alarm_share"),
)
_SHAPING_LIMITS = ("series", "series_per_producer", "producers", "name_bytes", "future_s", "bridge_steps")
#: What held before there were these limits.
_UNLIMITED = {"series_per_producer": 1 << 31, "producers": 1 << 31}


def shaping(settings: Settings) -> dict[str, Any]:
    """Those settings that the pipeline's state depends on, as JSON; the journal keeps them, and nothing that might
    be secret.
    """
    known = msgspec.to_builtins(settings)
    limits = {name: known["limits"][name] for name in _SHAPING_LIMITS}
    return {**{name: known[name] for name in _SHAPING}, "limits": limits}


def settings_of(stored: Mapping[str, Any]) -> Settings:
    """Settings with those of `shaping`. What another version of forecastd stored and this one does not know is
    left out.
    """
    known = {name: stored[name] for name in _SHAPING if name in stored}
    limits = {name: number for name, number in stored.get("limits", {}).items() if name in _SHAPING_LIMITS}
    limits = (_UNLIMITED if limits else {}) | limits
    return msgspec.convert({**known, "limits": limits}, Settings)


def _columns(body: memoryview, header: _Header) -> dict[str, dict[str, Array]]:
    tables: dict[str, dict[str, Array]] = {}
    start = 0
    for table, column, kind, shape, total in header.columns:
        dtype = np.dtype(kind)
        stop = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        raw = body[start:stop]
        if dtype.kind not in "biuf" or len(raw) != stop - start or zlib.crc32(raw) != total:
            raise Damaged(f"its column {table}.{column} does not match its checksum")
        tables.setdefault(table, {})[column] = np.frombuffer(raw, dtype).reshape(shape)
        start = stop
    if start != len(body):
        raise Damaged("there is more of it than its header says")
    return tables


def _raw(array: Array) -> memoryview:
    # an empty array cannot be cast, and has no bytes
    return memoryview(array.data).cast("B") if array.size else memoryview(b"")
