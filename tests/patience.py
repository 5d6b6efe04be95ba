"""Waiting for a state instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T], what: str = "", within_s: float = 20.0) -> T:
    """What `probe` gives once it is true; the test fails when it is not within the time."""
    deadline = time.monotonic() + within_s
    while not (found := probe()):
        assert time.monotonic() < deadline, what or f"{probe} stayed {found!r}"
        time.sleep(0.005)
    return found
