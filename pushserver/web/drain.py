"""A worker that leaves closes its transports a little apart, so that its clients do not all return in one moment.

Only the transport is closed: clients reconnect by themselves after that, and not after a Socket.IO disconnect packet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import gevent

from pushserver.clock import Clock

STEP_S = 0.02
#: When no other worker is there to take the clients, waiting helps nobody: at least so many go per second.
CLOSED_PER_S_WHEN_ALONE = 100


class Closable(Protocol):
    """One transport."""

    def close(self, *, reason: str) -> None: ...


class Doors(Protocol):
    """The open transports by id, oldest first, and whether more are admitted."""

    @property
    def connections(self) -> Mapping[str, Closable]: ...

    accepting: bool


class Drain:
    """``spread_s``: over how many seconds the transports are closed."""

    def __init__(
        self, doors: Doors, spread_s: float, clock: Clock, sleep: Callable[[float], object] = gevent.sleep
    ) -> None:
        self._doors = doors
        self._spread_s = spread_s
        self._clock = clock
        self._sleep = sleep

    def run(self, others_take_over: bool, anyone_left: Callable[[], bool]) -> None:
        """Close all transports; returns when nobody is left or the time is up. By then nothing may be accepted.

        Args:
            others_take_over: another worker accepts. Then who is still on the way in is let in, to be closed with
                the others: a client comes back at once after a closed transport, but waits long after a refusal.
            anyone_left: whether a transport is open or a request under way.
        """
        self._doors.accepting = others_take_over
        crowd = len(self._doors.connections)
        spread_s = self._spread_s
        if not others_take_over:
            spread_s = min(spread_s, crowd / CLOSED_PER_S_WHEN_ALONE)
        started_at_s = self._clock.monotonic_s()
        while anyone_left():
            elapsed_s = self._clock.monotonic_s() - started_at_s
            if elapsed_s >= spread_s:
                break
            may_stay = crowd - int(crowd * elapsed_s / spread_s)
            self._close_oldest(len(self._doors.connections) - may_stay)
            self._sleep(STEP_S)
        self._doors.accepting = False
        self._close_oldest(len(self._doors.connections))

    def _close_oldest(self, number: int) -> None:
        if number > 0:
            for connection in list(self._doors.connections.values())[:number]:
                connection.close(reason="server restart")
