"""The schedule's twin for one process without Redis: tests, and whoever wants to try a worker alone."""

from __future__ import annotations

from collections.abc import Iterable

from pushserver.bus.schedule import Claim, first_due_ms, refill_spread_s
from pushserver.clock import Clock


class MemorySchedule:
    """As SchedulePort promises, for the greenlets of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due_ms: dict[int, int] = {}
        self._leases: dict[int, str] = {}
        self._wakes: set[int] = set()
        self._claims_made = 0

    def wake(self, user_ids: Iterable[int]) -> None:
        now = self._clock.wall_ms()
        for user_id in user_ids:
            if user_id in self._leases and self._due_ms.get(user_id, 0) > now:
                self._wakes.add(user_id)
            else:
                self._due_ms[user_id] = min(now, self._due_ms.get(user_id, now))

    def ensure(self, user_ids: Iterable[int]) -> int:
        now = self._clock.wall_ms()
        asked = set(user_ids)
        missing = asked - self._due_ms.keys()
        spread_s = refill_spread_s(len(asked))
        self._due_ms.update((user_id, now + first_due_ms(user_id, spread_s)) for user_id in missing)
        return len(missing)

    def emptied(self) -> bool:
        return False

    def claim(self, limit: int, lease_s: float, holder: str) -> list[Claim]:
        now = self._clock.wall_ms()
        self._claims_made += 1
        token = f"{holder}:{self._claims_made}"
        due = sorted((due_ms, user_id) for user_id, due_ms in self._due_ms.items() if due_ms <= now)[:limit]
        for _, user_id in due:
            self._due_ms[user_id] = now + round(lease_s * 1000)
            self._leases[user_id] = token
            self._wakes.discard(user_id)
        return [Claim(user_id, token, (now - due_ms) / 1000, now) for due_ms, user_id in due]

    def complete(self, claim: Claim, next_due_in_s: float) -> bool:
        return self._finish(claim, self._clock.wall_ms() + max(0, round(next_due_in_s * 1000)))

    def drop(self, claim: Claim) -> bool:
        return self._finish(claim, None)

    def depth(self) -> int:
        return len(self._due_ms)

    def _finish(self, claim: Claim, due_ms: int | None) -> bool:
        if self._leases.get(claim.user_id) != claim.token:
            return False
        del self._leases[claim.user_id]
        if claim.user_id in self._wakes:
            self._wakes.discard(claim.user_id)
            due_ms = self._clock.wall_ms()
        if due_ms is None:
            del self._due_ms[claim.user_id]
        else:
            self._due_ms[claim.user_id] = due_ms
        return True
