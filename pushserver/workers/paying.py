"""Pays for requests to the exchange before they are sent: one cashier per process and egress address.

Those who must wait stand in one queue, the most urgent first; what waits at the same moment is paid for in one go.
A payment that cannot be used at once is forfeited, never used late: the exchange counts arrivals.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

import gevent
from gevent.event import AsyncResult, Event

from pushserver.bus.budgets import LONGEST_HORIZON_S, Budget, Grant
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.observers import BudgetMeasured, Observer, PaymentForfeited, RequestsPaid
from pushserver.workers.quiet import PROBED_S, Quiet, Silenced

logger = logging.getLogger(__name__)

#: Payments asked for in one go.
BATCH = 16
#: A payment that waits this long says that the budget is short: better no further users are claimed.
SHORT_S = 0.1
#: After this a payment is given up; the round ends and its user waits in the schedule, where others wait too.
PATIENCE_S = 2.0
#: The same for what is urgent: who gives up loses its place among its like. The rest of the round's time still does.
URGENT_PATIENCE_S = 4.0
#: So long before the answers must be there nobody waits any longer to send.
ANSWERED_IN_S = 1.5
#: Weight of the newest payment in what is known of waiting.
NEWEST = 0.2
#: What a user may spend before others go first: so many requests at once, so many each second.
USER_BURST = 24
USER_RATE_PER_S = 8.0
USERS_REMEMBERED = 5_000


class Urgency(IntEnum):
    """The lower, the sooner."""

    #: Somebody has just opened a screen.
    NEW_WATCHER = 0
    #: The account has changed, says its stream. Or the rest of what a round began. One after the other: where many
    #: accounts change at once (a price at which many had orders), all are shown before the first one's pnl is counted.
    HINT = 1
    ROUTINE = 2
    #: A user who has had more than a fair share.
    EXCESSIVE = 3


#: How far ahead each may reserve where all is spent: the urgent pass the others of every process so.
HORIZONS_S = {
    Urgency.NEW_WATCHER: 0.4,
    Urgency.HINT: 0.25,
    Urgency.ROUTINE: 0.1,
    Urgency.EXCESSIVE: 0.1,
}


class ProbeWanted(Exception):
    """The pause is over and the caller alone may find out whether it really is, with one request that is paid for."""

    def __init__(self, until_ms: int, code: str) -> None:
        super().__init__(code)
        self.until_ms = until_ms
        self.code = code


@dataclass(slots=True, order=True)
class _Payment:
    urgency: Urgency
    number: int
    count: int = field(compare=False)
    asked_s: float = field(compare=False)
    may_probe: bool = field(compare=False)
    #: ``(from_s, until_s)``, or the exception for the one who waits.
    answer: AsyncResult = field(compare=False, default_factory=AsyncResult)
    given_up: bool = field(compare=False, default=False)


class Cashier:
    """``pay`` before sending. ``is_short`` tells that payments wait; ``room`` how many requests could be paid soon."""

    def __init__(self, budget: Budget, clock: Clock, observer: Observer, rng: random.Random | None = None) -> None:
        self.budget = budget
        self._clock = clock
        self._observer = observer
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._waiting: list[_Payment] = []
        self._asked: list[_Payment] = []
        self._payments = 0
        self._settling = False
        self._more_urgent = Event()
        self._closed_until_s = 0.0
        self._recent_wait_s = 0.0
        self.quiet = Quiet(clock)
        self._users = _Shares(clock)

    def pay(
        self,
        count: int,
        urgency: Urgency,
        user_id: int = 0,
        *,
        may_probe: bool = False,
        deadline_s: float = math.inf,
    ) -> float:
        """Wait until ``count`` requests may be sent; returns the monotonic instant until which they may.

        ``user_id`` 0 is nobody's. ``deadline_s``: the monotonic instant at which their answers must be there.

        Raises:
            Silenced: our address is paused, or the budget is too short for this payment now; nothing may be sent.
            ProbeWanted: only if ``may_probe``; nothing but the probe may be sent.
            StoreUnavailable: the budget cannot be asked, so nothing may be sent.
        """
        if user_id and not self._users.take(user_id, count):
            urgency = Urgency.EXCESSIVE
        asked_s = self._clock.monotonic_s()
        while True:
            self.quiet.check()
            payment = self._ask_for(count, urgency, asked_s, may_probe)
            from_s, until_s = self._answer(payment, deadline_s)
            now_s = self._clock.monotonic_s()
            if now_s < from_s:
                self._clock.sleep(from_s - now_s)
                now_s = self._clock.monotonic_s()
            if now_s <= until_s:
                self.quiet.check()
                self._recent_wait_s += NEWEST * (now_s - asked_s - self._recent_wait_s)
                self._observer.record(RequestsPaid(count, now_s - asked_s))
                return until_s
            self._observer.record(PaymentForfeited(count))

    def pay_following(self, count: int) -> None:
        """For further pages and whatever else a request turns out to need. Raises Silenced and StoreUnavailable."""
        for _ in range(count):
            self.pay(1, Urgency.HINT)

    @property
    def is_short(self) -> bool:
        """Further users had better wait in the schedule, where the longest overdue goes first."""
        now_s = self._clock.monotonic_s()
        oldest_s = min((payment.asked_s for payment in [*self._asked, *self._waiting]), default=now_s)
        return now_s - oldest_s > SHORT_S or now_s < self._closed_until_s

    @property
    def room(self) -> int:
        """Requests that could be paid for soon; few when others behind the address want them as much as we do.

        Never 0 while nobody waits, or nothing would ever be found to have changed.
        """
        waiting = sum(payment.count for payment in [*self._asked, *self._waiting])
        spare = max(0.0, 1.0 - self._recent_wait_s / SHORT_S) * (self.budget.burst + self.budget.rate_per_s * SHORT_S)
        return max(0 if waiting else 1, round(spare) - waiting)

    def look(self) -> BudgetMeasured:
        """How things stand, for the metrics and before the first user is claimed. Raises StoreUnavailable."""
        grant = self.budget.spend(known_pause=self.quiet.known())
        self._note(grant)
        return BudgetMeasured(max(0.0, 1.0 - grant.used_share), self.is_short, grant.gate.verdict != "open")

    def _ask_for(self, count: int, urgency: Urgency, asked_s: float, may_probe: bool) -> _Payment:
        self._payments += 1
        payment = _Payment(urgency, self._payments, count, asked_s, may_probe)
        if self._waiting and urgency < self._waiting[0].urgency:
            self._more_urgent.set()
        heapq.heappush(self._waiting, payment)
        if not self._settling:
            self._settling = True
            gevent.spawn(self._settle)
        return payment

    def _answer(self, payment: _Payment, deadline_s: float) -> tuple[float, float]:
        patience_s = URGENT_PATIENCE_S if payment.urgency < Urgency.ROUTINE else PATIENCE_S
        now_s = self._clock.monotonic_s()
        # What would be paid for too late to be answered is left to others.
        left_s = min(payment.asked_s + patience_s - now_s, max(SHORT_S, deadline_s - ANSWERED_IN_S - now_s))
        try:
            answer: tuple[float, float] = payment.answer.get(timeout=max(0.0, left_s))
        except gevent.Timeout:
            # The rest of the round's time would not do for its requests.
            self._give_up(payment)
            until_ms = self._clock.wall_ms() + round(SHORT_S * 1000)
            raise Silenced(SHORT_S, until_ms, StoreUnavailable.code, is_crowd=True) from None
        except gevent.GreenletExit:
            self._give_up(payment)
            raise
        return answer

    def _give_up(self, payment: _Payment) -> None:
        payment.given_up = True
        if payment in self._waiting:
            self._waiting.remove(payment)
            heapq.heapify(self._waiting)

    def _settle(self) -> None:
        """Until nobody waits."""
        try:
            while self._waiting:
                wait_s = self._settle_some()
                if self._waiting and wait_s > 0:
                    self._more_urgent.clear()
                    # Not all processes at the same moment.
                    self._more_urgent.wait(wait_s + self._rng.random() / self.budget.rate_per_s)
        except Exception:
            # Whatever nobody thought of is reported, and those who wait are told.
            logger.exception("paying for requests failed")
        finally:
            # Nobody may be left waiting for a cashier that is gone; the next payment starts anew.
            self._settling = False
            self._fail_all(lambda: StoreUnavailable("payments were interrupted"))

    def _settle_some(self) -> float:
        """Pay for the most urgent kind; returns how long the rest must wait."""
        urgency = self._waiting[0].urgency
        batch = self._asked
        while self._waiting and self._waiting[0].urgency == urgency and len(batch) < BATCH:
            batch.append(heapq.heappop(self._waiting))
        try:
            grant = self.budget.spend(
                *(payment.count for payment in batch),
                horizon_s=HORIZONS_S[urgency],
                may_probe=any(payment.may_probe for payment in batch),
                known_pause=self.quiet.known(),
            )
        except StoreUnavailable as failure:
            message = failure.message
            self._fail_all(lambda: StoreUnavailable(message))
            return 0.0
        self._asked = []
        self._note(grant)
        if grant.gate.verdict != "open":
            self._refuse(batch, grant)
            return 0.0
        for payment, usable in zip(batch, grant.usable, strict=False):
            payment.answer.set(usable)
            if payment.given_up:
                self._observer.record(PaymentForfeited(payment.count))
        for payment in batch[len(grant.usable) :]:
            if not payment.given_up:
                heapq.heappush(self._waiting, payment)
        return grant.wait_s

    def _refuse(self, batch: list[_Payment], grant: Grant) -> None:
        gate, left_s = grant.gate, grant.gate.left_s
        if gate.verdict == "probe":
            prober = next(payment for payment in batch if payment.may_probe)
            batch.remove(prober)
            prober.answer.set_exception(ProbeWanted(gate.until_ms, gate.code))
            left_s = PROBED_S
        else:
            self.quiet.learn(gate)
        for payment in batch:
            payment.answer.set_exception(Silenced(left_s, gate.until_ms, gate.code))
        self._fail_all(lambda: Silenced(left_s, gate.until_ms, gate.code))

    def _fail_all(self, error: Callable[[], Exception]) -> None:
        waiting, self._waiting, self._asked = [*self._asked, *self._waiting], [], []
        for payment in waiting:
            payment.answer.set_exception(error())

    def _note(self, grant: Grant) -> None:
        # Only an unknown budget is closed for longer than anybody can have reserved.
        is_closed = grant.gate.verdict == "open" and grant.wait_s > LONGEST_HORIZON_S
        self._closed_until_s = self._clock.monotonic_s() + grant.wait_s if is_closed else 0.0


class _Shares:
    """Who has had more than ``USER_BURST`` requests, and ``USER_RATE_PER_S`` each second, in this process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._had_until_s: dict[int, float] = {}

    def take(self, user_id: int, count: int) -> bool:
        now_s = self._clock.monotonic_s()
        had_until_s = max(now_s, self._had_until_s.get(user_id, now_s)) + count / USER_RATE_PER_S
        is_fair = had_until_s <= now_s + USER_BURST / USER_RATE_PER_S
        # What goes beyond is not held against the user later on: it was paid for with waiting.
        self._had_until_s[user_id] = min(had_until_s, now_s + USER_BURST / USER_RATE_PER_S)
        if len(self._had_until_s) > USERS_REMEMBERED:
            self._had_until_s = {user: until_s for user, until_s in self._had_until_s.items() if until_s > now_s}
        return is_fair
