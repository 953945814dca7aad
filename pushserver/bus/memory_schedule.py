"""The schedule's twin for one process without Redis: tests, and whoever wants to try a worker alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pushserver.bus.schedule import (
    NEW_WATCHER_HEAD_START_S,
    URGENT_HEAD_START_S,
    Claim,
    Look,
    first_due_ms,
    refill_spread_s,
)
from pushserver.clock import Clock


@dataclass(slots=True)
class MemoryHome:
    """As kept by ``MemoryHomes``."""

    holder: str
    ends_ms: int
    live: int = 0


@dataclass(slots=True)
class _Wake:
    since_ms: int
    head_ms: int
    hints: int

    def due_ms(self) -> int:
        return self.since_ms - self.head_ms


class MemorySchedule:
    """As SchedulePort promises, for the greenlets of one process. ``homes`` is shared with ``MemoryHomes``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_ms: dict[int, int] = {}
        self._leases: dict[int, tuple[str, int]] = {}
        self._wakes: dict[int, _Wake] = {}
        self._claims_made = 0
        self._claims_looked_at: int | None = None
        self.homes: dict[int, MemoryHome] = {}

    def wake(self, user_ids: Iterable[int], *, head_start_s: float = NEW_WATCHER_HEAD_START_S, hints: int = 0) -> None:
        now = self._clock.wall_ms()
        for user_id in user_ids:
            due_ms = self._due_ms.get(user_id, now)
            wake = self._wakes.setdefault(user_id, _Wake(min(now, due_ms), 0, 0))
            head_ms = round(head_start_s * 1000)
            wake.head_ms, wake.hints = max(wake.head_ms, head_ms), wake.hints | hints
            if due_ms <= now or user_id not in self._leases:
                self._due_ms[user_id] = min(due_ms, now - wake.head_ms)

    def ensure(self, user_ids: Iterable[int]) -> int:
        now = self._clock.wall_ms()
        asked = set(user_ids)
        missing = asked - self._due_ms.keys()
        spread_s = refill_spread_s(len(asked))
        self._due_ms.update((user_id, now + first_due_ms(user_id, spread_s)) for user_id in missing)
        return len(missing)

    def look(self) -> Look:
        before, self._claims_looked_at = self._claims_looked_at, self._claims_made
        return Look(emptied=False, is_served=before != self._claims_made)

    def claim(self, limit: int, lease_s: float, holder: str, *, only_urgent: bool = False) -> list[Claim]:
        now = self._clock.wall_ms()
        self._claims_made += 1
        token = f"{holder}:{self._claims_made}"
        latest = now - round(only_urgent * URGENT_HEAD_START_S * 1000)
        due = sorted((due_ms, user_id) for user_id, due_ms in self._due_ms.items() if due_ms <= latest)[:limit]
        if only_urgent:
            due = [(due_ms, user_id) for due_ms, user_id in due if user_id in self._wakes]
        return [self._hold(user_id, token, now, now + round(lease_s * 1000)) for _, user_id in due]

    def complete(self, claim: Claim, next_due_in_s: float) -> bool:
        return self._finish(claim, self._clock.wall_ms() + max(0, round(next_due_in_s * 1000)))

    def give_back(self, claim: Claim) -> bool:
        held = self._finish(claim, self._clock.wall_ms())
        if held and claim.hints:
            self.wake([claim.user_id], head_start_s=0.0, hints=claim.hints)
        return held

    def drop(self, claim: Claim) -> bool:
        held = self._finish(claim, None)
        if held and claim.user_id not in self._due_ms:
            self.homes.pop(claim.user_id, None)
        return held

    def depth(self) -> int:
        return len(self._due_ms)

    def next_due_ms(self, user_id: int) -> int | None:
        """When the user falls due; None when it is not in the schedule."""
        return self._due_ms.get(user_id)

    def _hold(self, user_id: int, token: str, now: int, lease_ends_ms: int) -> Claim:
        _, hints = self._leases.get(user_id, ("", 0))
        wake = self._wakes.pop(user_id, None)
        since_ms = self._due_ms[user_id]
        if wake is not None:
            since_ms, hints = wake.since_ms, hints | wake.hints
        home = self.homes.get(user_id)
        homed = home is not None and home.ends_ms > now
        self._due_ms[user_id] = lease_ends_ms
        self._leases[user_id] = (token, hints)
        overdue_s = max(0, now - since_ms) / 1000
        live = home.live if home and homed else 0
        head_start_s = 0.0 if wake is None else wake.head_ms / 1000
        return Claim(user_id, token, overdue_s, now, wake is not None, hints, live, not homed, head_start_s)

    def _finish(self, claim: Claim, due_ms: int | None) -> bool:
        if self._leases.get(claim.user_id, ("", 0))[0] != claim.token:
            return False
        del self._leases[claim.user_id]
        wake = self._wakes.get(claim.user_id)
        if wake is not None:
            due_ms = wake.due_ms()
        if due_ms is None:
            del self._due_ms[claim.user_id]
        else:
            self._due_ms[claim.user_id] = due_ms
        return True
