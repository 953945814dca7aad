"""Orders: all that are open, conditional ones included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from pushserver.feeds.numbers import decimal_at, is_blank, text_at
from pushserver.model import Order


def map_orders(rows: Iterable[Mapping[str, Any]]) -> tuple[Order, ...]:
    """Orders sorted by id, with the exchange's own status names.

    Raises:
        AnswerMalformed: a field is blank or of the wrong kind.
    """
    return tuple(sorted((_order(row) for row in rows), key=lambda order: order.order_id))


def _order(row: Mapping[str, Any]) -> Order:
    return Order(
        order_id=text_at(row, "orderId"),
        symbol=text_at(row, "symbol"),
        side=text_at(row, "side"),
        quantity=decimal_at(row, "qty"),
        price=_price(row),
        status=text_at(row, "orderStatus"),
    )


def _price(row: Mapping[str, Any]) -> Decimal | None:
    """A limit order's price, else the price that triggers it, else none: it goes at what the market gives.

    Market orders carry a protective price of the exchange's own making, which is nobody's order price.
    """
    if text_at(row, "orderType") == "Limit":
        return decimal_at(row, "price")
    if is_blank(row.get("triggerPrice")):
        return None
    return decimal_at(row, "triggerPrice") or None
