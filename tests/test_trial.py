"""The trial may be looked at after every round and still promotes nobody by luck; and what is better wins soon."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from forecastd.models.trial import CLIP, FAR, FIRST, RATE, SHARES, Evidence, Guard, Trial, Verdict

Floats = NDArray[np.float64]
Stream = Callable[[np.random.Generator, int], tuple[Floats, Floats]]


def gaussian(random: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    return np.abs(random.normal(size=rows)), np.abs(random.normal(size=rows))


def heavy(random: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    return np.abs(random.standard_t(1.5, size=rows)), np.abs(random.standard_t(1.5, size=rows))


def shaken(random: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """All series are hit by the same shock, which favours one or the other."""
    shock = random.normal()
    a, b = gaussian(random, rows)
    return a + max(shock, 0.0), b + max(-shock, 0.0)


def bursts(random: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
    """Nothing for a long time, and then a lot."""
    scale = 50.0 if random.random() < 0.02 else 0.01
    a, b = gaussian(random, rows)
    return scale * a, scale * b


def run(judge: Trial | Guard, stream: Stream, seed: int, rounds: int, rows: int = 1) -> Verdict | None:
    random = np.random.default_rng(seed)
    for _ in range(rounds):
        verdict = judge.take(*stream(random, rows))
        if verdict is not None:
            return verdict
    return None


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("stream", [gaussian, heavy, shaken, bursts])
def test_one_that_is_no_better_wins_less_often_than_promised(stream: Stream, rows: int) -> None:
    """Both are equally good, no margin is asked for, and somebody looks after every round."""
    alpha, streams = 0.1, 300
    won = 0
    for seed in range(streams):
        verdict = run(Trial(alpha, 0.0, 400), stream, seed, 400, rows)
        won += verdict is not None and verdict.outcome == "won"
    assert won <= streams * alpha + 1.65 * (streams * alpha * (1 - alpha)) ** 0.5


@pytest.mark.parametrize("stream", [gaussian, shaken])
def test_a_champion_that_is_no_worse_is_hardly_ever_rolled_back_however_long_it_serves(stream: Stream) -> None:
    alpha, champions = 0.1, 150
    back = sum(run(Guard(alpha, 0.0, 100), stream, seed, 1000, 4) is not None for seed in range(champions))
    assert back <= champions * alpha + 1.65 * (champions * alpha * (1 - alpha)) ** 0.5


@pytest.mark.parametrize("stream", [gaussian, heavy, bursts])
def test_with_the_margin_one_that_is_equally_good_never_wins(stream: Stream) -> None:
    """Being better by less than a percent is not worth a change."""
    for seed in range(40):
        verdict = run(Trial(0.01, 0.01, 2_000), stream, seed, 2_000, 4)
        assert verdict is None or verdict.outcome != "won"


def advantage(share: float) -> Stream:
    """Errors of the other that are lower by `share`, both made of the same noise and some of their own."""

    def stream(random: np.random.Generator, rows: int) -> tuple[Floats, Floats]:
        noise = random.normal(size=rows)
        ours, theirs = (np.abs(noise + random.normal(0.0, 0.5, size=rows)) for _ in range(2))
        return ours, theirs * (1.0 - share)

    return stream


@pytest.mark.parametrize(("share", "rows", "within"), [(0.3, 1, 250), (0.1, 32, 150), (0.05, 64, 250)])
def test_one_that_is_better_wins_soon(share: float, rows: int, within: int) -> None:
    """In nine of ten cases; more series make it quicker."""
    verdicts = [run(Trial(0.01, 0.01, within), advantage(share), seed, within, rows) for seed in range(50)]
    won = [verdict for verdict in verdicts if verdict is not None and verdict.outcome == "won"]
    assert len(won) >= 45
    assert all(verdict.figures["evidence"] >= 100.0 for verdict in won)
    assert abs(np.mean([verdict.figures["gain"] for verdict in won]) - share) < 0.1


@pytest.mark.parametrize("share", [-0.3, -2.0])
def test_one_that_is_worse_loses_soon_and_the_shadow_is_free_again(share: float) -> None:
    for seed in range(20):
        verdict = run(Trial(0.01, 0.01, 20_000), advantage(share), seed, 400)
        assert verdict is not None and verdict.outcome == "lost"
        assert verdict.figures["gain"] < 0.0


def test_what_cannot_be_told_is_given_up() -> None:
    same = np.array([1.0])
    trial = Trial(0.01, 0.0, 50)
    verdicts = [trial.take(same, same) for _ in range(50)]
    assert verdicts[:-1] == [None] * 49
    assert verdicts[-1] == Verdict("gave_up", {"evidence": 1.0, "gain": 0.0, "rounds": 50, "samples": 50})


def test_what_a_champion_has_earned_does_not_hide_that_it_is_worse_now() -> None:
    """It was better for long, then it is worse; the predecessor is back within a run and what it takes to see it."""
    for seed in range(20):
        guard, random = Guard(0.05, 0.01, 500), np.random.default_rng(seed)
        for _ in range(5_000):
            assert guard.take(*advantage(-0.5)(random, 1)) is None
        taken = 0
        while guard.take(*advantage(0.5)(random, 1)) is None:
            taken += 1
        assert taken < 500 + 200


def test_one_spike_decides_nothing() -> None:
    """However far off, it counts as one round."""
    for seed in range(20):
        random, trial = np.random.default_rng(seed), Trial(0.01, 0.01, 10_000)
        for t in range(300):
            ours, theirs = gaussian(random, 1)
            assert trial.take(ours + (1e9 if t == 150 else 0.0), theirs) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e12, 1e12), max_size=60))
def test_the_evidence_is_the_product_of_the_bets_that_its_page_says(differences: list[float]) -> None:
    """Finite, whatever comes; computed here in the plainest way."""
    evidence, factors, square = Evidence(), [1.0] * len(SHARES), 0.0
    for t, d in enumerate(differences):
        scale = CLIP * square**0.5
        if t >= FIRST and scale > 0.0:
            bounded = max(-1.0, min(1.0, d / scale))
            factors = [factor * (1.0 + share * bounded) for factor, share in zip(factors, SHARES, strict=True)]
        bound = FAR * FAR * square if t >= FIRST and scale > 0.0 else d * d
        square += max(RATE, 1.0 / (t + 1)) * (min(d * d, bound) - square)
        evidence.take(d)
    assert exp(evidence.log) == pytest.approx(sum(factors) / len(factors), rel=1e-9)
    assert prod(factors) > 0.0


def test_a_bet_is_fair_before_every_round() -> None:
    """Of two equally likely rounds, as far up as down, the mean is what one had: so it is a martingale."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        past, d = random.normal(size=40), float(random.normal())
        ups, downs, now = Evidence(), Evidence(), Evidence()
        for one in past:
            for evidence in (ups, downs, now):
                evidence.take(float(one))
        ups.take(d)
        downs.take(-d)
        assert (exp(ups.log) + exp(downs.log)) / 2 == pytest.approx(exp(now.log))
