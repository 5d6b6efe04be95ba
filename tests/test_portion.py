"""A batch that would take too long is dealt out, in order and with nothing lost."""

from __future__ import annotations

import numpy as np

from forecastd.daemon.batch import Batch, Parcel
from forecastd.daemon.portion import ROUNDS, ROUNDS_MAX, STEP_S, Portions


def batch(series: list[str], *parcels: Parcel, **refused: int) -> Batch:
    value = np.arange(len(series), dtype=float)
    return Batch(series, value, value + 0.5, list(parcels) or [Parcel(0, len(series))], refused)


def portions(whole: Batch, dealer: Portions | None = None) -> list[Batch]:
    dealer = Portions() if dealer is None else dealer
    assert not dealer
    dealer.put(whole)
    taken = []
    while dealer:
        taken.append(dealer.take())
    return taken


def test_many_samples_of_one_series_are_dealt_out_over_several_steps() -> None:
    """In order, with their times and numbers; what was refused is counted once."""
    n = 2 * ROUNDS + 7
    whole = batch(
        ["first", *["a"] * n, "last"],
        Parcel(0, 1),
        Parcel(1, n + 1, b"peer", True, "plc", 3, 5),
        Parcel(n + 1, n + 2),
        oversize=1,
    )
    taken = portions(whole)
    assert [len(portion) for portion in taken] == [ROUNDS + 1, ROUNDS, 8]
    assert [name for portion in taken for name in portion.series] == whole.series
    assert np.concatenate([portion.value for portion in taken]).tolist() == whole.value.tolist()
    assert np.concatenate([portion.time for portion in taken]).tolist() == whole.time.tolist()
    assert [portion.refused for portion in taken] == [{"oversize": 1}, {}, {}]
    of_plc = (b"peer", True, "plc", 3)
    assert [portion.parcels for portion in taken] == [
        [Parcel(0, 1), Parcel(1, ROUNDS + 1, *of_plc, 5)],
        [Parcel(0, ROUNDS, *of_plc, 5 + ROUNDS)],
        [Parcel(0, 7, *of_plc, 5 + 2 * ROUNDS), Parcel(7, 8)],
    ]


def test_as_many_samples_of_many_series_are_one_step() -> None:
    """They cost one round, whatever their number, and are handed over as they are."""
    whole = batch([str(n) for n in range(20 * ROUNDS)])
    assert portions(whole)[0] is whole


def test_a_refused_number_at_the_cut_is_in_one_portion() -> None:
    """A parcel without samples is told once."""
    refused = Parcel(ROUNDS, ROUNDS, b"p", True, "plc", 0, ROUNDS + 1, "malformed", 1)
    after = Parcel(ROUNDS, 2 * ROUNDS, b"p", True, "plc", 0, ROUNDS + 2)
    whole = batch(["a"] * 2 * ROUNDS, Parcel(0, ROUNDS, b"p", True, "plc", 0, 1), refused, after)
    first, second = portions(whole)
    assert first.parcels[1:] == [refused]
    assert second.parcels == [after._replace(start=0, stop=ROUNDS)]


def test_a_batch_of_refusals_alone_is_a_portion() -> None:
    """There is something to count and nothing to forecast."""
    (portion,) = portions(batch([], Parcel(0, 0), malformed=3))
    assert portion.refused == {"malformed": 3}


def test_a_step_that_took_long_makes_the_next_ones_shorter_and_short_ones_make_them_longer_again() -> None:
    """How long a round takes is not known beforehand."""
    dealer = Portions()

    def first(samples: int = 3 * ROUNDS_MAX) -> int:
        return len(portions(batch(["a"] * samples), dealer)[0])

    assert first() == ROUNDS
    dealer.pace(ROUNDS, 10 * STEP_S)
    assert first() == ROUNDS // 10
    dealer.pace(ROUNDS // 10 - 1, STEP_S / 2)
    assert first() == ROUNDS // 10, "a step that was not full says nothing of what would fit"
    dealer.pace(ROUNDS // 10, STEP_S / 2)
    assert first() == ROUNDS // 5
    for _ in range(20):
        dealer.pace(ROUNDS_MAX, STEP_S / 2)
    assert first() == ROUNDS_MAX
    dealer.pace(1, 100 * STEP_S)
    assert first(3) == 1
