"""Profit and loss: realised of all time, closed today (UTC), open now, and the total of first and last.

Dollar coins count as dollars. Inverse contracts book in their coin: what they hold open or closed today is converted
at the mark, what they realised of all time at the rate of the wallet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pushserver.feeds.coins import DOLLAR_COINS, coins_of, in_dollars
from pushserver.feeds.numbers import decimal_at
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
    """``realized`` as computed above, ``today`` by ``closed_pnl``; ``positions_rows`` as the exchange sent them."""
    open_now = unrealized(positions_rows)
    return Pnl(total_pnl=realized + open_now, today_pnl=today, unrealized_pnl=open_now, realized_pnl=realized)
