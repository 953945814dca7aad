"""Adds up what was pushed, because a report per push would cost more than the push."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pushserver.model import DataType
from pushserver.observers import Observer, PushSampled, StageTimed, UpdatesPushed

#: Pushes of a type that people can read along between two reports: all of a quiet server's, some of a busy one's.
SAMPLES, SAMPLES_WHEN_BUSY = 5, 1
BUSY_FROM = 50
#: Slower ones count as this slow, so that the number of different latencies stays small.
MAX_LATENCY_MS = 60_000


class _Totals:
    __slots__ = ("connections", "latencies_ms", "samples_left", "size_bytes", "slow_writes_ms")

    def __init__(self, samples: int) -> None:
        self.connections = self.size_bytes = 0
        self.latencies_ms: dict[int, int] = {}
        #: Of these, those whose writing took a millisecond or more: ``(latency, writing)``.
        self.slow_writes_ms: dict[tuple[int, int], int] = {}
        self.samples_left = samples


class PushTotals:
    """``count`` is called for every push, ``report`` every half second."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._totals = {data_type: _Totals(SAMPLES) for data_type in DataType}

    def count(
        self,
        data_type: DataType,
        user_id: int,
        connections: int,
        size_bytes: int,
        latency_ms: int,
        writing_ms: int = 0,
    ) -> None:
        """One state went to ``connections`` sockets of a user, ``size_bytes`` each, ``latency_ms`` after its commit.

        ``writing_ms`` of them passed since this worker had it.
        """
        totals = self._totals[data_type]
        totals.connections += connections
        totals.size_bytes += connections * size_bytes
        latencies_ms = totals.latencies_ms
        latencies_ms[latency_ms] = latencies_ms.get(latency_ms, 0) + 1
        if writing_ms > 0:
            pair = latency_ms, writing_ms
            totals.slow_writes_ms[pair] = totals.slow_writes_ms.get(pair, 0) + 1
        if totals.samples_left:
            totals.samples_left -= 1
            self._observer.record(PushSampled(data_type, user_id, connections, size_bytes, latency_ms / 1000))

    def report(self) -> None:
        """Tell the observer what came together since the last report."""
        for data_type, totals in self._totals.items():
            if totals.connections:
                self._totals[data_type] = _Totals(SAMPLES if totals.connections < BUSY_FROM else SAMPLES_WHEN_BUSY)
                latencies_s = _in_seconds(totals.latencies_ms.items())
                self._observer.record(UpdatesPushed(data_type, totals.connections, totals.size_bytes, latencies_s))
                self._report_stages(totals)

    def _report_stages(self, totals: _Totals) -> None:
        bus_ms, writing_ms = Counter(totals.latencies_ms), Counter({0: sum(totals.latencies_ms.values())})
        for (latency_ms, written_ms), times in totals.slow_writes_ms.items():
            bus_ms[latency_ms] -= times
            bus_ms[latency_ms - written_ms] += times
            writing_ms[0] -= times
            writing_ms[written_ms] += times
        for stage, times_ms in (("commit_to_bus", bus_ms), ("bus_to_socket", writing_ms)):
            self._observer.record(StageTimed(stage, _in_seconds((+times_ms).items())))


def _in_seconds(times_ms: Iterable[tuple[int, int]]) -> dict[float, int]:
    times_s: dict[float, int] = {}
    for duration_ms, times in times_ms:
        duration_s = min(MAX_LATENCY_MS, max(0, duration_ms)) / 1000
        times_s[duration_s] = times_s.get(duration_s, 0) + times
    return times_s
