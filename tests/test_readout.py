"""The readout fitted anew: against plain least squares, with few samples, and with bursts among them."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import readout
from forecastd.models.table import Array


def states(n: int, units: int = 20) -> Array:
    return np.maximum(np.random.default_rng(3).normal(0, 1, (n, units)), 0.0).astype(np.float32)


def test_with_many_samples_it_is_the_readout_that_made_them() -> None:
    hidden, truth = states(4000), np.linspace(-1, 1, 20).astype(np.float32)
    fitted, bias = readout.refit(hidden, hidden @ truth + 0.5, np.zeros(20, np.float32), 0.0)
    assert fitted == pytest.approx(truth, abs=0.01)
    assert bias == pytest.approx(0.5, abs=0.01)


def test_one_burst_in_twenty_leads_nothing_astray() -> None:
    hidden, truth = states(4000), np.linspace(-1, 1, 20).astype(np.float32)
    targets = hidden @ truth
    targets[::20] += 50.0
    fitted, _ = readout.refit(hidden, targets, np.zeros(20, np.float32), 0.0)
    assert fitted == pytest.approx(truth, abs=0.02)


def test_with_few_samples_it_stays_near_the_one_there_is() -> None:
    hidden, before = states(3), np.ones(20, np.float32)
    fitted, _ = readout.refit(hidden, hidden @ before + 1.0, before, 0.0)
    many, _ = readout.refit(states(3000), states(3000) @ before + 1.0, before, 0.0)
    assert np.abs(fitted - before).max() < 0.2
    assert np.isfinite(many).all()


def test_a_readout_that_is_right_stays_as_it_is() -> None:
    hidden, before = states(500), np.linspace(0, 1, 20).astype(np.float32)
    fitted, bias = readout.refit(hidden, hidden @ before, before, 0.0)
    assert fitted == pytest.approx(before, abs=1e-6)
    assert bias == pytest.approx(0.0, abs=1e-6)
