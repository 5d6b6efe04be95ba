"""How soon a worse champion is taken back, and how rarely one that is not: on the waves and the real series, with
predecessors and champions of known difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from forecastd.daemon.pipeline import Pipeline
from forecastd.daemon.replay import batches
from forecastd.daemon.settings import Settings
from forecastd.daemon.succession import GUARD
from forecastd.models.kernel import Kernel
from forecastd.models.shadow import Settled, Shadow
from forecastd.models.trial import Guard
from forecastd.models.weights import Weights
from forecastd.producers.playback import Recording
from forecastd.producers.waves import WAVES

from .corpus import Floats, Size, real_recordings, recording, weights
from .section import Check, Section, figure

#: A champion is promoted after so many samples of each series, and so many come after it.
PROMOTED, AFTER = 300, 2_000
#: How much larger the errors of a worse champion are.
WORSE = (0.1, 0.25, 0.5, 1.0)


def way_back(size: Size) -> Section:
    """A worse model promoted by hand."""
    waves = [
        recording(f"{kind}.{seed}", wave(seed=seed).take(size.samples)[1])
        for kind, wave in WAVES.items()
        for seed in range(min(size.seeds, 2))
    ]
    seen = [one for one in map(settled, [*waves, *real_recordings(size)]) if len(one.moved) >= 2 * PROMOTED]
    rows, slow = [], []
    for share in WORSE:
        late = [rolled_back(one, spoilt(one, share)) for one in seen]
        slow.append(float(np.quantile(late, 0.95, method="lower")))
        ends = [figure(float(np.quantile(late, q, method="lower")), ",.0f") for q in (0.5, 0.75, 0.95)]
        rows.append([f"{share:.0%} worse", *ends, f"{sum(np.isinf(late)):.0f} of {len(late)}"])
    equal = [rolled_back(one, spoilt(one, 0.0, seed)) for seed in range(min(size.seeds, 2)) for one in seen]
    return Section(
        "A worse model promoted by hand",
        f"Each of {len(seen)} series alone, the waves and the real ones: `general` serves, then a copy of it with "
        f"noise on its readout, so much that its mean error is larger by the share named. Samples until `general` "
        f"serves again, of {AFTER:,} at most. Below, champions that are as good as `general` and are to stay.",
        [
            (["champion", "half within", "three in four", "19 in 20", "not taken back"], rows),
            (["as good", "taken back"], [[f"{len(equal)} champions", f"{np.isfinite(equal).sum()}"]]),
        ],
        [
            Check("samples until a champion 10 % worse is taken back, 19 in 20 series", slow[0], 500, 200, form=".0f"),
            Check("samples until a champion 25 % worse is taken back, 19 in 20 series", slow[1], 500, 200, form=".0f"),
            Check("champions taken back though as good, share", float(np.isfinite(equal).mean()), GUARD[0]),
        ],
    )


def settled(one: Recording) -> Settled:
    """What a shadow compares of this recording, the first `PROMOTED` samples left out."""
    pipeline = Pipeline(Settings(experts=("naive", "rnn"), levels=(), finetune=False), weights())
    pipeline.learning = True
    shadow = Shadow(weights())
    for batch, now in batches([one]):
        effects = pipeline.step(batch, now)
        pipeline.finish()  # a lone sample is a lesson only then
        for lesson in effects.lessons:
            shadow.take(lesson)
        if shadow.waiting > PROMOTED + AFTER:
            break
    found = shadow.settled()[PROMOTED:] or [Settled(*(np.empty(0) for _ in Settled._fields))]
    return Settled(*(np.concatenate(column) for column in zip(*found, strict=True)))


def rolled_back(seen: Settled, champion: Weights) -> float:
    """Samples until the guard takes `champion` back; infinity where it does not."""
    guard = Guard(*GUARD)
    for count, (ours, theirs) in enumerate(zip(*(errors(seen, model) for model in (champion, weights())), strict=True)):
        if guard.take(ours[None], theirs[None]) is not None:
            return count + 1.0
    return np.inf


def spoilt(seen: Settled, share: float, seed: int = 0) -> Weights:
    """`general` with so much noise on its readout that its mean error on these samples is larger by `share`; with 0,
    the best of a few that have little of it."""
    random, good = np.random.default_rng(seed), weights()
    before = errors(seen, good).mean()

    def noisy(scale: float, noise: Floats) -> tuple[float, Weights]:
        model = replace(good, readout=(good.readout + scale * noise).astype(np.float32))
        return float(errors(seen, model).mean() / before - 1.0), model

    noise = random.normal(size=(8, good.units))
    if not share:
        return min((noisy(0.003, one) for one in noise), key=lambda made: abs(made[0]))[1]
    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if noisy(middle, noise[0])[0] < share else (low, middle)
    return noisy(high, noise[0])[1]


def errors(seen: Settled, model: Weights) -> Floats:
    """The absolute errors in units of the series, shape (n,)."""
    found: Floats = np.abs(Kernel(model).forward(seen.windows).astype(np.float64) - seen.moved)
    return found
