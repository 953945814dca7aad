"""A process starts whether or not its database is there, and finds it when it comes."""

from __future__ import annotations

import gevent

from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.observers import LifecycleReported, RecordingObserver
from pushserver.schema_upgrade import RETRY_PAUSES_S, start_upgrade


class Upgrade:
    """Fails with each of the given reasons, then works."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.reasons:
            raise StoreUnavailable(self.reasons.pop(0))


def reported(upgrade: Upgrade, clock: ManualClock) -> list[tuple[str, str]]:
    observer = RecordingObserver()
    job = start_upgrade(upgrade, "web", clock, observer)
    assert upgrade.calls == 0, "whoever starts it does not wait"
    job.get(timeout=5)
    return [(record.state, record.detail) for record in observer.records if isinstance(record, LifecycleReported)]


def test_an_upgrade_that_works_is_done_once_and_says_nothing() -> None:
    upgrade = Upgrade()
    assert reported(upgrade, ManualClock()) == []
    assert upgrade.calls == 1


def test_I04_it_is_tried_until_the_database_is_there_and_each_reason_is_told_once() -> None:
    clock = ManualClock()
    began_s = clock.monotonic_s()
    upgrade = Upgrade("away", "away", "locked", "locked", "locked", "locked", "locked")
    assert reported(upgrade, clock) == [
        ("database unavailable", "away"),
        ("database unavailable", "locked"),
        ("database found", ""),
    ]
    assert upgrade.calls == 8
    assert clock.monotonic_s() - began_s == sum(RETRY_PAUSES_S) + 2 * RETRY_PAUSES_S[-1]


def test_what_a_greenlet_waits_for_here_keeps_no_other_waiting() -> None:
    gate = gevent.event.Event()
    job = start_upgrade(gate.wait, "web", ManualClock(), RecordingObserver())
    gevent.sleep(0.01)
    assert not job.ready()
    gate.set()
    job.get(timeout=5)
