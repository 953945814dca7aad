"""The sign of life that a bus listener sends itself through the real path: when it sang, when it was heard."""

from __future__ import annotations

from pushserver.clock import Clock


class Canary:
    """Of one connection at a time. ``channel`` is heard by its own listener alone."""

    def __init__(self, channel: bytes, clock: Clock) -> None:
        self.channel = channel
        self._clock = clock
        self._sung_s: float | None = None
        self._heard_s: float | None = None
        self._silent_since_s = 0.0

    @property
    def age_s(self) -> float | None:
        """Since it was heard last on this connection; None before the first time."""
        return None if self._heard_s is None else self._clock.monotonic_s() - self._heard_s

    @property
    def silent_s(self) -> float:
        """Since it was heard last, or the connection was opened."""
        return self._clock.monotonic_s() - self._silent_since_s

    def begin(self) -> None:
        """Another connection."""
        self._sung_s = self._heard_s = None
        self._silent_since_s = self._clock.monotonic_s()

    def sung(self) -> None:
        """It is being sent; of several that are under way the first counts."""
        if self._sung_s is None:
            self._sung_s = self._clock.monotonic_s()

    def heard(self) -> float | None:
        """It came; how long it took, None if that is not known."""
        self._heard_s = self._silent_since_s = self._clock.monotonic_s()
        sung_s, self._sung_s = self._sung_s, None
        return None if sung_s is None else self._heard_s - sung_s
