"""What one user closed today (UTC), counted without reading the whole day again at every look.

A day with many closing orders is read only since a *boundary*. What lies before it is settled: kept as sums, and as
short marks of the orders in them. The exchange shows one row per closing order, and a further fill moves that row on;
so a row since the boundary whose order is among the settled ones would count twice, and the day is read whole again.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pushserver.errors import AnswerMalformed
from pushserver.feeds.numbers import decimal_at, milliseconds_at, text_at
from pushserver.feeds.pnl import INVERSE

#: A row may appear so much later than the moment it is stamped with; what is younger is never settled.
LATEST_APPEARANCE_MS = 300_000
#: A day with at most so many rows fits a page of the exchange, so that reading a part of it would save nothing.
PAGE_ROWS = 80
#: Three bytes of a digest in four characters: two of thousands of orders look alike now and then, which costs no more
#: than reading a day whole.
MARK_BYTES, MARK_LENGTH = 3, 4


@dataclass(frozen=True, slots=True)
class ClosedSums:
    """Sums of ``rows`` rows, the newest of ``newest_ms``: ``linear`` in dollars, ``inverse`` in coin per symbol."""

    rows: int = 0
    newest_ms: int = 0
    linear: Decimal = Decimal(0)
    inverse: Mapping[str, Decimal] = field(default_factory=dict)

    def in_dollars(self, inverse_marks: Mapping[str, Decimal]) -> Decimal:
        """Raises AnswerMalformed: something closed in coin has no mark price."""
        total = self.linear
        for symbol, amount in self.inverse.items():
            if amount and symbol not in inverse_marks:
                raise AnswerMalformed("an inverse row has no mark price")
            total += amount * inverse_marks[symbol] if amount else amount
        return total

    def trace(self) -> str:
        """Equal while nothing is closed, wherever the boundary lies and whatever the market does."""
        coins = [f"{symbol}={amount.normalize()}" for symbol, amount in sorted(self.inverse.items())]
        text = "\x1f".join((str(self.rows), str(self.newest_ms), str(self.linear.normalize()), *coins))
        return hashlib.blake2b(text.encode(errors="replace"), digest_size=9).hexdigest()

    def plus(self, rows: Iterable[_ClosedRow]) -> ClosedSums:
        count, newest_ms, linear, inverse = self.rows, self.newest_ms, self.linear, dict(self.inverse)
        for row in rows:
            count, newest_ms = count + 1, max(newest_ms, row.updated_ms)
            if row.inverse_symbol:
                inverse[row.inverse_symbol] = inverse.get(row.inverse_symbol, Decimal(0)) + row.amount
            else:
                linear += row.amount
        return ClosedSums(count, newest_ms, linear, inverse)


@dataclass(frozen=True, slots=True)
class ClosedDay:
    """What is settled of the UTC day ``date``: all rows before ``boundary_ms``, whose orders' marks are in ``marks``.

    ``begun_ms``: when the day was last read whole, on the caller's clock.
    """

    date: str
    boundary_ms: int
    begun_ms: int
    settled: ClosedSums = field(default_factory=ClosedSums)
    marks: str = ""

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ClosedDay:
        """Out of what JSON made of one, with figures as texts.

        Raises:
            ValueError, TypeError, KeyError, AttributeError, ArithmeticError: it is none.
        """
        settled = values["settled"]
        inverse = {str(symbol): Decimal(amount) for symbol, amount in settled["inverse"].items()}
        sums = ClosedSums(int(settled["rows"]), int(settled["newest_ms"]), Decimal(settled["linear"]), inverse)
        if not all(amount.is_finite() for amount in (sums.linear, *inverse.values())):
            raise ValueError("a settled sum is no number")
        numbers = int(values["boundary_ms"]), int(values["begun_ms"])
        return cls(str(values["date"]), *numbers, sums, str(values["marks"]))

    def counts_twice(self, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether one of the rows since the boundary may be settled already, as an older version of itself."""
        if not self.settled.rows:
            return False
        settled = {self.marks[at : at + MARK_LENGTH] for at in range(0, len(self.marks), MARK_LENGTH)}
        return any(_mark_of(row) in settled for row in rows)


def advance(day: ClosedDay, rows: Iterable[Mapping[str, Any]], exchange_now_ms: int) -> tuple[ClosedSums, ClosedDay]:
    """The sums of the whole day, and the day with more of it settled.

    ``rows``: those since ``day.boundary_ms``, none of which counts twice; ``exchange_now_ms``: not after the moment
    they were read. Rows may move between pages while they are read: one that is the same in every field counts once.

    Raises:
        AnswerMalformed: a figure or stamp is blank or of the wrong kind.
    """
    since = _rows_since(day.boundary_ms, rows)
    today = day.settled.plus(since)
    if today.rows <= PAGE_ROWS:
        return today, day
    boundary_ms = max(day.boundary_ms, min(today.newest_ms, exchange_now_ms) - LATEST_APPEARANCE_MS)
    settling = [row for row in since if row.updated_ms < boundary_ms]
    marks = day.marks + "".join(row.mark for row in settling)
    return today, ClosedDay(day.date, boundary_ms, day.begun_ms, day.settled.plus(settling), marks)


@dataclass(frozen=True, slots=True)
class _ClosedRow:
    """``inverse_symbol`` is empty where ``amount`` is in dollars."""

    updated_ms: int
    amount: Decimal
    inverse_symbol: str
    mark: str


def _rows_since(boundary_ms: int, rows: Iterable[Mapping[str, Any]]) -> list[_ClosedRow]:
    since: dict[frozenset[tuple[str, str]], _ClosedRow] = {}
    for row in rows:
        updated_ms = milliseconds_at(row, "updatedTime")
        if updated_ms >= boundary_ms:
            identity = frozenset((key, repr(value)) for key, value in row.items())
            symbol = text_at(row, "symbol") if row.get("category") == INVERSE else ""
            since[identity] = _ClosedRow(updated_ms, decimal_at(row, "closedPnl"), symbol, _mark_of(row))
    return list(since.values())


def _mark_of(row: Mapping[str, Any]) -> str:
    """Equal for all versions of an order's row. Rows without an order look alike, so that they are always doubted."""
    digest = hashlib.blake2b(str(row.get("orderId") or "").encode(errors="replace"), digest_size=MARK_BYTES).digest()
    return urlsafe_b64encode(digest).decode()
