"""A batch that would take too long is dealt out, in order and with nothing lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.portion import Portions, Share, joined

MANY = 1_000_000


def batch(series: list[str], *parcels: Parcel, **refused: int) -> Batch:
    value = np.arange(len(series), dtype=float)
    return Batch(series, value, value + 0.5, list(parcels) or [Parcel(0, len(series))], refused)


def portions(whole: Batch, samples: int, rounds: int, new: int = MANY, known: Container[str] = ()) -> list[Batch]:
    left, taken = Portions(whole), []
    while left:
        taken.append(left.take(Share(samples, rounds, new), known))
    return taken


def test_many_samples_of_one_series_are_dealt_out_over_several_steps() -> None:
    """In order, with their times and numbers; what was refused is counted once."""
    whole = batch(
        ["first", *["a"] * 27, "last"],
        Parcel(0, 1),
        Parcel(1, 28, b"peer", True, "plc", 3, 5),
        Parcel(28, 29),
        oversize=1,
    )
    taken = portions(whole, MANY, 10)
    assert [name for portion in taken for name in portion.series] == whole.series
    assert np.concatenate([portion.value for portion in taken]).tolist() == whole.value.tolist()
    assert np.concatenate([portion.time for portion in taken]).tolist() == whole.time.tolist()
    assert [portion.refused for portion in taken] == [{"oversize": 1}, {}, {}]
    of_plc = (b"peer", True, "plc", 3)
    assert [portion.parcels for portion in taken] == [
        [Parcel(0, 1), Parcel(1, 11, *of_plc, 5)],
        [Parcel(0, 10, *of_plc, 15)],
        [Parcel(0, 7, *of_plc, 25), Parcel(7, 8)],
    ]


def test_what_fits_into_a_step_is_handed_over_as_it_is() -> None:
    """Also where a portion of the usual size would leave a small rest."""
    whole = batch([str(n) for n in range(150)])
    assert portions(whole, 100, 1) == [whole]
    assert list(map(len, portions(whole, 99, 1))) == [99, 51]


def test_a_portion_has_so_many_new_series_and_no_more() -> None:
    """Each is counted once, however often it comes, and those that are known are not."""
    whole = batch(["a", "b", "a", "known", "c", "b", "d"])
    assert [portion.series for portion in portions(whole, MANY, MANY, 2, {"known"})] == [
        ["a", "b", "a", "known"],
        ["c", "b"],
        ["d"],
    ]


def test_a_share_is_smaller_by_what_was_taken_of_it() -> None:
    """So that the next message of the same sender has what is left."""
    share = Share(10, 5, 4)
    Portions(batch(["a", "a", "b"])).take(share)
    assert share == Share(7, 3, 2)
    Portions(batch([], Parcel(0, 0), malformed=1)).take(share)
    assert share == Share(6, 3, 2), "what was refused counts as well"
    assert not Share(0, 1, 1) and not Share(1, 0, 1) and not Share(1, 1, 0)


def test_a_refused_number_at_the_cut_is_in_one_portion() -> None:
    """A parcel without samples is told once."""
    refused = Parcel(10, 10, b"p", True, "plc", 0, 11, "malformed", 1)
    after = Parcel(10, 20, b"p", True, "plc", 0, 12)
    whole = batch(["a"] * 20, Parcel(0, 10, b"p", True, "plc", 0, 1), refused, after)
    first, second = portions(whole, MANY, 10)
    assert first.parcels[1:] == [refused]
    assert second.parcels == [after._replace(start=0, stop=10)]


def test_a_batch_of_refusals_alone_is_a_portion() -> None:
    """There is something to count and nothing to forecast."""
    (portion,) = portions(batch([], Parcel(0, 0), malformed=3), 10, 10)
    assert portion.refused == {"malformed": 3}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=30),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 2),
)
def test_portions_joined_are_the_batch_again(told: list[tuple[str, bool]], samples: int, rounds: int, new: int) -> None:
    """Whatever is cut: every sample, refusal and number once, in order; and no portion is longer than it may be."""
    parcels, series = [], list[str]()
    for seq, (name, good) in enumerate(told, 1):
        if good:
            parcels.append(Parcel(len(series), len(series) + 1, b"p", True, "plc", 0, seq))
            series.append(name)
        else:
            parcels.append(Parcel(len(series), len(series), b"p", True, "plc", 0, seq, "malformed", 1))
    whole = batch(series, *parcels, malformed=2)
    found = portions(whole, samples, rounds, new)
    for portion in found:
        counts = Counter(portion.series)
        assert max(counts.values(), default=0) <= rounds and len(counts) <= new
        assert len(portion) <= samples * 3 / 2
    again = joined(found)
    assert (again.series, again.value.tolist(), again.time.tolist()) == (
        series,
        whole.value.tolist(),
        whole.time.tolist(),
    )
    assert (again.parcels, again.refused) == (whole.parcels, whole.refused)
