"""How many new streams one address may open: a rolling window, without a ban. Pure; told the time."""

from __future__ import annotations

from collections import deque

MOST_CONNECTS, WINDOW_S = 500, 300.0
#: Of each address; more in one window are not counted.
MOST_REMEMBERED = 10_000


class ConnectGate:
    """At most ``most`` handshakes of one address in any ``window_s``. A refused one counts too."""

    def __init__(self, most: int = MOST_CONNECTS, window_s: float = WINDOW_S) -> None:
        self.most = most
        self.window_s = window_s
        self.most_in_a_window: dict[str, int] = {}
        self._seen: dict[str, deque[float]] = {}

    def ask(self, address: str, now_s: float) -> bool:
        """Count one handshake; whether it is let through."""
        seen = self._recent(address, now_s)
        seen.append(now_s)
        self.most_in_a_window[address] = max(self.most_in_a_window.get(address, 0), len(seen))
        return len(seen) <= self.most

    def connects(self, now_s: float) -> dict[str, int]:
        """Handshakes in the window that ends now, by address."""
        return {address: len(self._recent(address, now_s)) for address in list(self._seen)}

    def _recent(self, address: str, now_s: float) -> deque[float]:
        seen = self._seen.setdefault(address, deque(maxlen=MOST_REMEMBERED))
        while seen and seen[0] <= now_s - self.window_s:
            seen.popleft()
        return seen
