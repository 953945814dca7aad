"""The homes' twin for one process without Redis, beside ``MemorySchedule``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pushserver.bus.homes import Kept
from pushserver.bus.memory_schedule import MemoryHome, MemorySchedule
from pushserver.clock import Clock


class MemoryHomes:
    """As HomesPort promises, for the users of one ``MemorySchedule``."""

    def __init__(self, schedule: MemorySchedule, clock: Clock) -> None:
        self._schedule = schedule
        self._homes = schedule.homes
        self._clock = clock

    def take(self, user_ids: Iterable[int], holder: str, lease_s: float) -> set[int]:
        now = self._clock.wall_ms()
        taken = set()
        for user_id in user_ids:
            home = self._homes.get(user_id)
            free = home is None or home.ends_ms <= now or home.holder == holder
            if free and self._schedule.next_due_ms(user_id) is not None:
                self._homes[user_id] = MemoryHome(holder, now + round(lease_s * 1000))
                taken.add(user_id)
        return taken

    def keep(self, live: Mapping[int, int], holder: str, lease_s: float) -> Kept:
        ends_ms = self._clock.wall_ms() + round(lease_s * 1000)
        lost, unscheduled = set(), set()
        for user_id, bits in live.items():
            home = self._homes.get(user_id)
            if home is not None and home.holder != holder:
                lost.add(user_id)
            elif home is None and self._schedule.next_due_ms(user_id) is None:
                unscheduled.add(user_id)
            else:
                self._homes[user_id] = MemoryHome(holder, ends_ms, bits)
        return Kept(frozenset(lost), frozenset(unscheduled))

    def leave(self, user_ids: Iterable[int], holder: str) -> None:
        self._end([user for user in user_ids if user in self._homes and self._homes[user].holder == holder])

    def sweep(self) -> int:
        now = self._clock.wall_ms()
        return self._end([user for user, home in self._homes.items() if home.ends_ms <= now])

    def _end(self, user_ids: list[int]) -> int:
        for user_id in user_ids:
            del self._homes[user_id]
            if self._schedule.next_due_ms(user_id) is not None:
                self._schedule.wake([user_id], head_start_s=0.0)
        return len(user_ids)
