"""Looks once a day at what each watched user's key is like: when it ends, and whether it can do more than read.

It runs beside the rounds and has their patience: it checks one key at a time, pays for each request as routine work,
and rests while the budget is short. A key that the exchange refused costs no further request here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gevent

from pushserver.bus.health import HealthStore
from pushserver.bus.key_checks import KeyCheck, KeyChecks
from pushserver.bus.key_counts import KeyCounts
from pushserver.bus.memos import Memos
from pushserver.bus.schedule import spread
from pushserver.clock import Clock
from pushserver.errors import CredentialsUnreadable, ExchangeError, KeyRefused, StoreUnavailable
from pushserver.feeds.key_health import AccountHealth, health_of, refused
from pushserver.model import Credentials, DataType
from pushserver.observers import KeyChecked, KeysCounted, KeysTooMighty, Observer
from pushserver.workers.asking import Silenced, Urgency
from pushserver.workers.memo import Memo
from pushserver.workers.round_state import Tools
from pushserver.workers.statuses import FALLBACK_MESSAGE, MESSAGES

logger = logging.getLogger(__name__)

#: Between looks; so many keys at most are checked in one.
TICK_S = 1.0
AT_ONCE = 2
DAY_S = 86_400.0
#: A key that is new to us is checked within so long, each user at a time of the own.
FIRST_WITHIN_S = 300.0
#: After a check that gave no answer.
AGAIN_S = 3_600.0
#: How long one check may take, and how long one that was begun keeps others from it.
DEADLINE_S = 8.0
LEASE_S = 60.0
#: Keys this process has placed are placed again after so long, in case Redis lost them.
FORGET_PLACED_S = 600.0
COUNT_EVERY_S = 30.0


class KeyQuestions(Protocol):
    """See Asking."""

    def pay(self, count: int, urgency: Urgency) -> None: ...

    def key_information(self, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        """Raises Silenced, ExchangeError, StoreUnavailable."""
        ...


class KeysInUse(Protocol):
    """The keys of this process; see CredentialsCache."""

    def versions(self) -> Mapping[int, int]: ...

    def get(self, user_id: int) -> Credentials | None: ...


class Watching(Protocol):
    def watched(self, user_ids: Sequence[int]) -> dict[int, frozenset[DataType]]: ...


@dataclass(frozen=True, slots=True)
class Shelves:
    """What the guardian keeps in Redis."""

    health: HealthStore
    checks: KeyChecks
    counts: KeyCounts
    memos: Memos


class Guardian:
    """``run`` it in a greenlet of its own.

    ``questions_of(user_id)`` is who asks for that user; ``is_short`` tells that requests wait for the budget.
    """

    def __init__(
        self,
        questions_of: Callable[[int], KeyQuestions],
        credentials: KeysInUse,
        states: Watching,
        shelves: Shelves,
        clock: Clock,
        observer: Observer,
        is_short: Callable[[], bool] = lambda: False,
    ) -> None:
        self._questions_of = questions_of
        self._credentials = credentials
        self._states = states
        self._shelves = shelves
        self._clock = clock
        self._observer = observer
        self._is_short = is_short
        self._placed: set[KeyCheck] = set()
        self._placed_since_s = clock.monotonic_s()
        self._counted_s: float | None = None

    def run(self) -> None:
        """For ever; a look that fails is made again."""
        while True:
            gevent.sleep(TICK_S)
            try:
                self.look()
            except StoreUnavailable as error:
                logger.debug("keys are not checked now: %s", error.message)
            except Exception:
                # Whatever a check stumbled over, the rounds and the other keys must not miss their guardian.
                logger.exception("the check of keys failed")

    def look(self) -> None:
        """Place keys that are new, check some that are due, count all. Raises StoreUnavailable."""
        self._place_new()
        if not self._is_short():
            for check in self._shelves.checks.claim(AT_ONCE, LEASE_S):
                self._serve(check)
        self._count()

    def _place_new(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._placed_since_s >= FORGET_PLACED_S:
            self._placed.clear()
            self._placed_since_s = now_s
        in_use = {KeyCheck(user_id, version) for user_id, version in self._credentials.versions().items()}
        new = in_use - self._placed
        if new:
            self._shelves.checks.add({check: FIRST_WITHIN_S * spread(check.user_id) for check in new})
            self._placed |= new

    def _serve(self, check: KeyCheck) -> None:
        next_in_s = self._next_in_s(check)
        if next_in_s is None:
            self._placed.discard(check)
            self._shelves.checks.remove(check)
        else:
            self._shelves.checks.again(check, next_in_s)

    def _next_in_s(self, check: KeyCheck) -> float | None:
        """Check the key unless that is not needed; None when it is in use no more."""
        if not self._states.watched([check.user_id])[check.user_id]:
            return None
        try:
            credentials = self._credentials.get(check.user_id)
        except CredentialsUnreadable:
            return None
        if credentials is None or credentials.version != check.version:
            return None
        left_s = self._known_for_s(check)
        if left_s > 0:
            return left_s
        try:
            health = self._judged(check, credentials)
        except Silenced as silenced:
            return silenced.left_s + FIRST_WITHIN_S * spread(check.user_id)
        if health is None:
            self._observer.record(KeyChecked("failed"))
            return AGAIN_S
        self._observer.record(KeyChecked(health.state.value))
        self._shelves.health.record(check.user_id, check.version, health, self._clock.wall_ms())
        return DAY_S

    def _known_for_s(self, check: KeyCheck) -> float:
        """How long what is stored of this key is still new enough."""
        [stored] = self._shelves.health.read([check.user_id])
        if stored is None or stored.key_version != check.version:
            return 0.0
        age_s = (self._clock.wall_ms() - stored.checked_ms) / 1000
        # A little before its time it is as good as due; a stamp from the future says nothing.
        return DAY_S - age_s if 0 <= age_s < 0.9 * DAY_S else 0.0

    def _judged(self, check: KeyCheck, credentials: Credentials) -> AccountHealth | None:
        """None when the exchange did not say. Raises Silenced, StoreUnavailable."""
        memo = Memo.from_bytes(self._shelves.memos.read([check.user_id])[check.user_id])
        if memo.stop is not None and memo.stop.key_version == check.version:
            # The rounds know already, and try it again themselves once a day.
            return refused(memo.stop.code, MESSAGES.get(memo.stop.code, FALLBACK_MESSAGE))
        try:
            questions = self._questions_of(check.user_id)
            questions.pay(1, Urgency.ROUTINE)
            information = questions.key_information(credentials, self._clock.monotonic_s() + DEADLINE_S)
        except KeyRefused as error:
            return refused(error.code, MESSAGES.get(error.code, FALLBACK_MESSAGE))
        except ExchangeError as error:
            logger.info("a key could not be checked: %s", error.code)
            return None
        health = health_of(information, self._clock.wall_ms() // 1000)
        return health if health.read_only is not None else None

    def _count(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._counted_s is not None and now_s - self._counted_s < COUNT_EVERY_S:
            return
        totals = self._shelves.counts.totals()
        self._counted_s = now_s
        for days_left, keys in totals.by_days_left.items():
            self._observer.record(KeysCounted(days_left, keys))
        self._observer.record(KeysTooMighty("trade", totals.can_trade))
        self._observer.record(KeysTooMighty("withdraw", totals.can_withdraw))


def start_guardian(tools: Tools, redis_client: Any) -> gevent.Greenlet:
    """A running guardian for this process; kill it before the worker ends."""
    shelves = Shelves(HealthStore(redis_client), KeyChecks(redis_client), KeyCounts(redis_client), Memos(redis_client))
    asking = tools.asking
    guardian = Guardian(
        asking.for_user, tools.credentials, tools.states, shelves, tools.clock, tools.observer, lambda: asking.is_short
    )
    return gevent.spawn(guardian.run)
