"""The threads that take a journal to the disk: one its commits, one its snapshots, so that neither waits for the
other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .disk import Failed
from .journal import RETRY_S, Journal


class Writer:
    """Runs from its making until the journal is closed and has nothing left, or the disk failed."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        work = {"commits": (journal.gather, journal.commit), "snapshots": (journal.wait, journal.write)}
        self._threads = [
            threading.Thread(target=self._run, args=pair, name=name, daemon=True) for name, pair in work.items()
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, wait: Callable[[float], bool], work: Callable[[], bool]) -> None:
        while wait(RETRY_S):
            try:
                work()
            except Exception as error:
                # Whatever it is, steps are not reaching the disk, and nobody may be told that they do.
                self._journal.fail(Failed(f"{type(error).__name__}: {error}"))
                raise

    def join(self, timeout_s: float) -> bool:
        """Wait for the threads after the journal was closed; whether they have ended."""
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)
