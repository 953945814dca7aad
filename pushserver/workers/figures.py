"""From the exchange's rows to our figures, and to traces: short texts that differ exactly when the account changed.

Figures may move without any change (an inverse coin's pnl in dollars moves with its price); traces do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pushserver.errors import AnswerMalformed
from pushserver.feeds.balance import ISOLATED_MARGIN_COINS, map_balance
from pushserver.feeds.coins import coins_of, settle_coins
from pushserver.feeds.orders import map_orders
from pushserver.feeds.pnl import INVERSE, map_pnl, realized
from pushserver.feeds.positions import map_positions
from pushserver.model import Balance, Market, Order, Pnl, Position
from pushserver.workers.memo import Resource

Row = Mapping[str, Any]
Rows = Sequence[Row]

#: What of a position changes by trading, funding or settlement; marks and margins are left out.
HOLDING_FIELDS = ("category", "symbol", "positionIdx", "side", "size", "curRealisedPnl", "cumRealisedPnl")
ORDER_FIELDS = ("category", "symbol", "orderId", "orderStatus", "qty", "price", "triggerPrice", "leavesQty")
COIN_FIELDS = ("coin", "walletBalance", "cumRealisedPnl", "locked", "totalOrderIM")


class Figures:
    """The feeds for the configured markets. Every method raises AnswerMalformed where a figure is missing."""

    def __init__(self, markets: Iterable[Market]) -> None:
        self._settle_coins = settle_coins(markets)

    def balance(self, rows: Rows) -> Balance:
        return map_balance(_account(rows), ISOLATED_MARGIN_COINS)

    def positions(self, rows: Rows) -> tuple[Position, ...]:
        return map_positions(rows)

    def orders(self, rows: Rows) -> tuple[Order, ...]:
        return map_orders(rows)

    def pnl(self, position_rows: Rows, realized: Decimal, today: Decimal) -> Pnl:
        return map_pnl(realized, today, position_rows)

    def realized(self, rows: Rows) -> Decimal:
        return realized(_account(rows), self._settle_coins)

    def needs_inverse_marks(self, closed_rows: Rows) -> bool:
        """Whether what was closed today converts from coins."""
        return any(row.get("category") == INVERSE for row in closed_rows)

    def positions_trace(self, rows: Rows) -> str:
        """Equal for equal holdings, whatever the market does and whatever the order of rows."""
        return _trace(rows, HOLDING_FIELDS)

    def wallet_trace(self, rows: Rows) -> str:
        """Equal while nothing is realised in the coins that settle the markets."""
        return _trace(coins_of(_account(rows), self._settle_coins), ("coin", "cumRealisedPnl"))

    def news_trace(self, resource: Resource, rows: Rows) -> str:
        """Differs when the account changed in what a hint may announce; of closed pnl the sums tell that."""
        if resource is Resource.POSITIONS:
            return self.positions_trace(rows)
        if resource is Resource.ORDERS:
            return _trace(rows, ORDER_FIELDS)
        coins = rows[0].get("coin") if rows else None
        kept = [coin for coin in coins if isinstance(coin, Mapping)] if isinstance(coins, list) else []
        return _trace(kept, COIN_FIELDS)


def _account(rows: Rows) -> Row:
    if not rows:
        raise AnswerMalformed("the answer holds no account")
    return rows[0]


def _trace(rows: Iterable[Row], fields: tuple[str, ...]) -> str:
    lines = sorted("\x1f".join(str(row.get(field)) for field in fields) for row in rows)
    return hashlib.blake2b("\x1e".join(lines).encode(errors="replace"), digest_size=9).hexdigest()
