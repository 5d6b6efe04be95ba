"""The champion: which version of the shared model serves, and the others that may take its place.

Made at the start out of what the state folder knows and of the model that the settings name. Whoever changes the
champion gets back what is to be written; `Pipeline.serve` then forecasts with it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..models import checkpoint
from ..models.checkpoint import Checkpoint, CheckpointError
from ..models.weights import Weights, check
from .lineage import DEFAULT, Change, Lineage

if TYPE_CHECKING:
    from .control import Order

log = logging.getLogger("forecastd.engine")


class Unfit(ValueError):
    """This model cannot take the champion's place; the message is one line that says why."""


class Done(NamedTuple):
    """What became of an order: the version it is about, what is to be written, and what is to be said."""

    number: int
    changes: list[Change]
    said: str


class Champions:
    """The versions with their files, and the champion of `slot` among them. `root` is the model that the settings name.
    The champions of several slots share lineage and files."""

    def __init__(self, root: Checkpoint, lineage: Lineage, bodies: dict[str, bytes], slot: str = DEFAULT) -> None:
        self.root = bare(root)
        self.lineage = lineage
        self.slot = slot
        self._ahead = root.weights.ahead
        self._bodies = bodies
        self.number, self.model = self._found() or (0, self.root)

    def _found(self) -> tuple[int, Checkpoint] | None:
        """The champion of an earlier run, where the settings still name the model that its line began with."""
        champion = self.lineage.champion(self.slot)
        if champion is None or champion.root != self.root.sha256:
            return None
        try:
            return champion.number, self.version(champion.number)
        except CheckpointError as error:
            log.warning("version %d of the model cannot be read, %s serves: %s", champion.number, self.root.name, error)
            return None

    @property
    def weights(self) -> Weights:
        """What the pipeline forecasts with."""
        if self.model.weights.decoder is not None:
            return self.model.weights
        return replace(self.model.weights, ahead=self._ahead)

    def start(self, now: float, step: int, rewrite: bool = False) -> list[Change]:
        """Make sure that somebody serves; what is to be written: all there is, with `rewrite`."""
        changes: list[Change] = []
        if rewrite:
            changes += [
                Change(version, self._bodies.get(version.sha256, b"")) for version in self.lineage.versions.values()
            ]
            changes += [Change(champion=champion) for champion in self.lineage.champions]
        if not self.number:
            self.number, new = self.enter(self.root, now, "configured")
            sha256 = self.root.sha256
            crown = self.lineage.crown(self.number, sha256, "configured", now=now, step=step, slot=self.slot)
            changes += [*new, crown]
        return changes

    def enter(self, model: Checkpoint, now: float, origin: str) -> tuple[int, list[Change]]:
        """The number of that model, and what is to be written if it is new. Unfit, CheckpointError."""
        self.fitting(model.weights)
        model = bare(model)
        body = checkpoint.encode(model)
        self._bodies.setdefault(model.sha256, body)
        return self.lineage.enter(model.sha256, now, origin, body)

    def crown(self, number: int, reason: str, now: float, step: int, **figures: Any) -> Change:
        """Have version `number` serve; what is to be written. CheckpointError, Unfit."""
        model = self.version(number)
        self.fitting(model.weights)
        self.number, self.model = number, model
        return self.lineage.crown(number, self.root.sha256, reason, now=now, step=step, slot=self.slot, **figures)

    def obey(self, order: Order, body: bytes, now: float, step: int) -> Done:
        """Do what an order says of versions and champions. ValueError, in one line, where it cannot be done."""
        number = order.number
        changes: list[Change] = []
        if order.do == "import":
            number, changes = self.enter(checkpoint.decode(body), now, "imported")
        elif order.do == "rollback":
            before = self.lineage.predecessor(self.slot)
            if before is None:
                raise Unfit("no version has served before this one")
            number = before
        name = self.version(number).name
        if order.do == "import" and not order.promote:
            return Done(number, changes, f"version {number}: {name}, is kept")
        if number == self.number:
            return Done(number, changes, f"version {number}: {name}, serves already")
        changes.append(self.crown(number, "by_hand", now, step))
        return Done(number, changes, f"version {number}: {name}, serves")

    def version(self, number: int) -> Checkpoint:
        """The model of that number. CheckpointError where there is none, or where it is damaged."""
        version = self.lineage.versions.get(number)
        if version is None:
            raise CheckpointError(f"there is no version {number}")
        return checkpoint.decode(self._bodies.get(version.sha256, b""))

    def fitting(self, weights: Weights) -> None:
        """Unfit for weights that cannot take the champion's place between two samples, ValueError for unsound ones."""
        now = self.root.weights
        compared(weights, now)
        for what, theirs, ours in (
            ("units", weights.units, now.units),
            ("steps ahead", _steps(weights), _steps(now)),
        ):
            if theirs != ours:
                raise Unfit(_unlike(what, theirs, ours))
        check(weights)


def compared(weights: Weights, like: Weights) -> None:
    """Unfit where the two cannot forecast from the same windows."""
    for what, theirs, ours in (
        ("input channels", weights.channels, like.channels),
        ("window", weights.window, like.window),
        ("output", weights.output, like.output),
    ):
        if theirs != ours:
            raise Unfit(_unlike(what, theirs, ours))


def _unlike(what: str, theirs: object, ours: object) -> str:
    return f"its {what} are {_text(theirs)}, the running model's {_text(ours)}: start the daemon with --model"


def bare(model: Checkpoint) -> Checkpoint:
    """The model without the other one that knows the way ahead for it: that one belongs to the settings."""
    if model.weights.ahead is None:
        return model if model.manifest.get("sha256") else checkpoint.seal(model)
    return checkpoint.seal(replace(model, weights=replace(model.weights, ahead=None)))


def _steps(weights: Weights) -> int:
    return weights.decoder.steps if weights.decoder else 1


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
