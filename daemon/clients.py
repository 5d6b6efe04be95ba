"""Who may connect, and what each may do: public keys, bound to a producer's name and to patterns of series.

    [[client]]
    producer = "plc-7"
    key = "…"                           # the line of `forecastd keys new`
    series = ["boiler", "plant-7.*"]    # what it may send; * ? [abc] as in a shell
    watch = true                        # whether it may read forecasts

The supervisor reads the file; the transport asks who it is that connects, the wire what it may send.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from fnmatch import translate
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from ..producers.key import BadKey, is_key, unforgeable

#: Series of one client whose answer is kept.
KNOWN_MAX = 100_000


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[client]]` table."""

    producer: Annotated[str, Meta(min_length=1, max_length=200)]
    key: str
    series: tuple[str, ...] = ()
    watch: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    client: list[Entry] = []


class Client:
    """One authorised key. `may_send` is asked for each sample, so its answers are kept."""

    def __init__(self, entry: Entry) -> None:
        self.producer = entry.producer
        self.key = entry.key
        self.sends = bool(entry.series)
        self.watches = entry.watch
        self._matches = re.compile("|".join(map(translate, entry.series)) or r"(?!)").match
        self._known: dict[str, bool] = {}

    def may_send(self, series: str) -> bool:
        known = self._known.get(series)
        if known is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            known = self._known[series] = self._matches(series) is not None
        return known


class Clients:
    """The authorised keys. `house` is the daemon's own public key: its other processes watch with it."""

    def __init__(self, entries: Iterable[Entry], house: str = "") -> None:
        self.house = house
        self._by_key = {entry.key: Client(entry) for entry in entries}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: str) -> Client | None:
        """Whose key it is, None for a stranger's."""
        return self._by_key.get(key)

    def may_enter(self, key: str, domain: str) -> bool:
        """Whether the owner of the key may connect to a socket of this domain: `ingest`, `publish` or `board`."""
        if key and key == self.house:
            return domain in ("publish", "board")
        client = self._by_key.get(key)
        if client is None:
            return False
        return client.sends if domain == "ingest" else client.watches and domain == "publish"


def read(path: str) -> list[Entry]:
    """The clients of a file, or of all `*.toml` in a folder. BadKey says in one line what is wrong with it."""
    place = Path(path)
    files = sorted(place.glob("*.toml")) if place.is_dir() else [place]
    entries = [entry for file in files for entry in parse(unforgeable(file), file)]
    seen: dict[str, str] = {}
    for entry in entries:
        if entry.key in seen:
            raise BadKey(f"{path}: {seen[entry.key]!r} and {entry.producer!r} have the same key")
        seen[entry.key] = entry.producer
    return entries


def parse(text: str, file: Path) -> Iterator[Entry]:
    """The clients in a text, which came out of `file`. BadKey as `read`."""
    try:
        entries = msgspec.convert(tomllib.loads(text), _File).client
    except tomllib.TOMLDecodeError as error:
        raise BadKey(f"{file}: this is not TOML: {error}") from None
    except RecursionError:
        raise BadKey(f"{file}: this is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise BadKey(f"{file}: {str(error).replace('`', '').replace('$.', '')}") from None
    for entry in entries:
        if not is_key(entry.key):
            raise BadKey(f"{file}: the key of {entry.producer!r} is no public key of 40 characters")
        if not entry.producer.isprintable():
            raise BadKey(f"{file}: {entry.producer!r} is no name of printable characters")
        if not entry.series and not entry.watch:
            raise BadKey(f'{file}: {entry.producer!r} may do nothing; give it series = ["*"] or watch = true')
        yield entry
