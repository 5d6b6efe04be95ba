"""Copies of the model as bytes: what is not exactly one is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from forecastd.daemon import copied
from forecastd.daemon.record import Damaged
from forecastd.models import checkpoint
from forecastd.models.weights import digest, structure
from forecastd.tests.feed import model


def test_a_copy_is_read_back_to_the_bit() -> None:
    """With all that its structure says."""
    weights = replace(model().weights, window=7, output="value")
    assert digest(copied.decode(copied.encode(weights))) == digest(weights)


def test_a_copy_is_without_what_the_model_knows_of_the_way_ahead() -> None:
    """All series share that, so a copy stays small."""
    shared = checkpoint.serving("general", ("rnn", "path"), 4)
    assert shared is not None
    own = copied.bare(shared.weights)
    assert (own.decoder, own.ahead) == (None, None)
    assert own.recurrent is shared.weights.recurrent
    assert len(copied.encode(own)) < 45_000
    assert copied.bare(own) is own


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_none(number: float) -> None:
    """A single one is enough, in whichever array."""
    weights = model().weights
    for array in weights.arrays.values():
        before = array.copy()
        array.reshape(-1)[-1] = number
        with pytest.raises(copied.Nonfinite):
            copied.unpacked(copied.packed(weights), structure(weights))
        array[...] = before
    assert copied.unpacked(copied.packed(weights), structure(weights))


def test_bytes_of_another_size_are_none() -> None:
    """One number too few, or too many."""
    weights = model().weights
    raw, form = copied.packed(weights), structure(weights)
    for wrong in (raw[:-4], raw + bytes(4), b""):
        with pytest.raises(ValueError, match=r"cut short|more of it"):
            copied.unpacked(wrong, form)
    with pytest.raises(ValueError, match="structure"):
        copied.unpacked(raw, {"units": 12})


@pytest.mark.parametrize("body", [b"", b"\x93\1\2\3", b"\x92\x80\xc4\0"])
def test_what_is_no_copy_is_damaged(body: bytes) -> None:
    """Whatever it is instead."""
    with pytest.raises(Damaged):
        copied.decode(body)
