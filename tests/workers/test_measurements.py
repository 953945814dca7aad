"""What a push worker tells about itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pushserver.observers import (
    BreakerMeasured,
    BudgetMeasured,
    RecordingObserver,
    RedisTried,
    RoundsMeasured,
    ScheduleMeasured,
)
from pushserver.workers.asking import BudgetsSeen
from pushserver.workers.measurements import Measurements, breaker_state, headroom_users
from pushserver.workers.slots import Slots

OPEN_GATE = BudgetMeasured(0.5, is_short=False, is_paused=False)
PAUSED = BudgetMeasured(1.0, is_short=False, is_paused=True)


def throttled() -> Slots:
    slots = Slots(50)
    for _ in range(40):
        slots.ended("exchange_timeout")
    return slots


def test_everything_is_told_in_one_go() -> None:
    observer = RecordingObserver()
    asking: Any = SimpleNamespace(in_flight=3, look=lambda: BudgetsSeen(OPEN_GATE, 480, used=240.0))
    schedule: Any = SimpleNamespace(depth=lambda: 100)
    Measurements(asking, schedule, observer).measure(7, Slots(50))
    assert observer.records == [
        RoundsMeasured(7, 50, 50, 3),
        OPEN_GATE,
        BreakerMeasured("closed", is_it=True),
        BreakerMeasured("throttled", is_it=False),
        BreakerMeasured("open", is_it=False),
        ScheduleMeasured(100, 100, 480),
        RedisTried(is_up=True),
    ]


def test_the_breaker_is_open_during_a_pause_and_throttled_while_the_exchange_is_out_of_reach() -> None:
    assert breaker_state(OPEN_GATE, Slots(50)) == "closed"
    assert breaker_state(OPEN_GATE, throttled()) == "throttled"
    assert breaker_state(PAUSED, throttled()) == "open"


@pytest.mark.parametrize(
    ("users", "used", "expected"),
    [(100, 120.0, 300), (100, 480.0, 0), (100, 500.0, 0), (0, 120.0, 0), (100, 0.0, 0)],
)
def test_headroom_is_counted_in_users_like_those_who_are_there(users: int, used: float, expected: int) -> None:
    assert headroom_users(users, used, limit=480) == expected
