"""What a fuzzer calls: whatever the bytes are, nothing is raised but what is meant to be, and what comes out fits
together.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forecastd.daemon import clients
from forecastd.daemon.batch import REASONS
from forecastd.daemon.clients import Client, Entry
from forecastd.daemon.errors import Misuse
from forecastd.daemon.options import parsed
from forecastd.daemon.settings import Limits
from forecastd.daemon.wire import Inbox, Origin
from forecastd.producers.key import BadKey

LIMITS = Limits(frame_bytes=1 << 16)
KEYED = Origin(b"peer", True, "plc", Client(Entry(producer="plc", key="k" * 40, series=("a*", "[bc]"))))
ORIGINS = (Origin(), Origin(b"peer", True, "7f"), KEYED)
#: Between the frames of a message, in the fuzzer's bytes.
CUT = b"\n\n"


def wire(data: bytes) -> None:
    """The first byte chooses who sends; the rest is the frames of a message."""
    inbox = Inbox(LIMITS)
    origin = ORIGINS[data[0] % len(ORIGINS)] if data else ORIGINS[0]
    inbox.add(data[1:].split(CUT), origin)
    for reply in inbox.told:
        assert reply.refused == "unauthorised" and reply.peer == origin.peer
    batch = inbox.take()
    n = len(batch.series)
    assert batch.value.shape == batch.time.shape == (n,)
    assert batch.value.dtype == batch.time.dtype == np.float64
    assert all(type(name) is str for name in batch.series)
    assert set(batch.refused) <= set(REASONS)
    place = 0
    for parcel in batch.parcels:
        assert parcel.start == place <= parcel.stop and parcel.size >= 0 and parcel.seq >= 0
        place = parcel.stop
        if origin is KEYED:
            assert parcel.producer == "plc", "a key is good for its own name alone"
    assert place == n
    if origin is KEYED:
        assert all(name.startswith("a") or name in ("b", "c") for name in batch.series)


def configuration(data: bytes) -> None:
    """A configuration file, and a list of clients: either they are in order, or one line says what is not."""
    try:
        parsed(data, "file")
    except Misuse as misuse:
        assert misuse.message.startswith("file: ") and "\n" not in misuse.message, misuse.message
    text = data.decode(errors="replace")
    try:
        list(clients.parse(text, Path("file")))
    except BadKey as bad:
        assert str(bad).startswith("file: ") and "\n" not in str(bad), str(bad)


TARGETS = {"wire": wire, "configuration": configuration}
