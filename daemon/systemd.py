"""What systemd is told of the daemon's state, where systemd started it: `READY=1`, `WATCHDOG=1`, `STOPPING=1`."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """`NOTIFY_SOCKET`, if there is one. `watchdog_s` is how often it wants to hear of us, None if it does not."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        # A name that starts with @ is of the abstract kind, which has a zero byte there.
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        asked = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        # Half of the time allowed, as sd_watchdog_enabled(3) advises.
        self.watchdog_s = int(asked) / 2e6 if asked.isdigit() and int(asked) and ours else None

    def tell(self, state: str) -> None:
        """One datagram; a systemd that does not listen is no reason to fail."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            try:
                out.sendto(state.encode(), self._address)
            except OSError:
                return
