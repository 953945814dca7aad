"""Adds up what was pushed, because a report per push would cost more than the push."""

from __future__ import annotations

from pushserver.model import DataType
from pushserver.observers import Observer, PushSampled, UpdatesPushed

#: Pushes of a type that people can read along between two reports: all of a quiet server's, some of a busy one's.
SAMPLES, SAMPLES_WHEN_BUSY = 5, 1
BUSY_FROM = 50
#: Slower ones count as this slow, so that the number of different latencies stays small.
MAX_LATENCY_MS = 60_000


class _Totals:
    __slots__ = ("connections", "latencies_ms", "samples_left", "size_bytes")

    def __init__(self, samples: int) -> None:
        self.connections = self.size_bytes = 0
        self.latencies_ms: dict[int, int] = {}
        self.samples_left = samples


class PushTotals:
    """``count`` is called for every push, ``report`` every half second."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._totals = {data_type: _Totals(SAMPLES) for data_type in DataType}

    def count(self, data_type: DataType, user_id: int, connections: int, size_bytes: int, latency_ms: int) -> None:
        """One state went to ``connections`` sockets of a user, ``size_bytes`` each, ``latency_ms`` after its commit."""
        totals = self._totals[data_type]
        totals.connections += connections
        totals.size_bytes += connections * size_bytes
        latencies_ms = totals.latencies_ms
        latencies_ms[latency_ms] = latencies_ms.get(latency_ms, 0) + 1
        if totals.samples_left:
            totals.samples_left -= 1
            self._observer.record(PushSampled(data_type, user_id, connections, size_bytes, latency_ms / 1000))

    def report(self) -> None:
        """Tell the observer what came together since the last report."""
        for data_type, totals in self._totals.items():
            if totals.connections:
                self._totals[data_type] = _Totals(SAMPLES if totals.connections < BUSY_FROM else SAMPLES_WHEN_BUSY)
                latencies_s: dict[float, int] = {}
                for latency_ms, times in totals.latencies_ms.items():
                    latency_s = min(MAX_LATENCY_MS, max(0, latency_ms)) / 1000
                    latencies_s[latency_s] = latencies_s.get(latency_s, 0) + times
                self._observer.record(UpdatesPushed(data_type, totals.connections, totals.size_bytes, latencies_s))
