"""What is in a state folder and whether it is whole: what `forecastd journal` tells. Only read, never changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..models import checkpoint
from ..models.checkpoint import CheckpointError
from ..models.weights import Weights
from . import copied, record, snapshot
from .ledger import Account
from .record import Damaged
from .recovery import recover
from .settings import Settings
from .store import Store


@dataclass
class Inventory:
    """`samples` and `series` are those a daemon would have if it started now; `producers` what it would know of
    them. `models`, `copies` and `snapshots` are the sound ones, `problems` a line for each thing that is not.
    """

    samples: int = 0
    series: int = 0
    producers: dict[str, Account] = field(default_factory=dict)
    models: int = 0
    copies: int = 0
    snapshots: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all is whole."""
        return not self.problems


class Sample(NamedTuple):
    """A sample that was taken. `time` is NaN where its producer gave none, `received` when the daemon took it,
    both in seconds since the epoch; `seq` is 0 where its producer does not number its samples.
    """

    series: str
    time: float
    value: float
    received: float
    producer: str
    epoch: int
    seq: int


def verify(store: Store) -> Inventory:
    """Check every checksum, and recover as a daemon would. Foreign where a newer forecastd wrote what is there."""
    found = Inventory(problems=store.db.check())
    models = _models(store, found.problems)
    found.models = len(models) - 1
    found.copies = _copies(store, found.problems)
    for step in store.snapshots():
        try:
            snapshot.decode(store.load(step))
            found.snapshots += 1
        except Damaged as damage:
            # a running daemon may just have replaced it
            if step in store.snapshots():
                found.problems.append(f"the snapshot of step {step} is damaged: {damage}")
    try:
        names = store.names()
        for commit in store.commits():
            record.decode(commit.body, commit.step, names)
    except Damaged as damage:
        found.problems.append(str(damage))
    _recover(store, models, found)
    return found


def samples(store: Store) -> Iterator[Sample]:
    """The samples the journal still has, in the order they were taken. Damaged at the first commit that is not
    whole.
    """
    names = store.names()
    for commit in store.commits():
        for entry in record.decode(commit.body, commit.step, names):
            batch = entry.batch
            taken = [True] * len(batch) if entry.taken is None else entry.taken.tolist()
            columns = list(zip(batch.series, batch.time.tolist(), batch.value.tolist(), taken, strict=True))
            for parcel in batch.parcels:
                for place, (series, time, value, kept) in enumerate(columns[parcel.start : parcel.stop]):
                    if kept:
                        seq = parcel.seq + place if parcel.seq else 0
                        yield Sample(series, time, value, entry.now, parcel.producer, parcel.epoch, seq)


def _models(store: Store, problems: list[str]) -> dict[str, Weights | None]:
    models: dict[str, Weights | None] = {"": None}
    try:
        files = store.models()
    except Damaged as damage:
        problems.append(str(damage))
        return models
    for sha256, file in files.items():
        try:
            models[sha256] = checkpoint.decode(file).weights
        except CheckpointError as error:
            problems.append(f"the model {sha256[:12]}: {error}")
    return models


def _copies(store: Store, problems: list[str]) -> int:
    """How many series have a sound copy of the model."""
    try:
        sound, damaged = store.copies()
    except Damaged as damage:
        problems.append(str(damage))
        return 0
    for row, body in list(sound.items()):
        try:
            copied.decode(body)
        except Damaged:
            damaged.append(row)
    problems += [f"the copy of row {row} is damaged" for row in damaged]
    return len(set(sound) - set(damaged))


def _recover(store: Store, models: dict[str, Weights | None], found: Inventory) -> None:
    """Count what a daemon would have, with the settings of its last run."""

    def weights_of(sha256: str) -> Weights | None:
        if sha256 not in models:
            raise Damaged(f"the model {sha256[:12]} cannot be read")
        return models[sha256]

    lives = store.lives()
    last = lives[max(lives)] if lives else None
    if last is not None and last.model in models:
        settings, weights = snapshot.settings_of(last.settings), models[last.model]
    else:
        settings, weights = Settings(experts=("naive",)), None
    recovery = recover(store, settings, weights, weights_of)
    known = set(found.problems)
    found.problems += [
        report for report in recovery.reports if report not in known and not report.startswith("the snapshot")
    ]
    found.samples = recovery.pipeline.samples
    found.series = len(recovery.pipeline.names)
    found.producers = recovery.pipeline.admission.ledger.accounts
