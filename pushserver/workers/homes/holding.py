"""Holds the private streams of a home's users: opens them within the budget, opens lost ones again, passes on hints."""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import gevent

from pushserver.clock import Clock
from pushserver.errors import CredentialsUnreadable, StoreUnavailable
from pushserver.exchange.private_stream import StreamState
from pushserver.exchange.stream_messages import Happening
from pushserver.exchange.stream_socket import Loss
from pushserver.observers import Observer
from pushserver.stream_records import StreamEnded, StreamHinted, StreamsCounted, StreamStarted
from pushserver.workers.credentials import CredentialsCache
from pushserver.workers.homes.door import Door, Stream
from pushserver.workers.homes.hinting import AccountNews
from pushserver.workers.homes.reconnecting import GOOD_AFTER_S, delay_s

logger = logging.getLogger(__name__)

#: A user without a usable key, or whose key cannot be read now, is looked at again after so long.
NO_KEY_S = 60.0


@dataclass(slots=True)
class _Held:
    """``retry_s``: when the next stream may be opened. ``failures``: streams in a row that were no good."""

    user_id: int
    stream: Stream | None = None
    is_busy: bool = False
    live_since_s: float | None = None
    failures: int = 0
    retry_s: float = 0.0
    news: AccountNews = field(default_factory=AccountNews)


class Streams:
    """``on_live(user_id, is_live)`` and ``on_hints(user_id, bits)`` must not block.

    ``doors`` lead out of one address each; ``door_of(user_id)`` is the number of a user's own. Without doors there
    are no streams.
    """

    def __init__(
        self,
        doors: Sequence[Door],
        door_of: Callable[[int], int],
        credentials: CredentialsCache,
        on_live: Callable[[int, bool], None],
        on_hints: Callable[[int, int], None],
        clock: Clock,
        observer: Observer,
        rng: random.Random,
    ) -> None:
        self._doors = doors
        self._door_of = door_of
        self._credentials = credentials
        self._on_live = on_live
        self._on_hints = on_hints
        self._clock = clock
        self._observer = observer
        self._rng = rng
        self._held: dict[int, _Held] = {}
        self._connect_from_s: dict[int, float] = {}

    def add(self, user_id: int) -> None:
        """Open a stream for this user as soon as may be, and again whenever it is lost, until ``remove``."""
        self._held.setdefault(user_id, _Held(user_id))

    def remove(self, user_id: int) -> None:
        held = self._held.pop(user_id, None)
        if held is not None and held.stream is not None:
            held.stream.close()

    def key_changed(self, user_id: int) -> None:
        """Its stream belongs to a key that is no longer the user's, or there is one at last."""
        held = self._held.get(user_id)
        if held is not None:
            held.failures, held.retry_s = 0, self._clock.monotonic_s()
            if held.stream is not None:
                held.stream.close()

    def close_outdated(self) -> None:
        """A change of key is signalled; a signal may be lost."""
        versions = self._credentials.versions()
        for held in list(self._held.values()):
            if held.stream is not None:
                own = held.stream.key_version
                if versions.get(held.user_id, own) != own:
                    self.key_changed(held.user_id)

    def connect(self) -> None:
        """Begin the connections that are due and can be paid for. Raises StoreUnavailable."""
        now_s = self._clock.monotonic_s()
        waiting: dict[int, list[_Held]] = defaultdict(list)
        for held in self._held.values():
            if self._doors and not held.is_busy and now_s >= held.retry_s:
                waiting[self._door_of(held.user_id)].append(held)
        for number, candidates in waiting.items():
            if now_s < self._connect_from_s.get(number, now_s):
                continue
            granted, wait_s = self._doors[number].may_open(len(candidates))
            self._connect_from_s[number] = now_s + wait_s
            # Who has waited longest goes first; those that are never lucky get their turn this way.
            for held in sorted(candidates, key=lambda held: held.retry_s)[:granted]:
                held.is_busy = True
                gevent.spawn(self._serve, held, self._doors[number])

    def tick(self) -> None:
        """About once a second: pings, silence, figures."""
        states: Counter[str] = Counter()
        for held in list(self._held.values()):
            stream = held.stream
            if stream is None:
                continue
            try:
                stream.tick()
            except Exception:
                # Unpinged and unheard it would seem alive for long; the other streams are to be looked after, too.
                logger.exception("the stream of user %d stumbled", held.user_id)
                stream.close(Loss.BROKEN)
            states[stream.state] += 1
        for state in StreamState:
            if state is not StreamState.OVER:
                self._observer.record(StreamsCounted(state.value, states[state]))

    def _serve(self, held: _Held, door: Door) -> None:
        """One stream of one user, from its beginning to its end."""
        try:
            credentials = self._credentials.get(held.user_id)
        except (StoreUnavailable, CredentialsUnreadable):
            credentials = None
        if credentials is None or self._held.get(held.user_id) is not held:
            held.is_busy, held.retry_s = False, self._clock.monotonic_s() + NO_KEY_S
            return
        self._observer.record(StreamStarted())
        held.stream = stream = door.open(credentials, partial(self._went_live, held), partial(self._happened, held))
        loss = Loss.BROKEN
        try:
            loss = stream.run()
        except Exception:
            # One stream that nobody thought of must not take the others along; its user is polled.
            logger.exception("the stream of user %d crashed", held.user_id)
        finally:
            self._ended(held, loss, stream.refusal)

    def _ended(self, held: _Held, loss: Loss, refusal: str) -> None:
        now_s, since_s = self._clock.monotonic_s(), held.live_since_s
        held.stream, held.is_busy, held.live_since_s = None, False, None
        self._observer.record(StreamEnded(held.user_id, loss.value, refusal))
        if loss is not Loss.STOPPED:
            is_good = since_s is not None and now_s - since_s >= GOOD_AFTER_S
            held.failures = 0 if is_good else held.failures + 1
            held.retry_s = now_s + delay_s(held.failures, loss, self._rng)
        if since_s is not None and self._held.get(held.user_id) is held:
            self._on_live(held.user_id, False)

    def _went_live(self, held: _Held) -> None:
        held.live_since_s = self._clock.monotonic_s()
        held.news = AccountNews()
        if self._held.get(held.user_id) is held:
            self._on_live(held.user_id, True)

    def _happened(self, held: _Held, happening: Happening) -> None:
        hints = held.news.hints(happening)
        self._observer.record(StreamHinted(happening.topic.value, hints != 0))
        if hints and self._held.get(held.user_id) is held:
            self._on_hints(held.user_id, hints)
