"""Keeps the figures of this process's homes at the market: once a second, from the last answers and the ticker.

It costs the exchange nothing. The users are spread over the second, so that neither this process nor Redis sees a
burst. What cannot be kept at the market is said to the keeper, which has it polled instead.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from typing import Protocol

import gevent

from pushserver.bus.bases import Bases, channel, parse_message
from pushserver.bus.ears import Ears
from pushserver.bus.homes import Live
from pushserver.bus.schedule import spread
from pushserver.bus.states import MarkCommit, States
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.mark_records import MarksCommitted, MarksMeasured
from pushserver.model import DataType
from pushserver.observers import Observer
from pushserver.workers.kept_figures import KeptFigures
from pushserver.workers.marking import Book

logger = logging.getLogger(__name__)

#: Visits per second, each to a share of the users; so everybody is visited once a second.
SHARES = 10
#: Users per round trip to Redis.
BATCH = 100
#: How often homes, channels and symbols are brought up to date.
SYNC_EVERY_S = 0.5
SUBSCRIBE_TIMEOUT_S = 2.0
RETRY_S = 0.3


class Prices(Protocol):
    """The ticker, as ``exchange.ticker_stream.TickerFeed`` offers it."""

    def want(self, symbols: Iterable[str]) -> None: ...

    def mark(self, symbol: str) -> tuple[Decimal, int] | None: ...

    def is_fresh(self, symbol: str) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Homes(Protocol):
    """The users kept by this process, as ``workers.homes.keeper.Keeper`` offers them."""

    def homes(self) -> Collection[int]: ...

    def set_live(self, user_id: int, bit: Live, on: bool) -> None: ...


class Marks:
    """``start`` and ``stop`` once each, for ``prices`` too.

    ``listener`` is set by the composition root: each of the two needs the other. ``look_at(user_ids)`` has rounds look
    at users to whom nobody seems to listen; it may raise StoreUnavailable.
    """

    listener: Ears

    def __init__(
        self,
        prices: Prices,
        homes: Homes,
        states: States,
        bases: Bases,
        look_at: Callable[[Sequence[int]], None],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._prices = prices
        self._homes = homes
        self._states = states
        self._bases = bases
        self._look_at = look_at
        self._clock = clock
        self._observer = observer
        self._kept: dict[int, KeptFigures] = {}
        self._shares: tuple[set[int], ...] = tuple(set() for _ in range(SHARES))
        self._seen: dict[str, tuple[Decimal, int] | None] = {}
        self._unheard: set[int] = set()
        self._results: Counter[tuple[DataType, str]] = Counter()
        self._busy_s = self._behind_s = 0.0
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        self._prices.start()
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._sync)]

    def stop(self) -> None:
        gevent.killall(self._greenlets, timeout=1.0)
        self._prices.stop()

    def on_message(self, heard_on: bytes, payload: bytes) -> None:
        """A message of the bus; what is no base is passed over."""
        message = parse_message(heard_on, payload)
        if message is not None:
            user_id, data_type, raw = message
            if (kept := self._kept.get(user_id)) is not None:
                kept.take(data_type, raw)

    def on_restored(self) -> None:
        """The bus was lost: bases may have been missed."""
        for kept in self._kept.values():
            kept.must_read = True

    def sync_once(self) -> None:
        """Follow the homes: their channels, their bases, their symbols. Raises StoreUnavailable."""
        homes = frozenset(self._homes.homes())
        gone, new = self._kept.keys() - homes, homes - self._kept.keys()
        for user_id in gone:
            del self._kept[user_id]
            self._share(user_id).discard(user_id)
        self.listener.unsubscribe([channel(user_id) for user_id in gone])
        for user_id in new:
            self._kept[user_id] = KeptFigures(user_id)
            self._share(user_id).add(user_id)
        if new:
            # What comes later than this comes with a call of on_restored.
            self.listener.subscribe([channel(user_id) for user_id in new], SUBSCRIBE_TIMEOUT_S)
        self._read([user_id for user_id, kept in self._kept.items() if kept.must_read])
        self._prices.want(frozenset().union(*(kept.book.symbols for kept in self._kept.values())))
        unheard, self._unheard = self._unheard & self._kept.keys(), set()
        if unheard:
            self._look_at(sorted(unheard))

    def visit(self, share: int) -> None:
        """Bring one share of the users to the market."""
        began_s = self._clock.monotonic_s()
        self._seen.clear()
        wanted: list[MarkCommit] = []
        for user_id in list(self._shares[share]):
            commit = self._at_the_market(self._kept[user_id], began_s)
            if commit is not None:
                wanted.append(commit)
        self._busy_s += self._clock.monotonic_s() - began_s
        for start in range(0, len(wanted), BATCH):
            self._commit(wanted[start : start + BATCH])

    def measure(self) -> None:
        """Report what was done since this was last called."""
        results, self._results = self._results, Counter()
        for (data_type, result), states in results.items():
            self._observer.record(MarksCommitted(data_type, result, states))
        users = sum(kept.is_at_the_market for kept in self._kept.values())
        self._observer.record(MarksMeasured(users, self._busy_s, self._behind_s))
        self._busy_s = self._behind_s = 0.0

    def _run(self) -> None:
        due_s, number = self._clock.monotonic_s(), 0
        while True:
            self._behind_s = max(self._behind_s, self._clock.monotonic_s() - due_s)
            self.visit(number % SHARES)
            number += 1
            if number % SHARES == 0:
                self.measure()
            # Who is far behind does not hurry to catch up: the newest prices are all that counts.
            now_s = self._clock.monotonic_s()
            due_s = max(due_s + 1 / SHARES, now_s - 1.0)
            gevent.sleep(max(0.0, due_s - now_s))

    def _sync(self) -> None:
        while True:
            gevent.sleep(SYNC_EVERY_S)
            try:
                self.sync_once()
            except StoreUnavailable:
                gevent.sleep(RETRY_S)
            except Exception:
                # The users of tomorrow need it as well.
                logger.exception("the bases of figures could not be brought up to date")
                gevent.sleep(RETRY_S)

    def _share(self, user_id: int) -> set[int]:
        return self._shares[int(spread(user_id) * SHARES)]

    def _read(self, user_ids: list[int]) -> None:
        for start in range(0, len(user_ids), BATCH):
            batch = user_ids[start : start + BATCH]
            for user_id in batch:
                self._kept[user_id].must_read = False
            try:
                stored = self._bases.read(batch)
            except StoreUnavailable:
                self.on_restored()
                raise
            for user_id, bases in stored.items():
                for data_type, raw in bases.items():
                    self._kept[user_id].take(data_type, raw)

    def _at_the_market(self, kept: KeptFigures, now_s: float) -> MarkCommit | None:
        """What is to be committed, if anything."""
        try:
            marks, as_of_ms = self._marks(kept.book.symbols)
            self._tell(kept, marks is not None, now_s)
            states = kept.states_at(marks or {}, as_of_ms, self._clock.wall_ms())
            return MarkCommit(kept.user_id, as_of_ms, states) if states else None
        except Exception:
            # One user's figures must not take the others' along: this user is polled then.
            logger.exception("the figures of user %d could not be recomputed", kept.user_id)
            kept.book = Book()
            self._tell(kept, False, now_s)
            return None

    def _tell(self, kept: KeptFigures, is_fresh: bool, now_s: float) -> None:
        live = kept.live(is_fresh, now_s)
        if live is not None:
            self._homes.set_live(kept.user_id, Live.MARKS, Live.MARKS in live)
            self._homes.set_live(kept.user_id, Live.BALANCE, Live.BALANCE in live)

    def _marks(self, symbols: Iterable[str]) -> tuple[dict[str, Decimal] | None, int]:
        """The marks and the newest stamp among them; None when one of them does not follow the market."""
        marks, as_of_ms = {}, 0
        for symbol in symbols:
            if symbol not in self._seen:
                self._seen[symbol] = self._prices.mark(symbol) if self._prices.is_fresh(symbol) else None
            seen = self._seen[symbol]
            if seen is None:
                return None, 0
            marks[symbol] = seen[0]
            as_of_ms = max(as_of_ms, seen[1])
        return marks, as_of_ms

    def _commit(self, commits: list[MarkCommit]) -> None:
        try:
            answers = self._states.commit_marks(commits)
        except StoreUnavailable:
            # Tried again with the prices of the next second.
            for commit in commits:
                if (kept := self._kept.get(commit.user_id)) is not None:
                    kept.marks = None
            return
        except Exception:
            # Figures that stand still must not pass for kept: these users are polled.
            logger.exception("the figures of %d users could not be committed", len(commits))
            for commit in commits:
                if (kept := self._kept.get(commit.user_id)) is not None:
                    kept.marks, kept.refused = None, True
            return
        for commit, results in zip(commits, answers, strict=True):
            kept = self._kept.get(commit.user_id)
            for state, done in zip(commit.states, results, strict=True):
                self._results[state.data_type, done.result] += 1
                if kept is not None and not kept.learn(state, done):
                    self._unheard.add(commit.user_id)
