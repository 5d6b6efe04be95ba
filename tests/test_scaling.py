"""The causal statistics are those of two passes over the past, and no single spike upsets them."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import scaling
from forecastd.models.table import Array, Table


def run(values: Array) -> tuple[dict[str, Array], scaling.Scale]:
    table = Table(scaling.COLUMNS)
    state = table.take(table.append(values.shape[1]))
    for x in values:
        scale = scaling.update(state, x)
    return state, scale


def test_until_their_memory_is_full_they_are_plain_means() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, (120, 3))
    state, scale = run(values)
    np.testing.assert_allclose(state["m"], values.mean(axis=0))
    np.testing.assert_allclose(scale.sd, values.std(axis=0))
    np.testing.assert_allclose(scale.s, np.sqrt(np.mean(np.diff(values, axis=0) ** 2, axis=0)))


def test_later_they_forget_with_their_half_life() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, (4000, 1))
    state, scale = run(values)
    weights = 0.5 ** (np.arange(4000)[::-1] / scaling.LEVEL_HALF_LIFE)
    mean = np.average(values[:, 0], weights=weights)
    assert state["m"][0] == pytest.approx(mean, rel=1e-2)
    assert scale.sd[0] == pytest.approx(np.sqrt(np.average((values[:, 0] - mean) ** 2, weights=weights)), rel=2e-2)


def test_a_spike_of_a_thousand_sigma_hardly_moves_the_unit() -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, (1000, 1))
    _, before = run(values)
    values[500] = 1000.0
    _, after = run(values)
    assert after.s[0] < 1.5 * before.s[0]
    assert after.sd[0] < 1.5 * before.sd[0]


def test_what_a_fit_sees_of_a_spike_is_held_near_the_envelope_but_a_new_level_is_let_in() -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, (600, 1))
    values[500:] += 1000.0
    table = Table(scaling.COLUMNS)
    state = table.take(table.append(1))
    tame = [float(scaling.update(state, x).tame[0]) for x in values]
    assert tame[500] < 20.0
    assert tame[515] == values[515, 0]


@pytest.mark.parametrize("constant", [0.0, 1e-12, -3.0, 1e12])
def test_a_constant_series_has_unit_scales(constant: float) -> None:
    _, scale = run(np.full((50, 1), constant))
    assert (scale.s[0], scale.sd[0]) == (1.0, 1.0)


def test_rows_of_different_age_do_not_touch_each_other() -> None:
    values = np.random.default_rng(0).normal(size=(30, 1))
    table = Table(scaling.COLUMNS)
    table.append(1)
    for x in values[:10]:
        scaling.update(table.take(slice(0, 1)), x)
    table.append(1)
    for x in values[10:]:
        both = scaling.update(table.take(slice(0, 2)), np.repeat(x, 2))
    _, old = run(values)
    _, young = run(values[10:])
    np.testing.assert_array_equal([both.s[0], both.s[1]], [old.s[0], young.s[0]])
    np.testing.assert_array_equal([both.sd[0], both.sd[1]], [old.sd[0], young.sd[0]])
