"""A pipeline's state as a value and as bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from forecastd.daemon import snapshot
from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.record import Damaged, Foreign
from forecastd.daemon.settings import Limits, Settings
from forecastd.daemon.snapshot import capture, decode, encode, freeze, restore
from forecastd.models import frozen
from forecastd.tests.feed import live, model, settings, state, steps


def pipeline(**changes: Any) -> Pipeline:
    return Pipeline(settings(**changes), model().weights)


def written(core: Pipeline, step: int = 0) -> bytes:
    return b"".join(map(bytes, encode(capture(core, step))))


@pytest.mark.parametrize("changes", [{}, {"horizon": 4}, {"experts": ("naive", "rnn")}, {"levels": ()}, {"level": 0.5}])
def test_a_restored_pipeline_goes_on_as_if_nothing_had_happened(changes: dict[str, Any]) -> None:
    """To the bit, in what it forecasts, refuses and replies, the kernel's rebuilt windows included."""
    core = live(pipeline(**changes), steps(60))
    again = pipeline(**changes)
    restore(again, decode(written(core)))
    assert state(again) == state(core)
    for batch, now in steps(90, first=60):
        one, other = core.step(batch, now), again.step(batch, now)
        assert one.replies == other.replies
        for mine, its in zip(one.forecasts, other.forecasts, strict=True):
            for name in ("row", "time", "count", "mean", "lower", "upper", "experts", "weights", "score"):
                assert getattr(mine, name).tobytes() == getattr(its, name).tobytes()
    assert state(again) == state(core)


def test_a_pipeline_that_has_seen_nothing_can_be_written_and_read() -> None:
    again = pipeline()
    restore(again, decode(written(pipeline())))
    assert state(live(again, steps(20))) == state(live(pipeline(), steps(20)))


def test_a_snapshot_does_not_change_when_the_pipeline_goes_on() -> None:
    core = live(pipeline(), steps(30))
    kept = capture(core, 30)
    before = b"".join(map(bytes, encode(kept)))
    live(core, steps(60, first=30))
    assert b"".join(map(bytes, encode(kept))) == before


def test_a_snapshot_copied_in_pieces_is_of_the_moment_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "PIECE", 1)
    core = live(pipeline(), steps(30))
    before = written(core, 30)
    kept = freeze(core, 30)
    late = 0
    for batch, now in steps(60, first=30):
        core.step(batch, now)
        late += not kept.whole
        kept.advance()
    assert late > 1 and kept.whole
    assert b"".join(map(bytes, encode(kept))) == before


def test_the_pieces_are_small_so_that_a_disk_is_not_held_up() -> None:
    core = Pipeline(Settings(limits=Limits(series=2000)), model().weights)
    names = [f"s{k}" for k in range(2000)]
    core.step(Batch(names, np.zeros(2000), np.full(2000, np.nan), [Parcel(0, 2000)]), 1.0)
    assert max(map(len, encode(capture(core, 1)))) <= snapshot.PIECE


def test_fault_6_any_bit_that_flips_is_noticed() -> None:
    whole = written(live(pipeline(series_max=2), steps(20)))
    random = np.random.default_rng(0)
    places = {*range(200), *random.integers(0, len(whole), 300).tolist(), len(whole) - 1}
    for place in places:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << int(random.integers(8))
        with pytest.raises((Damaged, Foreign)):
            decode(bytes(spoilt))


@pytest.mark.parametrize("spoil", ["empty", "zeros", "longer", "noise"])
def test_fault_6_what_is_no_snapshot_is_damaged(spoil: str) -> None:
    whole = written(live(pipeline(series_max=2), steps(5)))
    noise = np.random.default_rng(0).bytes(len(whole))
    with pytest.raises(Damaged):
        decode({"empty": b"", "zeros": bytes(len(whole)), "longer": whole + b"\0", "noise": noise}[spoil])


def test_fault_6_a_snapshot_cut_short_anywhere_is_damaged() -> None:
    whole = written(live(pipeline(series_max=2), steps(5)))
    random = np.random.default_rng(0)
    for cut in {*range(300), *random.integers(0, len(whole), 100).tolist(), len(whole) - 1}:
        with pytest.raises(Damaged):
            decode(whole[:cut])


def test_fault_7_a_newer_format_is_refused_and_not_guessed_at() -> None:
    whole = bytearray(written(pipeline()))
    whole[len(snapshot.MAGIC)] = snapshot.FORMAT + 1
    with pytest.raises(Foreign, match="use a newer forecastd"):
        decode(bytes(whole))


def test_what_was_learnt_outlives_a_change_of_the_horizon() -> None:
    """The scales and the lattice mean the same as before; what stands for steps ahead begins anew, and so do the
    windows.
    """
    core = live(pipeline(), steps(60))
    other = pipeline(horizon=3)
    restore(other, capture(core, 60))
    assert other.names == core.names
    assert other.samples == core.samples
    for name in ("count", "s2", "kf", "history"):
        assert np.array_equal(other.forecaster.table[name], core.forecaster.table[name], equal_nan=True)
    assert not other.forecaster.table["fresh"].any()
    assert not other.forecaster.scores["scored"].any()
    for batch, now in steps(120, first=60):
        for forecasts in other.step(batch, now).forecasts:
            assert np.isfinite(forecasts.mean[forecasts.ready]).all()


def test_other_experts_do_not_inherit_each_others_weights() -> None:
    """As many as before, but not the same: the columns would fit."""
    core = live(pipeline(experts=("naive", "ses", "rnn")), steps(60))
    other = pipeline(experts=("naive", "ar", "rnn"))
    restore(other, capture(core, 60))
    assert core.forecaster.table["regret"].any()
    assert not other.forecaster.table["regret"].any()


def test_what_producers_are_owed_outlives_a_change_of_settings() -> None:
    core = live(pipeline(), steps(60))
    other = pipeline(experts=("naive",))
    restore(other, decode(written(core)))
    assert other.admission.ledger.accounts == core.admission.ledger.accounts
    assert other.admission.refused == core.admission.refused


def test_a_model_with_a_longer_window_fills_it_before_it_forecasts() -> None:
    core = live(pipeline(), steps(60))
    other = Pipeline(settings(), replace(model().weights, window=20))
    restore(other, capture(core, 60))
    assert not other.forecaster.table["window"].any()
    assert not other.forecaster.table["fresh"].any()


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    told = snapshot.shaping(settings(horizon=7))
    stored = {**told, "colour": "red", "limits": {**told["limits"], "depth": 3}}
    assert snapshot.shaping(snapshot.settings_of(stored)) == told
    assert snapshot.settings_of({}).horizon == 1
