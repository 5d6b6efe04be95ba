"""The child's end of the talk with the supervisor: JSON lines in on stdin, JSON lines out on stdout.

In come the settings, once, then news; out go `bound`, `ready`, `beat` and `failed`. End of stdin means that the
supervisor is gone, and that the child has to drain and end.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec


class Parent:
    """The supervisor, as a child sees it. One a process: it takes stdin and stdout for itself."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        self._in = stdin
        self._out = os.dup(stdout)
        # Whatever prints in this process from now on reaches the log instead of spoiling the protocol.
        os.dup2(2, stdout)
        # A supervisor that is stuck must not hold up the loop that reports to it.
        os.set_blocking(self._out, False)
        self._rest = b""
        self._lines: list[dict[str, Any]] = []
        self.gone = False

    def fileno(self) -> int:
        """The descriptor to poll: readable when `lines` has something to say."""
        return self._in

    def hello(self) -> dict[str, Any]:
        """The first line, waited for. EOFError when the supervisor is gone before it said anything."""
        os.set_blocking(self._in, True)
        while not self._lines:
            self._read()
            if self.gone:
                raise EOFError("the supervisor ended")
        os.set_blocking(self._in, False)
        return self._lines.pop(0)

    def lines(self) -> list[dict[str, Any]]:
        """The lines that came since; never waits. `gone` is true once the supervisor has closed its end."""
        self._read()
        lines, self._lines = self._lines, []
        return lines

    def report(self, **fields: Any) -> None:
        """One line to the supervisor; dropped when it does not read."""
        try:
            os.write(self._out, msgspec.json.encode(fields) + b"\n")
        except (BlockingIOError, BrokenPipeError):
            pass

    def _read(self) -> None:
        try:
            data = os.read(self._in, 1 << 20)
        except BlockingIOError:
            return
        self.gone = not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += [msgspec.json.decode(line) for line in lines if line]
