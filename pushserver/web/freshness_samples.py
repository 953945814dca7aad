"""Looks, on behalf of the phones, at how old the truth is that they are shown: the second service level objective.

The push workers cannot judge themselves: users that nobody serves would be missing from their figures. So every few
seconds each web worker takes the next of what its phones watch, reads in Redis when it was last confirmed by the
exchange, and counts it fresh or late. Fresh is what was confirmed within twice its interval; for what a home keeps
fresh by stream and ticker the interval is that of reconciliations. What the user's own key prevents counts as stopped,
and neither for nor against us.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

import gevent

from pushserver.bus.homes import is_kept
from pushserver.bus.states import StoredState
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType, Freshness
from pushserver.observers import Observer, WatchSampled
from pushserver.web.watches import Watch

logger = logging.getLogger(__name__)

SAMPLE_EVERY_S = 5.0
#: Watched types per look.
SAMPLES = 100
#: Late is what was not confirmed for so many intervals.
INTERVALS = 2

FRESH, LATE, STOPPED = "fresh", "late", "stopped"


class States(Protocol):
    def read(self, wanted: Sequence[tuple[int, DataType]]) -> list[StoredState]: ...


class Homes(Protocol):
    def live_bits(self, user_ids: Iterable[int]) -> dict[int, int]: ...


class Patience:
    """How old each type may be. ``intervals`` and ``reconcile_s`` as the push workers have them, seconds."""

    def __init__(self, intervals: Mapping[DataType, float], reconcile_s: float) -> None:
        self._intervals = intervals
        self._reconcile_s = reconcile_s

    def most_s(self, data_type: DataType, live: int) -> float:
        """``live``: the bits of ``bus.homes.Live`` that the user's home keeps fresh."""
        interval_s = self._intervals[data_type]
        return INTERVALS * (max(interval_s, self._reconcile_s) if is_kept(data_type, live) else interval_s)


class FreshnessSamples:
    """``watches()`` gives what this worker's phones watch, oldest first."""

    def __init__(
        self,
        watches: Callable[[], Collection[Watch]],
        states: States,
        homes: Homes,
        patience: Patience,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self._watches = watches
        self._states = states
        self._homes = homes
        self._patience = patience
        self._observer = observer
        self._clock = clock
        self._next = 0

    def start(self) -> None:
        gevent.spawn(self._run)

    def sample(self) -> None:
        """Look at the next ``SAMPLES``. Raises StoreUnavailable: then nobody knows."""
        chosen = self._choose()
        if not chosen:
            return
        stored = self._states.read([(watch.user_id, watch.data_type) for watch in chosen])
        live = self._homes.live_bits({watch.user_id for watch in chosen})
        now_ms, now_s = self._clock.wall_ms(), self._clock.monotonic_s()
        for watch, state in zip(chosen, stored, strict=True):
            most_s = self._patience.most_s(watch.data_type, live[watch.user_id])
            result = judged(state, now_s - watch.since_s, now_ms, most_s)
            if result is not None:
                age_s = None if state.frame is None else max(0.0, (now_ms - state.confirmed_ms) / 1000)
                self._observer.record(WatchSampled(watch.data_type, result, age_s))

    def _choose(self) -> list[Watch]:
        watches = self._watches()
        if self._next >= len(watches):
            self._next = 0
        chosen = list(islice(watches, self._next, self._next + SAMPLES))
        self._next += SAMPLES
        return chosen

    def _run(self) -> None:
        while True:
            gevent.sleep(SAMPLE_EVERY_S)
            try:
                self.sample()
            except StoreUnavailable:
                logger.debug("freshness cannot be looked at while Redis is away")
            except Exception:
                # These are only figures; the phones are served without them.
                logger.exception("looking at freshness failed")


def judged(state: StoredState, watched_s: float, now_ms: int, most_s: float) -> str | None:
    """``fresh``, ``late`` or ``stopped``; None while a new watcher may still wait for the first answer."""
    if state.status is Freshness.STOPPED:
        return STOPPED
    if state.frame is not None and now_ms - state.confirmed_ms <= most_s * 1000:
        return FRESH
    return LATE if watched_s > most_s else None
