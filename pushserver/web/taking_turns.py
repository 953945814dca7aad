"""Whose turn it is to accept: the web worker with the fewest connections.

All workers listen on one socket, and whoever wakes up first takes a new connection; the kernel tends to wake the
same one. So a worker that has more than the least loaded other one waits a little for that one. It waits only as long
as a healthy worker needs, and does not wait again for one that let it wait in vain (it is frozen, full or out of
descriptors) until that one moves.
"""

from __future__ import annotations

from pushserver.clock import Clock
from pushserver.web.worker_slots import State, WorkerSlots

#: How long to step back before looking again, and how long in all.
STEP_S = 0.003
MOST_S = 0.2
#: So many connections, and this part of the least load, are no difference worth waiting for.
SLACK = 2
SLACK_PART = 32


class Turns:
    """The turn of the worker in slot ``own``, whose load it publishes."""

    def __init__(self, slots: WorkerSlots, own: int, clock: Clock) -> None:
        self._slots = slots
        self._own = own
        self._clock = clock
        self._load = 0
        #: Slot and load of those we wait for, and since when.
        self._waited_for: dict[int, int] = {}
        self._waiting_since_s = 0.0
        #: Slot and load of those that let us wait in vain.
        self._unmoved: dict[int, int] = {}

    def opened(self) -> None:
        self._load += 1
        self._slots.publish_load(self._own, self._load)

    def closed(self) -> None:
        self._load -= 1
        self._slots.publish_load(self._own, self._load)

    def wait_s(self) -> float:
        """0 when it is our turn; else how long to step back before asking again."""
        ahead = self._less_loaded()
        if not ahead:
            self._waited_for = {}
            return 0.0
        now_s = self._clock.monotonic_s()
        if ahead != self._waited_for:
            self._waited_for, self._waiting_since_s = ahead, now_s
        if now_s - self._waiting_since_s < MOST_S:
            return STEP_S
        self._unmoved.update(ahead)
        self._waited_for = {}
        return 0.0

    def _less_loaded(self) -> dict[int, int]:
        """Slot and load of the others whose turn it is before ours."""
        ahead = {}
        for slot in self._slots.others(self._own, State.ACCEPTING):
            load = self._slots.load(slot)
            if self._load > load + SLACK + load // SLACK_PART and self._unmoved.get(slot) != load:
                ahead[slot] = load
        return ahead
