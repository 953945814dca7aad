"""What the rest of the program may ask of an exchange, and what it may rely on.

Every call is one attempt with a deadline. It returns a complete answer or raises; a half-read page set is never
returned. ``deadline_s`` is an instant of ``Clock.monotonic_s()`` by which the whole call ends, all pages and the one
permitted retry included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from pushserver.model import Credentials


class Endpoint(StrEnum):
    """What is asked, as the closed set of labels for metrics, budgets and errors."""

    WALLET = "wallet_balance"
    POSITIONS = "positions"
    CLOSED_PNL = "closed_pnl"
    OPEN_ORDERS = "open_orders"
    KEY_INFORMATION = "key_information"
    SERVER_TIME = "server_time"
    TICKERS = "tickers"


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of one question, as the exchange sent them (JSON numbers may be any of its types).

    ``as_of_ms`` is the exchange's own stamp of the oldest page read; ``requests`` counts the HTTP requests it took.
    ``remaining``: how many more requests the exchange would take from this user at this endpoint, None when it does
    not say; ``resets_in_s``: when it takes some again, for an answer with none remaining.
    """

    rows: tuple[Mapping[str, Any], ...]
    as_of_ms: int
    requests: int
    remaining: int | None = None
    resets_in_s: float = 0.0


#: Called before each request beyond the first of a call, and before one that had to wait for a connection; may wait.
#: What it raises ends the call, as it is.
Pay = Callable[[], None]


def unpaid() -> None:
    """For callers whose requests nobody counts."""


class Exchange(Protocol):
    """Read-only access to many users' accounts.

    All calls raise ``ExchangeError`` (``KeyRefused``, ``RateLimited``, ``AddressBanned``, ``ClockSkew``,
    ``ExchangeUnavailable``, ``AnswerMalformed``, ``RequestRejected``) and nothing else. Credentials are used for
    the one call they are passed to and kept nowhere. One request per call is paid for by the caller; for pages,
    repetitions and what was late ``pay`` is called.
    """

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer."""
        ...

    def wallet(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        """One row: the UNIFIED account object with its ``coin`` list."""
        ...

    def positions(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        """The positions of every configured market that has any, all pages; each row carries ``category``."""
        ...

    def closed_pnl(self, credentials: Credentials, since_ms: int, deadline_s: float, pay: Pay = unpaid) -> Answer:
        """All closed-pnl rows updated at or after ``since_ms``, linear and inverse as configured, all pages.

        Each row carries ``category``.
        """
        ...

    def open_orders(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        """The open orders of every configured market, all pages; each row carries ``category``."""
        ...

    def mark_prices(self, category: str, deadline_s: float, pay: Pay = unpaid) -> Mapping[str, Decimal]:
        """Mark price by symbol of a whole category, in one public request. Symbols without one are left out."""
        ...

    def key_information(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Mapping[str, Any]:
        """What the exchange says of this key: ``readOnly``, ``permissions``, ``ips``, ``expiredAt``, ``userID``."""
        ...

    def server_time_ms(self, deadline_s: float) -> int:
        """The exchange's clock, Unix milliseconds; public, so it also tells whether our address is served."""
        ...
