"""Profit and loss: realised of all time, closed today (UTC), open now, and the total of first and last.

Dollar coins count as dollars. Inverse contracts book in their coin: what they hold open or closed today is converted
at the mark, what they realised of all time at the rate of the wallet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pushserver.errors import AnswerMalformed
from pushserver.feeds.coins import DOLLAR_COINS, coins_of, in_dollars
from pushserver.feeds.numbers import decimal_at, milliseconds_at, text_at
from pushserver.feeds.positions import held
from pushserver.model import Pnl

INVERSE = "inverse"


def realized(account: Mapping[str, Any], settle_coins: frozenset[str]) -> Decimal:
    """All-time realised pnl of the coins that settle the configured markets.

    Raises:
        AnswerMalformed: a figure of one of these coins is blank or no number, or the wallet is an empty shell.
    """
    # An unused wallet answers with every total blank and no coins, which says nothing about pnl.
    decimal_at(account, "totalEquity")
    total = Decimal(0)
    for coin in coins_of(account, settle_coins):
        amount = decimal_at(coin, "cumRealisedPnl")
        total += amount if coin["coin"] in DOLLAR_COINS else in_dollars(amount, coin)
    return total


def closed_today(
    rows: Iterable[Mapping[str, Any]], midnight_ms: int, inverse_marks: Mapping[str, Decimal]
) -> Decimal:  # fmt: skip
    """Sum of ``closedPnl`` of the rows updated since ``midnight_ms``, inverse ones at their mark price.

    One row stands for one closing order, but rows may move between pages while they are read: a row that is the same
    in every field counts once.

    Raises:
        AnswerMalformed: a figure or stamp is blank or of the wrong kind, or an inverse row has no mark price.
    """
    total = Decimal(0)
    counted: set[frozenset[tuple[str, str]]] = set()
    for row in rows:
        identity = frozenset((key, repr(value)) for key, value in row.items())
        if milliseconds_at(row, "updatedTime") < midnight_ms or identity in counted:
            continue
        counted.add(identity)
        amount = decimal_at(row, "closedPnl")
        if row.get("category") == INVERSE and amount:
            amount *= _mark_of(text_at(row, "symbol"), inverse_marks)
        total += amount
    return total


def _mark_of(symbol: str, marks: Mapping[str, Decimal]) -> Decimal:
    mark = marks.get(symbol)
    if mark is None:
        raise AnswerMalformed("an inverse row has no mark price")
    return mark


def unrealized(positions_rows: Iterable[Mapping[str, Any]]) -> Decimal:
    """Sum of the open positions' pnl, inverse ones at the mark price of their own row.

    Raises:
        AnswerMalformed: a figure of a row with a size is blank or no number.
    """
    total = Decimal(0)
    for row in held(positions_rows):
        amount = decimal_at(row, "unrealisedPnl")
        total += amount * decimal_at(row, "markPrice") if row.get("category") == INVERSE else amount
    return total


def map_pnl(realized: Decimal, today: Decimal, positions_rows: Iterable[Mapping[str, Any]]) -> Pnl:
    """``realized`` and ``today`` as computed above; ``positions_rows`` as the exchange sent them."""
    open_now = unrealized(positions_rows)
    return Pnl(total_pnl=realized + open_now, today_pnl=today, unrealized_pnl=open_now, realized_pnl=realized)
