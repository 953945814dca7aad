"""The probe tells by how much the event loop was late, in one report for many measurements."""

from __future__ import annotations

import gevent

from pushserver.clock import ManualClock, SystemClock
from pushserver.loop_lag import MEASUREMENTS_PER_REPORT, LoopLagProbe
from pushserver.observers import LoopLagMeasured, RecordingObserver


def test_the_probe_reports_how_much_later_it_woke_than_asked() -> None:
    clock, heard = ManualClock(), RecordingObserver()
    probe = LoopLagProbe("web", clock, heard, interval_s=0.05)
    probe.start()
    for number in range(MEASUREMENTS_PER_REPORT):
        assert heard.records == []
        clock.advance(0.3 if number == 4 else 0.05)
        probe.measure()
    probe.stop()
    assert heard.records == [LoopLagMeasured("web", {0.0: MEASUREMENTS_PER_REPORT - 1, 0.25: 1})]


def test_a_started_probe_sees_a_loop_that_is_blocked() -> None:
    clock, heard = SystemClock(), RecordingObserver()
    probe = LoopLagProbe("web", clock, heard, interval_s=0.005)
    probe.start()
    gevent.sleep(0.01)
    blocked_until_s = clock.monotonic_s() + 0.2
    while clock.monotonic_s() < blocked_until_s:
        pass
    with gevent.Timeout(10):
        while not heard.records:
            gevent.sleep(0.01)
    probe.stop()
    assert max(heard.records[0].lags_s) > 0.15
