"""The homes of one push worker: takes users that have none, has their streams held, and keeps the leases.

A home says in Redis what it keeps fresh, so that rounds may ask the exchange less often; what it cannot keep fresh is
polled as if there were no home. Rounds stay free for every worker.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import gevent
from gevent.event import Event
from gevent.lock import RLock

from pushserver.bus.homes import HOME_LEASE_S, HomesPort, Live
from pushserver.bus.schedule import BUSY_HEAD_START_S, HINT_HEAD_START_S, Claim, SchedulePort
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType
from pushserver.observers import Observer
from pushserver.stream_records import HintServed, HomesCounted, HomesSwept
from pushserver.workers.credentials import CredentialsCache
from pushserver.workers.hints import CATCH_UP
from pushserver.workers.homes.door import Door
from pushserver.workers.homes.hinting import HintQueue
from pushserver.workers.homes.holding import Streams

logger = logging.getLogger(__name__)

KEEP_EVERY_S = 2.5
SWEEP_EVERY_S = 1.0
TEND_EVERY_S = 0.2
TICK_EVERY_S = 1.0
#: Between attempts while Redis is away.
RETRY_S = 0.3
#: Homes are not swept until everybody had the time to keep them again after Redis was away.
SWEEP_PATIENCE_S = 2 * KEEP_EVERY_S
#: Unknown to the schedule so often in a row, a user is not watched any more.
FORGOTTEN_AFTER = 2


@dataclass(slots=True)
class _Home:
    live: int = 0
    unscheduled: int = 0


class Keeper:
    """``met`` for each claim; ``start`` and ``stop`` once each. ``limit`` is how many homes at most.

    ``doors`` and ``door_of`` as for ``Streams``; without doors homes are kept for the sake of mark prices.
    """

    def __init__(
        self,
        homes: HomesPort,
        schedule: SchedulePort,
        credentials: CredentialsCache,
        doors: Sequence[Door],
        holder: str,
        limit: int,
        clock: Clock,
        observer: Observer,
        rng: random.Random,
        door_of: Callable[[int], int] = lambda user_id: 0,
    ) -> None:
        self._port = homes
        self._schedule = schedule
        self._holder = holder
        self._limit = limit
        self._clock = clock
        self._observer = observer
        self._streams = Streams(
            doors, door_of, credentials, self._stream_changed, self._hinted, clock, observer, rng
        )  # fmt: skip
        self._homes: dict[int, _Home] = {}
        self._met: set[int] = set()
        #: Redis is being asked for them: neither met nor at home, and they need room.
        self._taking: set[int] = set()
        self._dirty: set[int] = set()
        self._hints = HintQueue()
        self._news = Event()
        #: Of two tellers at the same time the one with the older bits might be heard last.
        self._telling = RLock()
        self._greenlets: list[gevent.Greenlet] = []
        now_s = clock.monotonic_s()
        self._kept_s = self._swept_s = now_s
        self._sweep_from_s = now_s + SWEEP_PATIENCE_S

    def met(self, claim: Claim, watched: frozenset[DataType]) -> None:
        """A round is about to begin; a watched user without a home may find one here."""
        if claim.woken and claim.hints:
            self._observer.record(HintServed(claim.overdue_s))
        has_room = len(self._homes) + len(self._taking) + len(self._met) < self._limit
        if watched and claim.homeless and claim.user_id not in self._homes and has_room:
            self._met.add(claim.user_id)

    def homes(self) -> frozenset[int]:
        """The users whose home this is."""
        return frozenset(self._homes)

    def set_live(self, user_id: int, bit: Live, on: bool) -> None:
        """Say what is kept fresh by other means than the stream; what ceases to be is polled at once."""
        self._change(user_id, bit, on, 0)

    def key_changed(self, user_id: int) -> None:
        self._streams.key_changed(user_id)

    def start(self) -> None:
        self._greenlets = [gevent.spawn(self._tell), gevent.spawn(self._tend), gevent.spawn(self._tick)]

    def stop(self) -> None:
        """Close all streams and give the homes back, so that others take them at once."""
        gevent.killall(self._greenlets, timeout=1.0)
        users = list(self._homes)
        for user_id in users:
            self._move_out(user_id)
        try:
            self._port.leave(users, self._holder)
        except StoreUnavailable:
            logger.warning("%d homes could not be given back; they end with their leases", len(users))

    def tend_once(self) -> None:
        """Whatever is due of keeping, sweeping, taking and connecting. Raises StoreUnavailable."""
        now_s = self._clock.monotonic_s()
        if now_s - self._kept_s >= KEEP_EVERY_S:
            self._streams.close_outdated()
            self._keep(list(self._homes))
            self._kept_s = now_s
        if now_s - self._swept_s >= SWEEP_EVERY_S and now_s >= self._sweep_from_s:
            self._swept_s = now_s
            if swept := self._port.sweep():
                self._observer.record(HomesSwept(swept))
        self._take_met()
        self._streams.connect()

    def tell_once(self) -> None:
        """Bits that changed, then the wakes that are due. Raises StoreUnavailable."""
        dirty, self._dirty = self._dirty, set()
        try:
            self._keep(list(dirty))
        except Exception:
            self._dirty |= dirty
            raise
        batches = self._hints.take(self._clock.monotonic_s())
        for (hints, is_busy), users in list(batches.items()):
            head_start_s = BUSY_HEAD_START_S if is_busy else HINT_HEAD_START_S
            try:
                self._schedule.wake(users, head_start_s=head_start_s, hints=hints)
            except Exception:
                self._hints.put_back(batches)
                raise
            del batches[hints, is_busy]

    def _stream_changed(self, user_id: int, is_live: bool) -> None:
        """What happened, or happens, while nobody listens must be caught up with."""
        self._change(user_id, Live.STREAM, is_live, CATCH_UP)

    def _hinted(self, user_id: int, hints: int) -> None:
        self._hints.add(user_id, hints)
        self._news.set()

    def _change(self, user_id: int, bit: Live, on: bool, hints: int) -> None:
        """Bits first, then the wake: the round that it leads to must find them."""
        home = self._homes.get(user_id)
        if home is None or bool(home.live & bit) == on:
            return
        home.live ^= bit
        self._dirty.add(user_id)
        if hints or not on:
            self._hints.add(user_id, hints)
        self._news.set()

    def _tell(self) -> None:
        while True:
            self._news.wait(self._hints.wait_s(self._clock.monotonic_s()))
            self._news.clear()
            try:
                self.tell_once()
            except StoreUnavailable:
                # Nothing is lost: what was not told is told again.
                self._news.set()
                gevent.sleep(RETRY_S)
            except Exception:
                # A home that lives, but tells no hint, would keep its users from being polled.
                logger.exception("hints could not be told")
                self._news.set()
                gevent.sleep(RETRY_S)

    def _tend(self) -> None:
        while True:
            gevent.sleep(TEND_EVERY_S)
            try:
                self.tend_once()
            except StoreUnavailable:
                self._sweep_from_s = self._clock.monotonic_s() + SWEEP_PATIENCE_S
                gevent.sleep(RETRY_S)
            except Exception:
                # The homes of all other users are still to be kept.
                logger.exception("homes could not be looked after")
                gevent.sleep(RETRY_S)

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_EVERY_S)
            self._streams.tick()
            self._observer.record(HomesCounted(len(self._homes)))

    def _take_met(self) -> None:
        if not self._met:
            return
        self._taking, self._met = self._met, set()
        try:
            for user_id in self._port.take(self._taking, self._holder, HOME_LEASE_S):
                self._homes.setdefault(user_id, _Home())
                self._streams.add(user_id)
        finally:
            self._taking = set()

    def _keep(self, user_ids: list[int]) -> None:
        with self._telling:
            live = {user_id: self._homes[user_id].live for user_id in user_ids if user_id in self._homes}
            if not live:
                return
            kept = self._port.keep(live, self._holder, HOME_LEASE_S)
        for user_id in live:
            home = self._homes.get(user_id)
            if home is None:
                continue
            home.unscheduled = home.unscheduled + 1 if user_id in kept.unscheduled else 0
            if user_id in kept.lost or home.unscheduled >= FORGOTTEN_AFTER:
                self._move_out(user_id)

    def _move_out(self, user_id: int) -> None:
        del self._homes[user_id]
        self._dirty.discard(user_id)
        self._hints.forget(user_id)
        self._streams.remove(user_id)
