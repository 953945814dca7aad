"""The listener's sign of life, on a manual clock."""

from __future__ import annotations

from pushserver.bus.canary import Canary
from pushserver.clock import ManualClock


def test_the_lag_is_that_of_the_first_of_several_under_way() -> None:
    clock = ManualClock()
    canary = Canary(b"c", clock)
    canary.begin()
    canary.sung()
    clock.advance(2.0)
    canary.sung()
    clock.advance(0.5)
    assert canary.heard() == 2.5
    assert canary.heard() is None, "whose song this was is not known"


def test_another_connection_has_heard_nothing_yet() -> None:
    clock = ManualClock()
    canary = Canary(b"c", clock)
    canary.begin()
    canary.sung()
    canary.heard()
    clock.advance(3.0)
    assert (canary.age_s, canary.silent_s) == (3.0, 3.0)
    canary.begin()
    assert (canary.age_s, canary.silent_s) == (None, 0.0)
