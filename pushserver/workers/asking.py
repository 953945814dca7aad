"""One user's requests to the exchange: paid for, sent at once, and never longer under way than allowed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pushserver.bus.pauses import Pauses
from pushserver.clock import Clock
from pushserver.errors import AddressBanned, AnswerMalformed, ExchangeUnavailable
from pushserver.exchange.port import Answer, Exchange
from pushserver.feeds.pnl import INVERSE
from pushserver.model import Credentials
from pushserver.observers import BudgetMeasured, Observer
from pushserver.workers.memo import Resource
from pushserver.workers.paying import Cashier, ProbeWanted, Urgency
from pushserver.workers.quiet import Silenced
from pushserver.workers.silence import Silence

__all__ = ["Asking", "Desk", "Silenced", "Urgency", "open_desk"]

#: An answer stamped so far ahead of us would block every later one.
MOST_AHEAD_MS = 5_000


@dataclass(frozen=True, slots=True)
class Desk:
    """What belongs to one egress address."""

    exchange: Exchange
    cashier: Cashier
    silence: Silence


@dataclass(frozen=True, slots=True)
class BudgetsSeen:
    """``tightest``: the worst of every address. ``used`` of ``limit`` requests were sent in the last window, by all
    addresses and processes together."""

    tightest: BudgetMeasured
    limit: int
    used: float


def open_desk(exchange: Exchange, pauses: Pauses, cashier: Cashier, clock: Clock, observer: Observer) -> Desk:
    return Desk(exchange, cashier, Silence(exchange, pauses, cashier, clock, observer))


class Asking:
    """``for_user`` gives each round its own, which pays and sends at the desk of that user's egress address.

    ``pick`` tells the index of a user's desk.
    """

    def __init__(
        self,
        desks: Sequence[Desk],
        clock: Clock,
        pick: Callable[[int], int] = lambda _: 0,
        user_id: int = 0,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self._desks = desks
        self._pick = pick
        self._desk = desks[pick(user_id)]
        self._clock = clock
        self._user_id = user_id
        self._now_ms = now_ms or clock.wall_ms
        self._paid = 0
        self._paid_until_s = 0.0
        self.requests_paid = 0

    def for_user(self, user_id: int, now_ms: Callable[[], int] | None = None) -> Asking:
        """``now_ms``: the time all processes share, by which stamps are judged also where our clock is behind."""
        return Asking(self._desks, self._clock, self._pick, user_id, now_ms)

    @property
    def is_short(self) -> bool:
        """Requests wait for every budget there is: further users had better wait in the schedule."""
        return all(desk.cashier.is_short for desk in self._desks)

    @property
    def room(self) -> int:
        """Requests that could be paid for soon."""
        return sum(desk.cashier.room for desk in self._desks)

    @property
    def in_flight(self) -> int:
        """Requests that wait for the exchange's answer."""
        return sum(desk.exchange.in_flight for desk in self._desks)

    def look(self) -> BudgetsSeen:
        """How the budgets stand. Raises StoreUnavailable."""
        seen = [desk.cashier.look() for desk in self._desks]
        limits = [desk.cashier.budget.per_window for desk in self._desks]
        used = sum((1 - each.headroom) * limit for each, limit in zip(seen, limits, strict=True))
        tightest = BudgetMeasured(
            min(each.headroom for each in seen),
            any(each.is_short for each in seen),
            any(each.is_paused for each in seen),
        )
        return BudgetsSeen(tightest, sum(limits), used)

    def pay(self, count: int, urgency: Urgency, deadline_s: float = math.inf) -> None:
        """Wait until ``count`` requests may be sent; they must be sent at once then, and answered by ``deadline_s``.

        What a round pays for after its first payment goes before routine work.

        Raises:
            Silenced: our address is paused, or the budget is short; nothing may be sent.
            StoreUnavailable: the budget cannot be asked.
        """
        if self.requests_paid:
            urgency = min(urgency, Urgency.HINT)
        cashier = self._desk.cashier
        try:
            until_s = cashier.pay(count, urgency, self._user_id, may_probe=True, deadline_s=deadline_s)
        except ProbeWanted as wanted:
            self._desk.silence.probe(wanted)
            until_s = cashier.pay(count, urgency, self._user_id, deadline_s=deadline_s)
        self._paid, self._paid_until_s = count, until_s
        self.requests_paid += count

    def ask(self, resource: Resource, credentials: Credentials, since_ms: int, deadline_s: float) -> Answer:
        """The rows of one resource; closed pnl since ``since_ms``. ``deadline_s`` is an instant of the monotonic clock.

        Raises:
            Silenced: our address is paused; no request was sent, or its answer was the ban.
            ExchangeError: any other failure of the request.
            StoreUnavailable: the budget cannot be asked, so nothing was asked.
        """
        self._show_payment()
        try:
            answer = self._send(resource, credentials, since_ms, deadline_s)
        except AddressBanned as error:
            raise self._desk.silence.refused(error, signed=True) from error
        if answer.as_of_ms > max(self._clock.wall_ms(), self._now_ms()) + MOST_AHEAD_MS:
            raise AnswerMalformed("the answer is stamped ahead of our time", endpoint=resource.value)
        return answer

    def inverse_marks(self, deadline_s: float) -> Mapping[str, Decimal]:
        """Mark prices of all inverse contracts, in one public request. Raises as ``ask`` does."""
        self._show_payment()
        try:
            return self._desk.exchange.mark_prices(INVERSE, deadline_s, self._show_payment)
        except AddressBanned as error:
            raise self._desk.silence.refused(error, signed=False) from error

    def key_information(self, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        """What the exchange says of a key; paid for as routine work. Raises as ``ask`` does."""
        self._show_payment()
        try:
            return self._desk.exchange.key_information(credentials, deadline_s, self._show_payment)
        except AddressBanned as error:
            raise self._desk.silence.refused(error, signed=True) from error

    def _send(self, resource: Resource, credentials: Credentials, since_ms: int, deadline_s: float) -> Answer:
        exchange = self._desk.exchange
        if deadline_s <= self._clock.monotonic_s():
            raise ExchangeUnavailable("the round's time was used up", endpoint=resource.value)
        if resource is Resource.POSITIONS:
            return exchange.positions(credentials, deadline_s, self._show_payment)
        if resource is Resource.WALLET:
            return exchange.wallet(credentials, deadline_s, self._show_payment)
        if resource is Resource.CLOSED_PNL:
            return exchange.closed_pnl(credentials, since_ms, deadline_s, self._show_payment)
        return exchange.open_orders(credentials, deadline_s, self._show_payment)

    def _show_payment(self) -> None:
        """Each request uses up one that was paid for; without one that is still good it is paid for now."""
        if not self._paid or self._clock.monotonic_s() > self._paid_until_s:
            self.pay(1, Urgency.ROUTINE)
        self._paid -= 1
        # Another greenlet of ours may have met a ban since the payment.
        self._desk.cashier.quiet.check()
