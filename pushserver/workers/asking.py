"""One request to the exchange: behind the gate all processes of this address share, and never longer than allowed."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pushserver.bus.pauses import Pauses
from pushserver.clock import Clock
from pushserver.errors import AddressBanned, AnswerMalformed, ExchangeError, ExchangeUnavailable
from pushserver.exchange.port import Answer, Exchange
from pushserver.feeds.pnl import INVERSE
from pushserver.model import Credentials
from pushserver.observers import AddressPaused, Observer
from pushserver.workers.memo import Resource
from pushserver.workers.paying import Urgency

#: What the exchange wants after a 403 that names no time.
SILENCE_S = 600.0
#: The pause between two probes when the exchange could not be reached at all.
PROBE_AGAIN_S = 5.0
PROBE_DEADLINE_S = 5.0
#: An answer stamped so far ahead of us would block every later one.
MOST_AHEAD_MS = 5_000


class Silenced(Exception):
    """Nothing may be asked from this address for ``left_s``: expected, hence no failure of the user."""

    def __init__(self, left_s: float, until_ms: int, code: str) -> None:
        super().__init__(code)
        self.left_s = left_s
        self.until_ms = until_ms
        self.code = code


class Asking:
    def __init__(self, exchange: Exchange, pauses: Pauses, clock: Clock, observer: Observer) -> None:
        self._exchange = exchange
        self._pauses = pauses
        self._clock = clock
        self._observer = observer
        self._silent_until_s = 0.0
        self._silent_code = ""

    def pay(self, count: int, urgency: Urgency) -> None:
        """Wait until ``count`` requests may be sent; they must be sent at once then.

        Raises:
            Silenced: our address is paused, or the budget is short; nothing may be sent.
            StoreUnavailable: the budget cannot be asked.
        """
        self._pass_gate()

    def ask(self, resource: Resource, credentials: Credentials, since_ms: int, deadline_s: float) -> Answer:
        """The rows of one resource; closed pnl since ``since_ms``. ``deadline_s`` is an instant of the monotonic clock.

        Raises:
            Silenced: our address is paused; no request was sent, or its answer was the ban.
            ExchangeError: any other failure of the request.
            StoreUnavailable: the gate cannot be read, so nothing was asked.
        """
        self._pass_gate()
        try:
            answer = self._send(resource, credentials, since_ms, deadline_s)
        except AddressBanned as error:
            raise self._silence(error) from error
        if answer.as_of_ms > self._clock.wall_ms() + MOST_AHEAD_MS:
            raise AnswerMalformed("the answer is stamped ahead of our time", endpoint=resource.value)
        return answer

    def inverse_marks(self, deadline_s: float) -> Mapping[str, Decimal]:
        """Mark prices of all inverse contracts, in one public request. Raises as ``ask`` does."""
        self._pass_gate()
        try:
            return self._exchange.mark_prices(INVERSE, deadline_s)
        except AddressBanned as error:
            raise self._silence(error) from error

    def key_information(self, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        """What the exchange says of a key; paid for as routine work. Raises as ``ask`` does."""
        self.pay(1, Urgency.ROUTINE)
        try:
            return self._exchange.key_information(credentials, deadline_s)
        except AddressBanned as error:
            raise self._silence(error) from error

    def _send(self, resource: Resource, credentials: Credentials, since_ms: int, deadline_s: float) -> Answer:
        if deadline_s <= self._clock.monotonic_s():
            raise ExchangeUnavailable("the round's time was used up", endpoint=resource.value)
        if resource is Resource.POSITIONS:
            return self._exchange.positions(credentials, deadline_s)
        if resource is Resource.WALLET:
            return self._exchange.wallet(credentials, deadline_s)
        if resource is Resource.CLOSED_PNL:
            return self._exchange.closed_pnl(credentials, since_ms, deadline_s)
        return self._exchange.open_orders(credentials, deadline_s)

    def _pass_gate(self) -> None:
        gate = self._pauses.gate()
        if gate.verdict == "paused":
            raise Silenced(gate.left_s, gate.until_ms, gate.code)
        if gate.verdict == "probe":
            self._probe(gate.until_ms, gate.code)
        # Another greenlet of ours may have met the ban while we waited for the gate's answer.
        left_s = self._silent_until_s - self._clock.monotonic_s()
        if left_s > 0:
            raise Silenced(left_s, self._clock.wall_ms() + round(left_s * 1000), self._silent_code)

    def _probe(self, until_ms: int, code: str) -> None:
        """One public request by one process: only its success lets the others resume."""
        try:
            self._exchange.server_time_ms(self._clock.monotonic_s() + PROBE_DEADLINE_S)
        except AddressBanned as error:
            raise self._silence(error) from error
        except ExchangeError as error:
            raise Silenced(PROBE_AGAIN_S, until_ms, code) from error
        self._silent_until_s = 0.0
        self._pauses.clear()

    def _silence(self, error: AddressBanned) -> Silenced:
        seconds = error.retry_after_s if error.retry_after_s is not None else SILENCE_S
        # First for ourselves, at once; then for everybody, which takes a round trip.
        self._silent_until_s, self._silent_code = self._clock.monotonic_s() + seconds, error.code
        if self._pauses.pause(seconds, error.code):
            self._observer.record(AddressPaused(error.code, seconds))
        gate = self._pauses.gate()
        if gate.verdict == "paused":
            return Silenced(gate.left_s, gate.until_ms, gate.code)
        return Silenced(seconds, self._clock.wall_ms() + round(seconds * 1000), error.code)
