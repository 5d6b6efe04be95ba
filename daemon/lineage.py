"""The versions of the shared model that a state folder knows, and which of them has served since when, and why.

A version is a model under a number that never means another one; a champion is a version in service. Both are only ever
added to. The keeper reads them at the start, every change reaches the disk with the step it was made at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

#: Versions and champions that are told of, the newest.
TOLD_MAX = 50
#: The slot of all series that no `[[model]]` of the configuration names.
DEFAULT = ""


class Version(NamedTuple):
    """A model under its number. `origin`: `configured` (named by the settings), `imported`, or `tuned` here."""

    number: int
    sha256: str
    time: float
    origin: str


class Champion(NamedTuple):
    """From step `step` on, version `number` serves the series of `slot`. `root` is the SHA-256 of the model that the
    settings named then: with another one there the line begins anew.

    `reason`: `configured`, `promoted` (it won its trial), `rolled_back` (its successor lost), or `by_hand`. `figures`
    are what the decision rests on.
    """

    time: float
    step: int
    slot: str
    number: int
    root: str
    reason: str
    figures: Mapping[str, Any]


class Change(NamedTuple):
    """What is to be written: a new version with its file, a new champion, or both."""

    version: Version | None = None
    body: bytes = b""
    champion: Champion | None = None


class Lineage:
    """All versions and champions, oldest first. The engine's loop alone adds to it."""

    def __init__(self, versions: Iterable[Version] = (), champions: Iterable[Champion] = ()) -> None:
        self.versions: dict[int, Version] = {version.number: version for version in versions}
        self.champions: list[Champion] = [champion for champion in champions if champion.number in self.versions]

    @property
    def slots(self) -> list[str]:
        """All slots that ever had a champion, in the order in which they first had one."""
        return list(dict.fromkeys(champion.slot for champion in self.champions))

    def number(self, sha256: str) -> int | None:
        """The number of that model, None for one that was never entered."""
        for version in self.versions.values():
            if version.sha256 == sha256:
                return version.number
        return None

    def champion(self, slot: str = DEFAULT) -> Champion | None:
        """Who serves `slot`, None before the first start."""
        return next((one for one in reversed(self.champions) if one.slot == slot), None)

    def predecessor(self, slot: str = DEFAULT) -> int | None:
        """The version whose place the present one took, in the same line; None where there is none. One that lost and
        was rolled back is nobody's predecessor."""
        present = self.champion(slot)
        line: list[int] = []
        for one in self.champions:
            if present is None or (one.slot, one.root) != (slot, present.root):
                continue
            if one.reason == "rolled_back" and one.number in line:
                while line[-1] != one.number:
                    line.pop()
            elif not line or line[-1] != one.number:
                line.append(one.number)
        return line[-2] if len(line) > 1 else None

    def told(self) -> dict[str, Any]:
        """The newest versions and champions, oldest first, as JSON."""
        return {
            "versions": [version._asdict() for version in list(self.versions.values())[-TOLD_MAX:]],
            "champions": [champion._asdict() for champion in self.champions[-TOLD_MAX:]],
        }

    def enter(self, sha256: str, now: float, origin: str, body: bytes) -> tuple[int, list[Change]]:
        """The number of that model, and what is to be written if it is new."""
        known = self.number(sha256)
        if known is not None:
            return known, []
        version = Version(1 + max(self.versions, default=0), sha256, now, origin)
        self.versions[version.number] = version
        return version.number, [Change(version, body)]

    def crown(
        self, number: int, root: str, reason: str, *, now: float, step: int, slot: str = DEFAULT, **figures: Any
    ) -> Change:
        """Note that version `number` serves from now on; what is to be written."""
        champion = Champion(now, step, slot, number, root, reason, figures)
        self.champions.append(champion)
        return Change(champion=champion)
