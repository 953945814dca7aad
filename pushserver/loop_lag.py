"""How long the event loop keeps others waiting: the first sign of most trouble, measured all the time."""

from __future__ import annotations

import threading

from pushserver.clock import Clock
from pushserver.observers import LoopLagMeasured, Observer

#: Twenty measurements a second see every stall of 50 ms.
INTERVAL_S = 0.05


class LoopLagProbe:
    """Sleeps briefly again and again and reports by how much each sleep was too long.

    Start it in a patched process, where a thread is a greenlet and so waits in the same queue as all others.
    """

    def __init__(self, component: str, clock: Clock, observer: Observer, interval_s: float = INTERVAL_S) -> None:
        self._component = component
        self._clock = clock
        self._observer = observer
        self._interval_s = interval_s
        self._stopped = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="loop-lag", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True

    def measure(self) -> None:
        """One measurement."""
        before_s = self._clock.monotonic_s()
        self._clock.sleep(self._interval_s)
        lag_s = max(0.0, self._clock.monotonic_s() - before_s - self._interval_s)
        self._observer.record(LoopLagMeasured(self._component, lag_s))

    def _run(self) -> None:
        while not self._stopped:
            self.measure()
