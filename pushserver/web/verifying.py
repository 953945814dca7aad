"""Asks the exchange about a key: by the egress address of its user, out of that address's budget, behind its pauses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gevent

from pushserver.bus.budgets import Budget
from pushserver.bus.pauses import Pauses
from pushserver.clock import Clock
from pushserver.errors import AddressBanned, ExchangeUnavailable, RateLimited, RequestRejected
from pushserver.model import Credentials
from pushserver.observers import AddressPaused, Observer

#: What the exchange wants after a 403 that names no time.
SILENCE_S = 600.0
#: How far ahead a request may be reserved, and the shortest pause between two looks at a spent budget.
HORIZON_S, STEP_S = 0.4, 0.05
#: Left for the request itself once it is paid for.
ANSWER_S = 1.0


class KeyQuestions(Protocol):
    def key_information(
        self, credentials: Credentials, deadline_s: float, pay: Callable[[], None]
    ) -> Mapping[str, Any]: ...

    def server_time_ms(self, deadline_s: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What belongs to one egress address."""

    exchange: KeyQuestions
    budget: Budget
    pauses: Pauses


class PaidVerifier:
    """During a ban no key is verified: one more request would only prolong it. A ban met here is everybody's.

    ``pick`` tells the index of a user's desk.
    """

    def __init__(self, desks: Sequence[Desk], pick: Callable[[int], int], clock: Clock, observer: Observer) -> None:
        self._desks = desks
        self._pick = pick
        self._clock = clock
        self._observer = observer

    def key_information(self, user_id: int, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        """The exchange's description of a key; ``deadline_s`` is an instant of the monotonic clock.

        Raises:
            ExchangeError: KeyRefused for a bad key, AddressBanned while our address is paused, RateLimited when the
                budget has nothing left in time.
            StoreUnavailable: it cannot be known whether we may ask.
        """
        desk = self._desks[self._pick(user_id)]
        self._pay(desk, deadline_s)
        try:
            return desk.exchange.key_information(credentials, deadline_s, lambda: self._pay(desk, deadline_s))
        except AddressBanned as error:
            raise self._judged(desk, error, deadline_s) from error

    def _pay(self, desk: Desk, deadline_s: float) -> None:
        """Wait until one request may be sent."""
        while True:
            grant = desk.budget.spend(1, horizon_s=HORIZON_S)
            if grant.gate.verdict != "open":
                # The probe that ends a pause is the push workers' business; its slot comes free by itself.
                raise AddressBanned("the exchange pauses requests from this server", retry_after_s=grant.gate.left_s)
            now_s = self._clock.monotonic_s()
            if grant.usable:
                gevent.sleep(max(0.0, grant.usable[0][0] - now_s))
                return
            left_s = deadline_s - ANSWER_S - now_s
            if left_s <= 0:
                raise RateLimited("The server has no request left for this at the moment; try again in a few seconds.")
            gevent.sleep(min(max(grant.wait_s, STEP_S), left_s))

    def _judged(self, desk: Desk, error: AddressBanned, deadline_s: float) -> Exception:
        """A signed request was turned away: only when a public one is too is it the whole address."""
        self._pay(desk, deadline_s)
        try:
            desk.exchange.server_time_ms(deadline_s)
        except AddressBanned:
            seconds = error.retry_after_s if error.retry_after_s is not None else SILENCE_S
            if desk.pauses.pause(seconds, error.code):
                self._observer.record(AddressPaused(error.code, seconds))
            return error
        except ExchangeUnavailable:
            return error
        return RequestRejected("The exchange turns requests with this key away.", exchange_code=error.exchange_code)
