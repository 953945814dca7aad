"""Counts every few seconds what no single event tells: how full the outboxes are, how old the bus's last sign of life
is, what is free where the metric files lie.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import gevent

from pushserver.clock import Clock
from pushserver.observers import (
    ConnectionsMeasured,
    ListenerAged,
    MetricsRoomMeasured,
    Observer,
    PingsAnswered,
    RedisTried,
)
from pushserver.web.connection import Connection

logger = logging.getLogger(__name__)

MEASURE_EVERY_S = 2.0


class Listener(Protocol):
    @property
    def canary_age_s(self) -> float | None: ...


class Measuring:
    """``connections()`` gives those of this worker, ``redis_is_up()`` whether Redis took the last write.

    ``metrics_directory`` is where this process's metric files lie, None where it has none.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        listener: Listener,
        redis_is_up: Callable[[], bool],
        observer: Observer,
        clock: Clock,
        metrics_directory: str | None = None,
    ) -> None:
        self._connections = connections
        self._listener = listener
        self._redis_is_up = redis_is_up
        self._observer = observer
        self._clock = clock
        self._metrics_directory = metrics_directory
        self._heard_at_s = clock.monotonic_s()

    def start(self) -> None:
        gevent.spawn(self._run)

    def measure(self) -> None:
        """One measurement of everything."""
        self._measure_connections()
        self._observer.record(ListenerAged(self._listener_age_s()))
        self._observer.record(RedisTried(self._redis_is_up()))
        if self._metrics_directory is not None:
            space = os.statvfs(self._metrics_directory)
            self._observer.record(MetricsRoomMeasured(space.f_bavail * space.f_frsize))

    def _run(self) -> None:
        while True:
            try:
                self.measure()
            except Exception:
                # These are only figures; the phones are served without them.
                logger.exception("measuring this worker failed")
            gevent.sleep(MEASURE_EVERY_S)

    def _measure_connections(self) -> None:
        now_s = self._clock.monotonic_s()
        round_trips_ms: Counter[int] = Counter()
        count = waiting = messages = 0
        stuck_s = 0.0
        for connection in list(self._connections()):
            count += 1
            if connection.round_trip_s is not None:
                round_trips_ms[round(connection.round_trip_s * 1000)] += 1
                connection.round_trip_s = None
            if connection.outbox.stuck_since_s is not None:
                waiting += 1
                messages += connection.outbox.messages
                stuck_s = max(stuck_s, now_s - connection.outbox.stuck_since_s)
        self._observer.record(ConnectionsMeasured(count, waiting, messages, stuck_s))
        if round_trips_ms:
            self._observer.record(PingsAnswered({each_ms / 1000: times for each_ms, times in round_trips_ms.items()}))

    def _listener_age_s(self) -> float:
        """A connection that is opened anew has heard nothing yet: its predecessor's last sign counts on."""
        now_s = self._clock.monotonic_s()
        age_s = self._listener.canary_age_s
        if age_s is not None:
            self._heard_at_s = now_s - age_s
        return now_s - self._heard_at_s
