"""How much of the processor the trainer may use: a share of the time, and so many seconds a day."""

from __future__ import annotations

DAY_S = 86_400.0


class Quota:
    """Seconds of a monotonic clock, and seconds of processor time."""

    def __init__(self, share: float, day_s: float, now: float) -> None:
        self.share = share
        self.day_s = day_s
        self.used_s = 0.0
        self._day_at = now
        self._free_at = now

    def spend(self, cpu_s: float, wall_s: float, now: float) -> None:
        """Takes in that work that has just ended, and took `wall_s`, used `cpu_s` of the processor."""
        self.used_s += cpu_s
        self._free_at = now + max(0.0, cpu_s / self.share - wall_s)

    def wait_s(self, now: float) -> float:
        """Seconds until more may be used, 0 for at once."""
        if now - self._day_at >= DAY_S:
            self._day_at, self.used_s = now, 0.0
        if self.spent:
            return self._day_at + DAY_S - now
        return max(0.0, self._free_at - now)

    @property
    def spent(self) -> bool:
        """Whether the day's seconds are used up."""
        return self.used_s >= self.day_s
