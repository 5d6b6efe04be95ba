"""What of the settings may change while the daemon runs, and the list of clients, which may."""

from __future__ import annotations

import msgspec

from ..producers.key import BadKey
from . import clients
from .clients import Entry
from .errors import Misuse
from .settings import Limits, Settings

#: Settings that a reload takes over; the others wait for the next start, since sockets or state depend on them.
LIVE = ("clients", "limits.batch_samples", "limits.frame_bytes", "limits.frames")


def admitted(settings: Settings) -> list[Entry]:
    """The clients these settings let in, read from their file; Misuse when that is not in order."""
    try:
        return clients.read(settings.clients) if settings.clients else []
    except BadKey as error:
        raise Misuse(str(error)) from None


def merged(old: Settings, new: Settings) -> tuple[Settings, list[str]]:
    """The old settings with what is live of the new ones, and the names of what differs besides."""
    limits = {name: getattr(new.limits, name) for name in Limits.__struct_fields__ if f"limits.{name}" in LIVE}
    plain = {name: getattr(new, name) for name in Settings.__struct_fields__ if name in LIVE}
    mixed = msgspec.structs.replace(old, **plain, limits=msgspec.structs.replace(old.limits, **limits))
    later = [name for name in Settings.__struct_fields__ if name != "limits" and differ(mixed, new, name)]
    later += [f"limits.{name}" for name in Limits.__struct_fields__ if differ(mixed.limits, new.limits, name)]
    return mixed, later


def differ(one: msgspec.Struct, other: msgspec.Struct, name: str) -> bool:
    return bool(getattr(one, name) != getattr(other, name))
