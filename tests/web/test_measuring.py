"""What a web worker counts about itself now and then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pushserver.clock import ManualClock
from pushserver.observers import (
    ConnectionsMeasured,
    ListenerAged,
    MetricsRoomMeasured,
    PingsAnswered,
    RecordingObserver,
    RedisTried,
)
from pushserver.web.measuring import Measuring


class World:
    def __init__(self, directory: str | None = None) -> None:
        self.clock, self.observer = ManualClock(), RecordingObserver()
        self.listener = SimpleNamespace(canary_age_s=None)
        self.connections: list[Any] = []
        self.redis_is_up = True
        self.measuring = Measuring(
            lambda: self.connections, self.listener, lambda: self.redis_is_up, self.observer, self.clock, directory
        )

    def connection(self, stuck_since_s: float | None = None, messages: int = 0, trip_s: float | None = None) -> Any:
        outbox = SimpleNamespace(stuck_since_s=stuck_since_s, messages=messages)
        connection = SimpleNamespace(outbox=outbox, round_trip_s=trip_s)
        self.connections.append(connection)
        return connection

    def measured(self, kind: type) -> Any:
        self.observer.records.clear()
        self.measuring.measure()
        found = [record for record in self.observer.records if isinstance(record, kind)]
        return found[0] if found else None


def test_only_connections_that_are_stuck_count_as_waiting() -> None:
    world = World()
    now_s = world.clock.monotonic_s()
    world.connection()
    world.connection(stuck_since_s=now_s - 3.0, messages=4)
    world.connection(stuck_since_s=now_s - 1.0, messages=1)
    assert world.measured(ConnectionsMeasured) == ConnectionsMeasured(3, waiting=2, messages=5, stuck_s=3.0)


def test_each_answered_ping_is_told_once() -> None:
    world = World()
    for trip_s in (0.0402, 0.0398, 0.1):
        world.connection(trip_s=trip_s)
    assert world.measured(PingsAnswered) == PingsAnswered({0.04: 2, 0.1: 1})
    assert world.measured(PingsAnswered) is None


def test_a_listener_that_connects_again_and_again_grows_old_all_the_same() -> None:
    world = World()
    world.listener.canary_age_s = 0.5
    assert world.measured(ListenerAged) == ListenerAged(0.5)
    world.listener.canary_age_s = None
    world.clock.advance(9.0)
    assert world.measured(ListenerAged) == ListenerAged(9.5)


def test_a_listener_that_never_heard_anything_is_as_old_as_its_worker() -> None:
    world = World()
    world.clock.advance(4.0)
    assert world.measured(ListenerAged) == ListenerAged(4.0)


def test_redis_and_the_room_for_metrics_are_told(tmp_path: Path) -> None:
    world = World(str(tmp_path))
    world.redis_is_up = False
    assert world.measured(RedisTried) == RedisTried(is_up=False)
    assert world.measured(MetricsRoomMeasured).free_bytes > 0
