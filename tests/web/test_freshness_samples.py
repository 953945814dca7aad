"""How fresh is what phones are shown: judged by what Redis holds, not by what the push workers say of themselves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from pushserver.bus.homes import Live
from pushserver.bus.states import StoredState
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType, Freshness
from pushserver.observers import RecordingObserver, WatchSampled
from pushserver.settings import DEFAULT_INTERVALS
from pushserver.web.freshness_samples import SAMPLES, FreshnessSamples, Patience, judged
from pushserver.web.watches import Watch

BALANCE, ORDERS = DataType.BALANCE, DataType.ORDERS
NOW_MS = 1_000_000_000
LONG_S = 1e6


def stored(age_s: float | None, status: Freshness = Freshness.LIVE) -> StoredState:
    if age_s is None:
        return StoredState(0, 0, 0, None, status, "", None)
    at_ms = NOW_MS - round(age_s * 1000)
    return StoredState(5, at_ms, at_ms, b"frame", status, "", None)


@pytest.mark.parametrize(
    ("state", "watched_s", "expected"),
    [
        (stored(19.9), LONG_S, "fresh"),
        (stored(20.1), LONG_S, "late"),
        (stored(20.1), 5.0, None),
        (stored(19.9), 1.0, "fresh"),
        (stored(None), 5.0, None),
        (stored(None), 20.1, "late"),
        (stored(9_999, Freshness.STOPPED), LONG_S, "stopped"),
        (stored(9_999, Freshness.DELAYED), LONG_S, "late"),
    ],
)
def test_late_is_what_was_not_confirmed_in_time_while_somebody_watched(
    state: StoredState, watched_s: float, expected: str | None
) -> None:
    assert judged(state, watched_s, NOW_MS, most_s=20.0) == expected


def test_what_a_home_keeps_fresh_is_reconciled_less_often() -> None:
    patience = Patience({BALANCE: 10.0, ORDERS: 5.0}, reconcile_s=60.0)
    assert patience.most_s(BALANCE, live=0) == 20.0
    assert patience.most_s(BALANCE, live=Live.STREAM) == 20.0, "without mark prices the balance is polled"
    assert patience.most_s(BALANCE, live=Live.STREAM | Live.BALANCE) == 120.0
    assert patience.most_s(ORDERS, live=Live.STREAM) == 120.0


class World:
    def __init__(self, watches: int) -> None:
        self.clock, self.observer = ManualClock(wall_ms=NOW_MS), RecordingObserver()
        self.watches = [Watch(user, ORDERS, since_s=-LONG_S) for user in range(watches)]
        self.asked: list[int] = []
        self.gone = False
        states: Any = self
        patience = Patience(DEFAULT_INTERVALS, 60.0)
        self.samples = FreshnessSamples(lambda: self.watches, states, self, patience, self.observer, self.clock)

    def read(self, wanted: Any) -> list[StoredState]:
        if self.gone:
            raise StoreUnavailable("gone")
        self.asked += [user for user, _ in wanted]
        return [stored(3.0) for _ in wanted]

    def live_bits(self, user_ids: Any) -> dict[int, int]:
        return dict.fromkeys(user_ids, 0)


def test_everybody_has_a_turn_before_anybody_has_two() -> None:
    world = World(2 * SAMPLES + 50)
    for _ in range(3):
        world.samples.sample()
    assert Counter(world.asked) == dict.fromkeys(range(2 * SAMPLES + 50), 1)
    world.samples.sample()
    assert world.asked[-SAMPLES:] == list(range(SAMPLES))
    assert world.observer.records[0] == WatchSampled(ORDERS, "fresh", 3.0)


def test_nobody_watching_and_redis_away_count_for_nothing() -> None:
    World(0).samples.sample()
    world = World(3)
    world.gone = True
    with pytest.raises(StoreUnavailable):
        world.samples.sample()
    assert not world.observer.records
