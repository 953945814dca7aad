"""Bybit's two gates: per user and endpoint in a rolling second, and per address in a rolling window with a ban.

Both are pure state machines told the time in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """Outcome of asking the user gate. ``reset_in_s`` is 0 unless refused."""

    allowed: bool
    limit: int
    remaining: int
    reset_in_s: float


class UserGate:
    """At most ``limit`` answers per (user, endpoint) in any second. A refused request costs nothing."""

    WINDOW_S = 1.0

    def __init__(self) -> None:
        self._served: dict[tuple[int, str], deque[float]] = {}
        #: Limits set by hand, by path; they replace the endpoint's own.
        self.overrides: dict[str, int] = {}
        #: Requests per second another program of the user makes at each endpoint, by user.
        self.taken_by_others: dict[int, int] = {}

    def ask(self, user: int, path: str, default_limit: int, now_s: float) -> Allowance:
        limit = self.overrides.get(path, default_limit)
        served = self._served.setdefault((user, path), deque())
        while served and served[0] <= now_s - self.WINDOW_S:
            served.popleft()
        room = max(0, limit - self.taken_by_others.get(user, 0))
        if len(served) >= room:
            reset_in_s = served[0] + self.WINDOW_S - now_s if served else self.WINDOW_S
            return Allowance(False, limit, 0, reset_in_s)
        served.append(now_s)
        return Allowance(True, limit, room - len(served), 0.0)


class AddressGate:
    """At most ``limit`` requests of one address in any ``window_s``; one more and it is banned for ``ban_s``."""

    def __init__(self, limit: int = 600, window_s: float = 5.0, ban_s: float = 600.0) -> None:
        self.limit = limit
        self.window_s = window_s
        self.ban_s = ban_s
        self.bans = 0
        self.refused_during_bans = 0
        self.most_in_a_window: dict[str, int] = {}
        self._seen: dict[str, deque[float]] = {}
        self._banned_until: dict[str, float] = {}

    def ask(self, address: str, now_s: float) -> bool:
        """Count one request; False when it is refused because the address is, or now gets, banned."""
        if self._banned_until.get(address, now_s + 1) <= now_s:
            self.lift(address)  # served: what led to the ban does not lead to the next
        seen = self._seen.setdefault(address, deque())
        while seen and seen[0] <= now_s - self.window_s:
            seen.popleft()
        seen.append(now_s)
        self.most_in_a_window[address] = max(self.most_in_a_window.get(address, 0), len(seen))
        if self.banned_for_s(address, now_s) > 0:
            self.refused_during_bans += 1
            return False
        if len(seen) > self.limit:
            self.ban(address, self.ban_s, now_s)
            return False
        return True

    def ban(self, address: str, seconds: float, now_s: float) -> None:
        self._banned_until[address] = now_s + seconds
        self.bans += 1

    def lift(self, address: str) -> None:
        """End a ban and forget the requests that led to it."""
        self._banned_until.pop(address, None)
        self._seen.pop(address, None)

    def banned_for_s(self, address: str, now_s: float) -> float:
        return max(0.0, self._banned_until.get(address, now_s) - now_s)

    def banned(self, now_s: float) -> dict[str, float]:
        """Banned addresses and how many seconds they have left."""
        return {a: until - now_s for a, until in self._banned_until.items() if until > now_s}
