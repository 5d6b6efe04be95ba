"""Every model there is a name for: those of the package, those of a state folder, and files. Only read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models import archive, checkpoint
from ..models.checkpoint import Checkpoint, CheckpointError
from .lineage import Champion, Lineage
from .record import Damaged
from .store import Store

#: Of a checksum, what is enough to name a model by, and what is shown of it.
SHORT_MIN, SHORT = 6, 12
_HEX = re.compile(r"[0-9a-f]{6,64}")


class Unknown(ValueError):
    """No model has this name; the message is one line that says which there are."""


@dataclass(frozen=True)
class Entry:
    """A model and what is known of it. `version`, `origin` and `time` (seconds since the epoch) are those of the state
    folder, None for a model that is not in it; `status` is `champion`, `predecessor`, `shipped`, or empty. `groups` are
    the matches of the `[[model]]` that it serves besides, or alone.
    """

    model: Checkpoint
    status: str = ""
    version: int | None = None
    origin: str | None = None
    time: float | None = None
    groups: tuple[str, ...] = ()

    @property
    def parent(self) -> str:
        """The SHA-256 of the model it was made from, empty for none."""
        parent = self.model.manifest.get("parent")
        return str(parent.get("sha256", "") if isinstance(parent, dict) else parent or "")

    def told(self) -> dict[str, Any]:
        """The entry as JSON, the manifest left out."""
        manifest = self.model.manifest
        return {
            "version": self.version,
            "name": self.model.name,
            "sha256": self.model.sha256,
            "status": self.status,
            "groups": list(self.groups),
            "recipe": manifest.get("recipe"),
            "parent": self.parent or None,
            "units": self.model.weights.units,
            "window": self.model.weights.window,
            "origin": self.origin,
            "time": self.time,
        }


class Catalogue:
    """The models of a state folder, None for none, and those of the package. Damaged where the folder cannot be read;
    a single model that cannot be is left out and told of in `reports`."""

    def __init__(self, store: Store | None) -> None:
        self.reports: list[str] = []
        self.lineage = store.lineage() if store else Lineage()
        bodies: Mapping[str, bytes] = store.models() if store else {}
        self.stored = list(self._stored(bodies))
        held = {entry.model.sha256 for entry in self.stored}
        shipped = map(checkpoint.load, checkpoint.shipped())
        self.shipped = [Entry(model, "shipped") for model in shipped if model.sha256 not in held]

    def _stored(self, bodies: Mapping[str, bytes]) -> Iterator[Entry]:
        lineage = self.lineage
        serving = {slot: champion.number for slot in lineage.slots if (champion := lineage.champion(slot))}
        before = {lineage.predecessor(slot) for slot in lineage.slots}
        for version in lineage.versions.values():
            groups = tuple(slot for slot, number in serving.items() if slot and number == version.number)
            status = "predecessor" if version.number in before else ""
            if version.number in serving.values():
                status = "champion"
            try:
                if version.sha256 not in bodies:
                    raise Damaged("its file is missing")
                model = checkpoint.decode(bodies[version.sha256])
                yield Entry(model, status, version.number, version.origin, version.time, groups)
            except (CheckpointError, Damaged) as error:
                self.reports.append(f"version {version.number}: {error}")

    @property
    def entries(self) -> list[Entry]:
        """All of them: by version, then those of the package."""
        return [*self.stored, *self.shipped]

    def find(self, name: str) -> Entry:
        """The model of that version number, name, beginning of a checksum, or file. Unknown; CheckpointError for a file
        that is none."""
        entries = self.entries
        for found in (
            [entry for entry in entries if str(entry.version) == name],
            # of two with the same name the later one is meant
            [entry for entry in reversed(entries) if entry.model.name == name],
            [entry for entry in entries if _HEX.fullmatch(name) and entry.model.sha256.startswith(name)],
        ):
            if found:
                return found[0]
        if name.endswith((checkpoint.SUFFIX, ".keras")):
            return Entry(from_file(name))
        known = [entry.model.name for entry in entries]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise Unknown(f"no model is called {name!r}{hint}; `forecastd models list` shows them all")

    def ancestors(self, entry: Entry) -> list[str]:
        """The checksums of what it was made from, nearest first; the first one that is not here ends the line."""
        known = {one.model.sha256: one for one in self.entries}
        line: list[str] = []
        while entry.parent and entry.parent not in line:
            line.append(entry.parent)
            if entry.parent not in known:
                break
            entry = known[entry.parent]
        return line

    def decisions(self, entry: Entry) -> list[Champion]:
        """When and why it became champion, oldest first."""
        return [champion for champion in self.lineage.champions if champion.number == entry.version]


def from_file(path: str | Path) -> Checkpoint:
    """The model in a `.npz` or `.keras` file; nothing in it is run. CheckpointError, in one line, where it is none."""
    path = Path(path)
    return archive.read(path) if path.suffix == ".keras" else checkpoint.load(path)
