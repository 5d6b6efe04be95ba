"""What a commit of the journal is in bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.record import Damaged, Encoder, Entry, checksum, decode
from forecastd.tests.feed import model, settings, state, steps


def entries(count: int, **changes: Any) -> tuple[Pipeline, list[Entry]]:
    core = Pipeline(settings(**changes), model().weights)
    made = []
    for number, (batch, now) in enumerate(steps(count), 1):
        effects = core.step(batch, now)
        made.append(Entry(number, now, batch, effects.recorded, effects.taken))
    return core, made


def test_what_is_read_steps_a_pipeline_to_the_same_state() -> None:
    """Refused samples, names that are none, late and unnumbered ones included."""
    core, made = entries(120, horizon=2)
    again = Pipeline(settings(horizon=2), model().weights)
    for entry in decode(Encoder(core.rows).blob(made), 1, core.names):
        again.step(entry.batch, entry.now, entry.recorded)
    assert state(again) == state(core)


def test_what_is_read_is_what_was_written() -> None:
    core, made = entries(50)
    for before, after in zip(made, decode(Encoder(core.rows).blob(made), 1, core.names), strict=True):
        assert (after.step, after.now) == (before.step, before.now)
        assert np.array_equal(after.batch.value, before.batch.value, equal_nan=True)
        assert np.array_equal(after.batch.time, before.batch.time, equal_nan=True)
        assert [p[3:] for p in after.batch.parcels] == [p[3:] for p in before.batch.parcels]
        assert after.batch.refused == before.batch.refused
        known = [name if name in core.rows else None for name in before.batch.series]
        assert [name if name in core.rows else None for name in after.batch.series] == known
        assert before.taken is not None
        assert np.array_equal(before.taken if after.taken is None else after.taken, before.taken)


def test_a_name_that_is_entered_only_later_is_read_as_it_was() -> None:
    """The blob may be made after steps that came later: what is a known name by then was none when it was refused."""
    core = Pipeline(settings(), model().weights)
    refused = Batch(["late"], np.array([np.nan]), np.array([np.nan]), [Parcel(0, 1)])
    taken = Batch(["late"], np.array([1.0]), np.array([np.nan]), [Parcel(0, 1)])
    made = [Entry(k, 1.0, b, core.step(b, 1.0).recorded) for k, b in enumerate((refused, taken), 1)]
    again = Pipeline(settings(), model().weights)
    for entry in decode(Encoder(core.rows).blob(made), 1, core.names):
        again.step(entry.batch, entry.now, entry.recorded)
    assert state(again) == state(core)


def test_the_same_list_of_names_may_come_again_and_other_lists_in_between() -> None:
    rows = {"a": 0, "b": 1, "c": 2}
    encoder, names = Encoder(rows), ["a", "b"]
    for series in (names, names, ["c", "a"], names):
        batch = Batch(series, np.zeros(2), np.zeros(2), [Parcel(0, 2)])
        (entry,) = decode(encoder.blob([Entry(1, 1.0, batch, [])]), 1, list(rows))
        assert entry.batch.series == series


def test_a_refused_name_of_a_megabyte_costs_the_journal_nothing() -> None:
    batch = Batch(["x" * 1_000_000], np.zeros(1), np.zeros(1), [Parcel(0, 1)])
    assert len(Encoder({}).blob([Entry(1, 1.0, batch, [])])) < 200


def test_bytes_that_are_no_commit_are_damaged_and_nothing_worse() -> None:
    core, made = entries(3)
    blob = Encoder(core.rows).blob(made)
    for cut in range(len(blob)):
        with pytest.raises(Damaged):
            decode(blob[:cut], 1, core.names)
    random = np.random.default_rng(0)
    for _ in range(2000):
        spoilt = bytearray(blob)
        spoilt[int(random.integers(len(blob)))] ^= 1 << int(random.integers(8))
        try:
            decode(bytes(spoilt), 1, core.names)
        except Damaged:
            pass


def test_the_checksum_covers_what_stands_beside_the_bytes() -> None:
    assert len({checksum(b"ab", 1, 2), checksum(b"ab", 1, 3), checksum(b"ac", 1, 2), checksum(b"ab", 12)}) == 4
