"""Recipes: from nothing but a name and a seed to a model with its scores.

`tutorial` is the textbook's, `sine` takes the same wave to its floor, `general` learns from the random series of
`prior` what any signal tends to do, `path` from the same the whole way ahead. The data is made here and in `ahead`,
the learning done in `rnn`, the scoring in `evaluation` and `ahead`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ahead, prior
from .checkpoint import Checkpoint, seal
from .evaluation import forecasts, inputs, score, summary
from .weights import VALUE, Weights

if TYPE_CHECKING:
    from .rnn import Paths, Windows

Array = NDArray[np.float64]
#: Called with what has been done, of how much, and the loss.
Progress = Callable[[int, int, float], None]

WAVE_POINTS = 150
WAVE_STEP = 15 / (WAVE_POINTS - 1)
WAVE_NOISE = 0.15
#: RMSE on the tutorial's wave of one who knows everything but the noise: none can do better.
WAVE_FLOOR = WAVE_NOISE / 3**0.5
#: … and of the best there can be that sees ten samples and remembers nothing else.
WAVE_FLOOR_TEN = 0.0898

HELD_OUT_SEED = 1_000_003  # far from the seeds that people choose for training
HELD_OUT_POINTS = 20_000
HELD_OUT_SERIES, HELD_OUT_LENGTH = 100, 1_200
#: The last share of a recording is kept from the training, to judge it by.
HELD_OUT_FROM = 0.8
RECORDING_MIN = 100
#: In s. A jump after a still start can be thousands; the loss pulls no harder for it but would be drowned on show.
GOAL_MAX = 100.0


class TrainingError(RuntimeError):
    """The training gave no model; the message is one line for the user."""


@dataclass(frozen=True)
class Recipe:
    """What to learn and how: `series` series of `length` samples in `steps` steps of `batch` windows, Huber loss from
    `huber` on.

    `source`: `wave`, the tutorial's; `prior`, random series; `recordings`, the user's own.
    """

    name: str
    purpose: str
    source: str
    series: int
    length: int
    steps: int
    batch: int
    rate: float
    huber: float = float("inf")


TUTORIAL = Recipe("tutorial", "the textbook's, for comparison", "wave", 1, WAVE_POINTS, 10, 10, 1e-3)  # steps: epochs
SINE = Recipe("sine", "the same wave, taken to its floor", "wave", 400, 2_000, 20_000, 256, 2e-3)
GENERAL = Recipe("general", "any signal; the daemon's default", "prior", 4_000, 1_500, 20_000, 256, 2e-3, 1.0)
PATH = Recipe("path", "any signal, many steps ahead", "prior", 2_000, 1_500, 8_000, 256, 2e-3, 1.0)
RECIPES = {recipe.name: recipe for recipe in (TUTORIAL, SINE, GENERAL, PATH)}
#: Of the recipe `path`: units of encoder and decoder, and steps ahead.
PATH_UNITS = 64
PATH_STEPS = 24


class Panel(NamedTuple):
    """A stretch of a series to look at: `truth` and `forecast`, shape (T,), a forecast under the sample it is for."""

    title: str
    truth: Array
    forecast: Array


@dataclass
class Outcome:
    """What a training gave: the sealed checkpoint, the loss as it fell, and series to look at."""

    checkpoint: Checkpoint
    losses: list[float] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)


def wave(points: int, random: np.random.Generator | np.random.RandomState, phase: float = 0.0) -> Array:
    """The tutorial's wave, shape (points,): sin(x) + 1 + U(±0.15), x going from `phase` in steps of 15/149."""
    clean = np.sin(phase + np.arange(points) * WAVE_STEP) + 1
    return np.asarray(clean + random.uniform(-WAVE_NOISE, WAVE_NOISE, points), np.float64)


def train(recipe: Recipe, seed: int = 0, name: str = "", progress: Progress | None = None) -> Outcome:
    """Make the model of a recipe; the same recipe and seed give the same bytes on the same machine and versions.

    TrainingError where the result is no model: dead, diverged, or no better than repeating the last value.
    """
    from . import rnn

    random = np.random.default_rng(seed)
    if recipe.name == TUTORIAL.name:
        values = wave(recipe.length, np.random.RandomState(seed))[:, None]
        start = rnn.initial(_sown(recipe, seed), channels=VALUE, output="value", activation="relu")
    elif recipe.source == "wave":
        # Each at its own place in the period: the start-up of the causal statistics is learned in every phase.
        phases = random.uniform(0, 2 * np.pi, recipe.series)
        values = np.stack([wave(recipe.length, random, phase) for phase in phases], 1)
        start = rnn.initial(seed)
    else:
        values = prior.draw(recipe.length, recipe.series, seed)
        start = rnn.initial(seed)
    data: Windows | Paths
    if recipe.name == PATH.name:
        start = rnn.with_decoder(rnn.initial(seed, PATH_UNITS), PATH_STEPS, seed)
        data = rnn.Paths(*ahead.examples(values, PATH_STEPS, start.window)[:5])
    else:
        data = _windows(start, [values[:, k] for k in range(values.shape[1])])
    learned, losses = _learn(recipe, start, data, seed, progress)
    held_out, scores = _judge(recipe, learned, seed)
    if learned.decoder is not None:
        scores |= _rounded(ahead.scores(learned, held_out))
        if not scores["median_skill_12"] > 0:
            raise TrainingError(
                "the training failed: twelve steps ahead the model is no better than repeating the last value; try "
                "more steps"
            )
    manifest = {
        **_origin(recipe, seed, name),
        "data": {"source": recipe.source, "series": recipe.series, "length": recipe.length, "range": _range([values])},
        "scores": scores,
    }
    shown = [values[:, 0]] if recipe.name == TUTORIAL.name else held_out
    return Outcome(seal(Checkpoint(learned, manifest)), losses, _panels(learned, shown))


def refine(
    parent: Checkpoint,
    recordings: Sequence[Array],
    seed: int = 0,
    name: str = "",
    steps: int = 2_000,
    progress: Progress | None = None,
) -> Outcome:
    """`parent` tuned to recordings, arrays of shape (T,), T ≥ `RECORDING_MIN`; the last fifth of each is kept to judge
    it by.

    TrainingError where it did not become better than its parent there.
    """
    recipe = Recipe("refined", "", "recordings", len(recordings), max(map(len, recordings)), steps, 256, 5e-4, 1.5)
    early = [values[: int(HELD_OUT_FROM * len(values))] for values in recordings]
    # what comes out of another encoder would mean nothing to the decoder
    start = replace(parent.weights, decoder=None)
    learned, losses = _learn(recipe, start, _windows(start, early), seed, progress)
    before = summary(score(parent.weights, recordings, HELD_OUT_FROM))
    after = summary(score(learned, recordings, HELD_OUT_FROM))
    if not after["relative_mae"] < before["relative_mae"]:
        raise TrainingError(
            f"the recordings gave no better model: on their last fifth its MAE is {after['relative_mae']:.3f} × naive, "
            f"{parent.name}'s {before['relative_mae']:.3f}; use more data, or {parent.name} as it is"
        )
    manifest = {
        **_origin(recipe, seed, name),
        "parent": {"name": parent.name, "sha256": parent.sha256},
        "version": int(parent.manifest.get("version", 0)) + 1,
        "data": {
            "source": "recordings",
            "series": len(recordings),
            "range": _range(recordings),
            "sha256": _digest(recordings),
        },
        "scores": {**_rounded(after), "parent_relative_mae": round(before["relative_mae"], 6)},
    }
    return Outcome(seal(Checkpoint(learned, manifest)), losses, _panels(learned, recordings))


def _learn(
    recipe: Recipe, start: Weights, data: Windows | Paths, seed: int, progress: Progress | None
) -> tuple[Weights, list[float]]:
    """The trained weights and the losses on the way."""
    from . import rnn

    losses: list[float] = []

    def report(done: int, loss: float) -> None:
        losses.append(loss)
        if not np.isfinite(loss):
            raise TrainingError(f"the training diverged: loss {loss} after {done} steps; try another --seed")
        if progress is not None:
            progress(done, recipe.steps, loss)

    if recipe.name == TUTORIAL.name:
        assert isinstance(data, rnn.Windows)
        learned = rnn.fit_epochs(start, data, recipe.steps, recipe.batch, _sown(recipe, seed), report)
    else:
        schedule = rnn.Schedule(recipe.steps, recipe.batch, recipe.rate, recipe.huber)
        if isinstance(data, rnn.Paths):
            learned = rnn.fit_path(start, data, schedule, seed, report)
        else:
            learned = rnn.fit(start, data, schedule, seed, report)
    if not all(np.isfinite(array).all() for array in learned.arrays.values()):
        raise TrainingError("the training diverged: weights that are not finite; try another --seed")
    return learned, losses


def _sown(recipe: Recipe, seed: int) -> int:
    """The seed of the network. The textbook seeds its data alone; with 0 here too its last relu would be born dead."""
    return seed + 1 if recipe.name == TUTORIAL.name else seed


def _windows(weights: Weights, recordings: Sequence[Array]) -> Windows:
    """Every full window of the recordings that has a sample after it, and that sample in the unit of the output."""
    from .rnn import Windows

    length = max(map(len, recordings))
    table = np.stack([np.pad(values, (0, length - len(values)), mode="edge") for values in recordings], 1)
    seen, s = inputs(weights, table)
    first = weights.window - 1
    ends = [column * length + np.arange(first, len(values) - 1) for column, values in enumerate(recordings)]
    goal = table[1:] if weights.output == "value" else np.clip((table[1:] - table[:-1]) / s[:-1], -GOAL_MAX, GOAL_MAX)
    target = [goal[first : len(values) - 1, column] for column, values in enumerate(recordings)]
    rows = np.ascontiguousarray(seen.swapaxes(0, 1)).reshape(-1, seen.shape[2])
    return Windows(rows, np.concatenate(ends), np.concatenate(target).astype(np.float32))


def _judge(recipe: Recipe, weights: Weights, seed: int) -> tuple[list[Array], dict[str, float]]:
    """Fresh series and the model's scores on them; TrainingError where they are those of no model."""
    fresh = seed + HELD_OUT_SEED
    if recipe.source == "wave":
        held_out = [wave(HELD_OUT_POINTS, np.random.default_rng(fresh))]
        (result,) = score(weights, held_out, 0.0)
        scores = {
            "rmse": result.rmse,
            "naive_rmse": result.naive_rmse,
            "floor_rmse": WAVE_FLOOR,
            "ten_sample_rmse": WAVE_FLOOR_TEN,
            "skill": result.skill,
        }
        worse = result.rmse >= result.naive_rmse
    else:
        held_out = list(prior.draw(HELD_OUT_LENGTH, HELD_OUT_SERIES, fresh).T)
        scores = summary(score(weights, held_out))
        worse = scores["median_skill"] <= 0 or scores["relative_mae"] >= 1
    made = forecasts(weights, held_out[0][:, None])[weights.window :, 0]
    f = made if weights.output == "value" else made - held_out[0][weights.window - 1 : -1]
    if np.mean(f == np.median(f)) > 0.9:
        raise TrainingError("the training died: it answers the same to everything (a dead relu); try another --seed")
    if worse or not np.isfinite(f).all():
        raise TrainingError(
            "the training failed: on fresh data the model is worse than repeating the last value; try more steps"
        )
    return held_out, _rounded(scores)


def _origin(recipe: Recipe, seed: int, name: str) -> dict[str, Any]:
    """What makes the model again."""
    from . import rnn

    name = name or recipe.name
    command = f"forecastd train --recipe {recipe.name} --seed {seed}"
    if recipe.name not in RECIPES:
        command = f"forecastd train --data … --seed {seed} --steps {recipe.steps}"
    elif recipe.steps != RECIPES[recipe.name].steps:
        command += f" --steps {recipe.steps}"
    return {
        "name": name,
        "version": 1,
        "parent": None,
        "recipe": recipe.name,
        "command": f"{command} --out {name}.npz",
        "seed": seed,
        "steps": recipe.steps,
        "made_with": {"numpy": np.__version__, **rnn.versions()},
    }


def _panels(weights: Weights, recordings: Sequence[Array], points: int = WAVE_POINTS, panels: int = 4) -> list[Panel]:
    """The last `points` samples of the first few recordings, with what the model said of them."""
    shown = []
    for number, values in enumerate(recordings[:panels]):
        made = forecasts(weights, values[:, None])[:, 0]
        (result,) = score(weights, [values])
        shown.append(Panel(f"series {number + 1}: skill {result.skill:.2f}", values[-points:], made[-points:]))
    return shown


def _range(recordings: Sequence[Array]) -> list[float]:
    return [round(float(min(map(np.min, recordings))), 6), round(float(max(map(np.max, recordings))), 6)]


def _digest(recordings: Sequence[Array]) -> str:
    sha = hashlib.sha256()
    for values in recordings:
        sha.update(np.ascontiguousarray(values, "<f8").tobytes())
    return sha.hexdigest()


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in scores.items()}
