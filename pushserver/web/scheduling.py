"""Keeps the users that phones of this worker watch in the push workers' schedule, whatever becomes of Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import gevent

from pushserver.bus.schedule import NEW_WATCHER_HEAD_START_S, Look
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.web.absence import Absence
from pushserver.web.outages import Outages

logger = logging.getLogger(__name__)

ENSURE_EVERY_S = 5.0
#: A crowd is woken at most so often.
GATHER_S = 0.02


class Schedule(Protocol):
    """The part of the push workers' schedule that the web side needs."""

    def wake(self, user_ids: Sequence[int], *, head_start_s: float) -> None: ...

    def ensure(self, user_ids: Sequence[int]) -> int: ...

    def look(self) -> Look: ...


class Scheduling:
    """``watched()`` gives the users that are to be scheduled; ``on_emptied()`` is called when the schedule was lost.

    ``outages`` learns every second whether Redis takes what is written and ``hears()`` that what is published arrives;
    ``absence`` learns whether push workers ask for work.
    """

    def __init__(
        self,
        schedule: Schedule,
        watched: Callable[[], Iterable[int]],
        on_emptied: Callable[[], None],
        outages: Outages,
        absence: Absence,
        hears: Callable[[], bool],
        clock: Clock,
        spawn_later: Callable[..., object] = gevent.spawn_later,
    ) -> None:
        self._schedule = schedule
        self._watched = watched
        self._on_emptied = on_emptied
        self._outages = outages
        self._absence = absence
        self._hears = hears
        #: Whether the last thing that was written was taken.
        self.redis_is_up = True
        self._clock = clock
        self._spawn_later = spawn_later
        self._looking_after = False
        self._ensured_at_s = clock.monotonic_s()
        self._woke_at_s = float("-inf")
        self._to_wake: list[int] = []

    def wake(self, user_id: int) -> None:
        """Have the user fetched now; does not raise. Of a crowd, those who come within a moment are woken together."""
        now_s = self._clock.monotonic_s()
        if self._to_wake:
            self._to_wake.append(user_id)
        elif now_s - self._woke_at_s >= GATHER_S:
            self._woke_at_s = now_s
            self._wake([user_id])
        else:
            self._to_wake.append(user_id)
            self._spawn_later(GATHER_S, self._wake_crowd)

    def _wake_crowd(self) -> None:
        users, self._to_wake = self._to_wake, []
        self._woke_at_s = self._clock.monotonic_s()
        self._wake(list(dict.fromkeys(users)))

    def _wake(self, user_ids: list[int]) -> None:
        try:
            self._schedule.wake(user_ids, head_start_s=NEW_WATCHER_HEAD_START_S)
        except StoreUnavailable:
            logger.debug("%d users could not be woken; ensure makes up for it", len(user_ids))

    def ensure(self) -> None:
        """Put watched users that the schedule lost back into it."""
        self._ensured_at_s = self._clock.monotonic_s()
        try:
            self._schedule.ensure(sorted(set(self._watched())))
        except StoreUnavailable:
            logger.debug("the schedule cannot be reached; the next round tries again")

    def look_after(self) -> None:
        """To be called every second: a Redis that came back empty is noticed soon, and whatever else was lost later."""
        if self._looking_after:
            return
        self._looking_after = True
        try:
            look = self._schedule.look()
            self.redis_is_up = True
            if self._hears():
                self._outages.works()
            else:
                # Nothing new can come here, nor is anything fetched for users whom nobody else listens for.
                self._outages.failed()
            if look.emptied:
                self._on_emptied()
            elif self._clock.monotonic_s() - self._ensured_at_s >= ENSURE_EVERY_S:
                self.ensure()
            self._absence.looked(look.is_served)
        except StoreUnavailable:
            self.redis_is_up = False
            self._outages.failed()
            self._absence.unknown()
        finally:
            self._looking_after = False
