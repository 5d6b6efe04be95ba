"""The blend follows the best expert, forgets a bad one soon, and keeps what a shock teaches for shocks."""

from __future__ import annotations

import numpy as np
import pytest

from forecastd.models import blend, conformal
from forecastd.models.table import Array, Table


def run(y: Array, experts: Array, awake: Array | None = None) -> tuple[Array, Array]:
    """The blend's forecasts of `y`, shape (T,), from the experts', (T, K), made before y was known; and the weights.

    The usual size of an error is told as the intervals' state tells it."""
    kinds = experts.shape[1]
    table = Table(blend.columns(1, kinds) | conformal.columns(1, 1))
    state = table.take(table.append(1))
    awake = np.ones_like(experts) if awake is None else awake
    forecasts, weights = np.empty(len(y)), np.empty_like(experts)
    for t, target in enumerate(y):
        made = np.concatenate([[1.0], awake[t]])[None, None]
        now = blend.situation(state)
        mean, weight = blend.forecast(state, experts[t][None, None], awake[t][None, None], now)
        forecasts[t], weights[t] = mean[0, 0], weight[0, 0]
        error = np.concatenate([mean[0], experts[t]]) - target
        size = np.abs(error[:1, None])
        blend.notice(state, size[0], conformal.usual(state)[0])
        conformal.update(state, size, np.ones((1, 1, 2, 1)), np.ones((1, 1)), np.ones(1), np.ones(1))
        blend.update(state, error[None, None], made, now[:, None])
    return forecasts, weights


def rmse(a: Array, b: Array) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def experts_of(y: Array, noises: list[float]) -> Array:
    random = np.random.default_rng(1)
    return np.stack([y + random.normal(0, noise, len(y)) for noise in noises], axis=1)


def test_it_comes_close_to_the_best_expert_wherever_that_stands() -> None:
    y = np.random.default_rng(0).normal(size=3000)
    for best in range(4):
        noises = [1.0, 1.0, 1.0, 1.0]
        noises[best] = 0.3
        experts = experts_of(y, noises)
        forecasts, weights = run(y, experts)
        assert rmse(forecasts[500:], y[500:]) < 1.05 * rmse(experts[500:, best], y[500:])
        assert weights[-1].argmax() == best


def test_weights_are_shares() -> None:
    y = np.random.default_rng(0).normal(size=200)
    _, weights = run(y, experts_of(y, [1.0, 0.5, 2.0]))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    assert (weights >= 0.0).all()


@pytest.mark.parametrize(("best", "samples"), [(0.2, 128), (0.4, 64)])
def test_it_recovers_soon_when_the_best_expert_changes(best: float, samples: int) -> None:
    """Where the former best is suddenly five times as bad, the first errors are taken for surprises."""
    y = np.random.default_rng(0).normal(size=4000)
    experts = experts_of(y, [1.0, best, 1.0])
    experts[2000:, (1, 2)] = experts[2000:, (2, 1)]
    forecasts, _ = run(y, experts)
    late = slice(2000 + samples, 2500)
    assert rmse(forecasts[late], y[late]) < 1.10 * rmse(experts[late, 2], y[late])


def test_it_is_hardly_worse_than_naive_where_all_others_are_useless() -> None:
    y = np.random.default_rng(0).normal(size=3000).cumsum()
    naive = np.concatenate([[0.0], y[:-1]])
    experts = np.stack([naive, naive + 5.0, naive * 2.0, -naive], axis=1)
    forecasts, _ = run(y, experts)
    assert rmse(forecasts[:250], y[:250]) < 1.20 * rmse(naive[:250], y[:250])
    assert rmse(forecasts[250:], y[250:]) < 1.03 * rmse(naive[250:], y[250:])


def test_one_spike_of_a_thousand_sigma_does_not_poison_the_weights() -> None:
    y = np.random.default_rng(0).normal(size=4000)
    experts = experts_of(y, [1.0, 0.3, 1.0])
    y[1500] = 1000.0  # which the experts could not know
    forecasts, _ = run(y, experts)
    before, after = slice(500, 1500), slice(1800, 3800)
    assert rmse(forecasts[after], y[after]) < 1.05 * rmse(forecasts[before], y[before])


def jumping(every: int) -> tuple[Array, Array]:
    """Noise around a level that jumps by a hundred; experts that repeat the last value, and that know the level but
    for the first 33 samples after it has jumped."""
    random = np.random.default_rng(2)
    y = np.arange(4000) // every % 2 * 100.0
    known = y.copy()
    for jump in range(every, len(y), every):
        known[jump : jump + 33] = y[jump - 1]
    y += random.normal(size=len(y))
    return y, np.stack([np.concatenate([y[:1], y[:-1]]), known], axis=1)


def test_what_a_jump_teaches_is_for_the_time_after_jumps() -> None:
    y, experts = jumping(1000)
    forecasts, weights = run(y, experts)
    for jump in (2000, 3000):
        assert (weights[jump + 1 : jump + 33, 0] > 0.85).all()
        assert weights[jump + 40 : jump + 500, 1].mean() > 0.98
    calm = slice(2033, 3000)
    assert rmse(forecasts[calm], y[calm]) < 1.02 * rmse(experts[calm, 1], y[calm])


def test_a_forecast_is_learnt_from_in_the_situation_in_which_it_was_made() -> None:
    table = Table(blend.columns(2, 2))
    state = table.take(table.append(1))
    error = np.array([[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]])
    blend.update(state, error, np.ones((1, 2, 3)), np.array([[blend.STRUCK, blend.CALM]]))
    learnt = state["regret"][0].any(axis=-1)
    np.testing.assert_array_equal(learnt, [[False, True, False], [True, False, False]])


def test_a_surprise_strikes_two_forecasts_and_leaves_the_windows_after_33() -> None:
    table = Table(blend.columns(1, 2))
    state = table.take(table.append(2))
    seen = []
    for size in [1.0] * 5 + [6.1] + [1.0] * 40:
        blend.notice(state, np.array([size, 1.0]), np.ones(2))
        seen.append(blend.situation(state).tolist())
    first, second = zip(*seen, strict=True)
    assert first == (blend.CALM,) * 5 + (blend.STRUCK,) * 2 + (blend.AFTERMATH,) * 31 + (blend.CALM,) * 8
    assert set(second) == {blend.CALM}


def test_a_sleeping_expert_has_no_weight_and_wakes_without_harm() -> None:
    y = np.random.default_rng(0).normal(size=1500)
    experts = experts_of(y, [1.0, 0.5, 0.1])
    awake = np.ones_like(experts)
    awake[:1000, 2] = 0.0
    experts[:1000, 2] = 0.0
    forecasts, weights = run(y, experts, awake)
    assert not weights[:1000, 2].any()
    assert rmse(forecasts[1100:], y[1100:]) < 0.2


def test_it_does_not_depend_on_the_scale_of_the_series() -> None:
    y = np.random.default_rng(0).normal(size=500)
    experts = experts_of(y, [1.0, 0.5, 2.0])
    _, plain = run(y, experts)
    _, huge = run(y * 2.0**40, experts * 2.0**40)
    np.testing.assert_allclose(plain, huge, rtol=1e-9)
