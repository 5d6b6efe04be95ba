"""Recordings through the daemon's own pipeline, as fast as it goes, with all that was published kept beside what came.

`backtest` and the benchmarks read the traces; `grade` scores them. What a trace holds for a sample is what a subscriber
of the running daemon would have had in hand: the forecasts published after it, made before the next one was seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.learner import Learner
from ..models.lessons import Lesson
from ..models.weights import Weights
from ..producers.playback import Recording
from .batch import Batch, Effects, Floats, Forecasts, Parcel
from .pipeline import Pipeline
from .settings import Settings

#: What a pause that is too long to bridge adds to `moment`: more than any horizon.
PAUSE = 1 << 20

#: Rounds after which the learner looks who is due.
TURN = 16

#: Called with the samples done so far.
Progress = Callable[[int], None]

_PRODUCER = "replay"
_FIELDS = ("row", "moment", "time", "value", "step", "mean", "lower", "upper", "experts", "weights", "score", "flag")


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One series as the daemon saw it: n samples taken, H steps ahead, K experts, L levels; arrays by sample, oldest
    first.

    `mean` (n, H), `lower` and `upper` (n, H, L), `forecasts` (n, H, K) and `weights` (n, K; one step ahead) are what
    was published after sample i was taken: `mean[i, h]` is for the moment `moment[i] + h + 1`. NaN while warming, and
    where an expert had nothing to say. `moment` (n,) counts steps, missed ones too. `score` and `flag` (n,) speak of
    sample i itself. `time` is in seconds since the epoch, NaN where the recording has none.

    `read` is the number of samples in the recording, those that were `refused` (by reason) among them; `skipped` the
    cells without a number. `gaps` counts missed steps that were seen as such, `season` is in samples (0: none), `step`
    in seconds (NaN: unknown).
    """

    name: str
    read: int
    skipped: int
    refused: dict[str, int]
    gaps: int
    season: int
    step: float
    levels: tuple[float, ...]
    experts: tuple[str, ...]
    moment: NDArray[np.int64]
    time: Floats
    value: Floats
    mean: Floats
    lower: Floats
    upper: Floats
    forecasts: Floats
    weights: Floats
    score: Floats
    flag: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.value)


def replay(
    recordings: Sequence[Recording],
    settings: Settings,
    weights: Weights | None,
    progress: Progress | None = None,
    learner: Learner | None = None,
) -> list[Trace]:
    """Run all recordings together through one pipeline: each batch holds the i-th sample of every one that is so long.

    Their names must differ. The pipeline's clock is the newest time in the batch. What it refuses, duplicates and late
    samples for instance, is refused here as live. With a `learner` the RNN is tuned on the way, and a tuned copy serves
    from the next batch on. Returns the traces in the order of the recordings.
    """
    # Longest first: those that are left then are the first rows of the table, which is cheaper to step than scattered
    # ones.
    order = sorted(range(len(recordings)), key=lambda k: -len(recordings[k]))
    sources = [recordings[k] for k in order]
    pipeline = Pipeline(settings, weights)
    pipeline.learning = learner is not None
    refused: list[Counter[str]] = [Counter() for _ in sources]
    kept: dict[str, list[NDArray[Any]]] = {name: [] for name in _FIELDS}
    sent = 0
    for batch, now in batches(sources):
        effects = pipeline.step(batch, now)
        _count(effects, sent, refused)
        for forecasts in effects:
            _keep(kept, forecasts, pipeline)
        sent += len(batch)
        if learner is not None:
            pipeline.finish()
            learn(pipeline, learner, effects.lessons)
        if progress is not None:
            progress(sent)
    traces = _traces(pipeline, sources, refused, kept)
    placed = dict(zip(order, traces, strict=True))
    return [placed[k] for k in range(len(recordings))]


def learner(settings: Settings, weights: Weights | None) -> Learner | None:
    """The learner of these settings; None where nothing is to be learnt, or the model cannot."""
    if not settings.finetune or weights is None or "rnn" not in settings.experts or not Learner.teaches(weights):
        return None
    bounds = settings.learning
    return Learner(weights, bounds.every_samples, bounds.copies, bounds.series)


def learn(pipeline: Pipeline, learner: Learner, lessons: Sequence[Lesson]) -> None:
    """What the daemon's trainer does beside it, at once: a round's lessons, and every few rounds whoever is due."""
    for lesson in lessons:
        learner.take(lesson)
    if learner.lessons.taken % TURN:
        return
    if due := learner.due():
        learner.hear(pipeline.gains())
        for tune in learner.tune(due):
            if tune.weights is not None:
                pipeline.adopt(tune.row, tune.weights)
        for row in learner.retired():
            pipeline.drop(row)


def epoch_shift(recording: Recording) -> float:
    """Seconds to add so that no time lies before 1970: live those are mistakes, a recording may mean them."""
    return -min(0.0, float(np.nanmin(recording.time))) if _timed(recording) else 0.0


def _timed(recording: Recording) -> bool:
    return not np.isnan(recording.time).all()


def batches(sources: Sequence[Recording]) -> Iterator[tuple[Batch, float]]:
    """One round of samples after the other, and the time it is then. `sources` are in order of their lengths, longest
    first.
    """
    names = [source.name for source in sources]
    times = [(source.time + epoch_shift(source)).tolist() for source in sources]
    values = [source.value.tolist() for source in sources]
    live, sent, now = len(sources), 0, 0.0
    for i in range(max(map(len, sources), default=0)):
        while len(values[live - 1]) <= i:
            live -= 1
        time = np.array([column[i] for column in times[:live]])
        value = np.array([column[i] for column in values[:live]])
        known = time[~np.isnan(time)]
        now = float(known.max()) if len(known) else now + 1.0
        parcel = Parcel(0, live, peer=b"replay", producer=_PRODUCER, seq=sent + 1)
        yield Batch(names[:live], value, time, [parcel]), now
        sent += live


def _count(effects: Effects, sent: int, refused: list[Counter[str]]) -> None:
    """Book the refusals: the samples are numbered, so that the replies say which."""
    for reply in effects.replies:
        if reply.refused:
            refused[reply.seq - sent - 1][reply.refused] += 1


def _keep(kept: dict[str, list[NDArray[Any]]], forecasts: Forecasts, pipeline: Pipeline) -> None:
    table, row = pipeline.forecaster.table, forecasts.row
    # a bridged step is one more taken in; after a longer pause the windows start anew
    moment = table["count"][row] + PAUSE * ((table["fresh"][row] == 1) & (forecasts.count > 1))
    for name in _FIELDS:
        if name == "moment":
            kept[name].append(moment)
        elif name == "weights":
            # one step ahead is all that is shown of them; a copy lets the other steps go
            kept[name].append(forecasts.weights[:, 0].copy())
        else:
            kept[name].append(getattr(forecasts, name))


def _traces(
    pipeline: Pipeline, sources: Sequence[Recording], refused: list[Counter[str]], kept: dict[str, list[NDArray[Any]]]
) -> list[Trace]:
    """The rounds cut into series."""
    empty = _nothing(pipeline)
    columns = {name: np.concatenate([empty[name], *kept.pop(name)]) for name in _FIELDS}
    by_series = np.argsort(columns["row"], kind="stable")
    columns = {name: array[by_series] for name, array in columns.items()}
    ends = np.searchsorted(columns["row"], np.arange(len(pipeline.names) + 1))
    return [_trace(pipeline, source, dict(refused[k]), columns, ends) for k, source in enumerate(sources)]


def _trace(
    pipeline: Pipeline,
    source: Recording,
    refused: dict[str, int],
    columns: dict[str, NDArray[Any]],
    ends: NDArray[np.intp],
) -> Trace:
    row = pipeline.rows.get(source.name, -1)
    part = slice(ends[row], ends[row + 1]) if row >= 0 else slice(0, 0)
    table = pipeline.forecaster.table
    step = columns["step"][part]
    return Trace(
        name=source.name,
        read=len(source),
        skipped=source.skipped,
        refused=refused,
        gaps=int(pipeline.series["gaps"][row]) if row >= 0 else 0,
        season=int(table["season"][row]) if row >= 0 and "season" in table.columns else 0,
        step=float(step[-1]) if len(step) else float("nan"),
        levels=pipeline.levels,
        experts=pipeline.experts,
        moment=_moments(columns["moment"][part]),
        # where the producer gives no time, the pipeline puts its own
        time=columns["time"][part] - epoch_shift(source) + (0.0 if _timed(source) else float("nan")),
        value=columns["value"][part],
        mean=columns["mean"][part],
        lower=columns["lower"][part],
        upper=columns["upper"][part],
        forecasts=columns["experts"][part],
        weights=columns["weights"][part],
        score=columns["score"][part],
        flag=columns["flag"][part],
    )


def _moments(counted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of steps, shape (n,), the first being 0; each pause moves all that come after it."""
    paused = counted >= PAUSE
    moment: NDArray[np.int64] = counted - PAUSE * paused + PAUSE * np.cumsum(paused)
    return moment - moment[:1]


def _nothing(pipeline: Pipeline) -> dict[str, NDArray[Any]]:
    """No sample at all, in the right shapes."""
    h, k, levels = pipeline.settings.horizon, len(pipeline.experts), len(pipeline.levels)
    shapes = {"mean": (h,), "lower": (h, levels), "upper": (h, levels), "experts": (h, k), "weights": (k,)}
    kinds = {"row": np.dtype(np.intp), "moment": np.dtype(np.int64), "flag": np.dtype(np.bool_)}
    return {name: np.empty((0, *shapes.get(name, ())), kinds.get(name, np.dtype(np.float64))) for name in _FIELDS}
