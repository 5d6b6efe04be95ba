"""The blend follows the best expert, forgets a bad one soon, and is not swayed by one spike."""

from __future__ import annotations

import numpy as np

from forecastd.models import blend
from forecastd.models.table import Array, Table


def run(y: Array, experts: Array, awake: Array | None = None) -> tuple[Array, Array]:
    """The blend's forecasts of `y`, shape (T,), from the experts', (T, K), made before y was known; and the weights."""
    kinds = experts.shape[1]
    table = Table(blend.columns(1, kinds))
    state = table.take(table.append(1))
    awake = np.ones_like(experts) if awake is None else awake
    forecasts, weights = np.empty(len(y)), np.empty_like(experts)
    for t, target in enumerate(y):
        made = np.concatenate([[1.0], awake[t]])[None, None]
        mean, weight, level_one = blend.forecast(state, experts[t][None, None], awake[t][None, None])
        forecasts[t], weights[t] = mean[0, 0], weight[0, 0]
        error = np.concatenate([mean[0], experts[t], level_one[0, 0]]) - target
        blend.update(state, error[None, None], made)
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


def test_it_recovers_within_tens_of_samples_when_the_best_expert_changes() -> None:
    y = np.random.default_rng(0).normal(size=4000)
    experts = experts_of(y, [1.0, 0.2, 1.0])
    experts[2000:, (1, 2)] = experts[2000:, (2, 1)]
    forecasts, _ = run(y, experts)
    late = slice(2064, 2500)
    assert rmse(forecasts[late], y[late]) < 1.10 * rmse(experts[late, 2], y[late])


def test_it_is_hardly_worse_than_naive_where_all_others_are_useless() -> None:
    y = np.random.default_rng(0).normal(size=3000).cumsum()
    naive = np.concatenate([[0.0], y[:-1]])
    experts = np.stack([naive, naive + 5.0, naive * 2.0, -naive], axis=1)
    forecasts, _ = run(y, experts)
    assert rmse(forecasts, y) < 1.01 * rmse(naive, y)


def test_one_spike_of_a_thousand_sigma_does_not_poison_the_weights() -> None:
    y = np.random.default_rng(0).normal(size=4000)
    experts = experts_of(y, [1.0, 0.3, 1.0])
    y[1500] = 1000.0  # which the experts could not know
    forecasts, _ = run(y, experts)
    before, after = slice(500, 1500), slice(1800, 3800)
    assert rmse(forecasts[after], y[after]) < 1.05 * rmse(forecasts[before], y[before])


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
