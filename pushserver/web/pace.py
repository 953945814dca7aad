"""How often something may happen: buckets that are told the time.

``Bucket`` says yes or no; ``Pace`` says how long its sender must wait.
"""

from __future__ import annotations

#: A flood that goes on for longer is cut off; until then its sender waits.
FLOOD_LIMIT_S = 60.0


class Bucket:
    """``burst`` at once, then ``per_s`` a second; what comes too soon is refused."""

    __slots__ = ("_burst", "_left", "_per_s", "_updated_s")

    def __init__(self, burst: int, per_s: float, now_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._updated_s = now_s

    def take(self, now_s: float) -> bool:
        """Take one, if there is one."""
        self._refill(now_s)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def full(self, now_s: float) -> bool:
        self._refill(now_s)
        return self._left >= self._burst

    def _refill(self, now_s: float) -> None:
        self._left = min(self._burst, self._left + (now_s - self._updated_s) * self._per_s)
        self._updated_s = now_s


class Pace:
    """``burst`` at once, then ``per_s`` a second; what comes too soon waits."""

    __slots__ = ("_burst", "_flooding_since_s", "_left", "_per_s", "_updated_s")

    def __init__(self, burst: int, per_s: float, now_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._updated_s = now_s
        self._flooding_since_s: float | None = None

    def spend(self, now_s: float) -> float:
        """Take one; the seconds its sender must wait for it (0 when there is room)."""
        self._left = min(self._burst, self._left + (now_s - self._updated_s) * self._per_s) - 1
        self._updated_s = now_s
        if self._left >= 0:
            if self._left > self._burst / 2:
                self._flooding_since_s = None
            return 0.0
        if self._flooding_since_s is None:
            self._flooding_since_s = now_s
        return -self._left / self._per_s

    def exhausted(self, now_s: float) -> bool:
        """The flood has gone on for too long."""
        return self._flooding_since_s is not None and now_s - self._flooding_since_s > FLOOD_LIMIT_S
