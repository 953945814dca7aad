"""What a push worker tells about itself every few seconds: budget, rounds, schedule, breaker."""

from __future__ import annotations

from pushserver.bus.schedule import SchedulePort
from pushserver.observers import (
    BreakerMeasured,
    BudgetMeasured,
    Observer,
    RedisTried,
    RoundsMeasured,
    ScheduleMeasured,
)
from pushserver.workers.asking import Asking
from pushserver.workers.slots import Slots

CLOSED, THROTTLED, OPEN = "closed", "throttled", "open"


class Measurements:
    """``measure`` with what the pool knows; it also begins the wait for a budget that nobody knows."""

    def __init__(self, asking: Asking, schedule: SchedulePort, observer: Observer) -> None:
        self._asking = asking
        self._schedule = schedule
        self._observer = observer

    def measure(self, rounds: int, slots: Slots) -> None:
        """``rounds`` are under way. Raises StoreUnavailable; what was learnt until then is told."""
        self._observer.record(RoundsMeasured(rounds, slots.limit, slots.most, self._asking.in_flight))
        seen = self._asking.look()
        self._observer.record(seen.tightest)
        now = breaker_state(seen.tightest, slots)
        for state in (CLOSED, THROTTLED, OPEN):
            self._observer.record(BreakerMeasured(state, state == now))
        users = self._schedule.depth()
        self._observer.record(ScheduleMeasured(users, headroom_users(users, seen.used, seen.limit), seen.limit))
        self._observer.record(RedisTried(is_up=True))


def breaker_state(budget: BudgetMeasured, slots: Slots) -> str:
    """Open while an address may not ask at all, throttled while most rounds cannot reach the exchange."""
    if budget.is_paused:
        return OPEN
    return THROTTLED if slots.limit < slots.most else CLOSED


def headroom_users(users: int, used: float, limit: int) -> int:
    """How many more users like the present ones fit in the budget; 0 where nothing is known of what one needs."""
    if users <= 0 or used <= 0:
        return 0
    return max(0, int((limit - used) / (used / users)))
