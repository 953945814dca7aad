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

    def run(self, others_take_over: Callable[[], bool], anyone_left: Callable[[], bool]) -> None:
        """Close all transports; returns when nobody is left or the time is up. By then nothing may be accepted.

        Args:
            others_take_over: whether another worker accepts. Then who is still on the way in is let in, to be closed
                with the others: a client comes back at once after a closed transport, and late after a refusal.
            anyone_left: whether a transport is open or a request under way.
        """
        crowd = len(self._doors.connections)
        now_s = started_at_s = self._clock.monotonic_s()
        due = 0.0
        while anyone_left() and now_s - started_at_s < self._spread_s:
            self._doors.accepting = others_take_over()
            per_s = crowd / self._spread_s
            if not self._doors.accepting:
                per_s = max(per_s, CLOSED_PER_S_WHEN_ALONE)
                if not self._doors.connections:
                    return
            self._sleep(STEP_S)
            last_s, now_s = now_s, self._clock.monotonic_s()
            due += per_s * (now_s - last_s)
            self._close_oldest(int(due))
            due -= int(due)
        self._doors.accepting = False
        self._close_oldest(len(self._doors.connections))

    def _close_oldest(self, number: int) -> None:
        for connection in list(self._doors.connections.values())[:number]:
            connection.close(reason="server restart")
