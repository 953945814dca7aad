"""How long the event loop keeps others waiting: the first sign of most trouble, measured all the time."""

from __future__ import annotations

from typing import Any

import gevent

from pushserver.clock import Clock
from pushserver.observers import LoopLagMeasured, Observer

#: Ten measurements a second see every stall of 100 ms, and half of those of 50.
INTERVAL_S = 0.1
#: They are reported together: a report costs more than a measurement.
MEASUREMENTS_PER_REPORT = 5


class LoopLagProbe:
    """A timer of the event loop that notes by how much it is late each time."""

    def __init__(self, component: str, clock: Clock, observer: Observer, interval_s: float = INTERVAL_S) -> None:
        self._component = component
        self._clock = clock
        self._observer = observer
        self._interval_s = interval_s
        self._due_s = 0.0
        self._lags_ms: list[int] = []
        self._timer: Any = None

    def start(self) -> None:
        """Measure from now on; in the thread of the event loop that is meant."""
        self._due_s = self._clock.monotonic_s() + self._interval_s
        self._timer = gevent.get_hub().loop.timer(self._interval_s, self._interval_s, ref=False)
        self._timer.start(self.measure)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()

    def measure(self) -> None:
        """One measurement: the timer fires now."""
        now_s = self._clock.monotonic_s()
        self._lags_ms.append(max(0, round((now_s - self._due_s) * 1000)))
        self._due_s = now_s + self._interval_s
        if len(self._lags_ms) == MEASUREMENTS_PER_REPORT:
            lags_s = {lag_ms / 1000: self._lags_ms.count(lag_ms) for lag_ms in set(self._lags_ms)}
            self._lags_ms.clear()
            self._observer.record(LoopLagMeasured(self._component, lags_s))
