"""Orders: which price a person sees, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from pushserver.errors import AnswerMalformed
from pushserver.feeds.orders import map_orders

Rows = Callable[[str], list[dict[str, Any]]]


def test_each_kind_of_order_shows_its_own_price_sorted_by_id(rows: Rows) -> None:
    shown = [(o.order_id, o.side, o.quantity, o.price, o.status) for o in map_orders(rows("orders_every_kind"))]
    small = Decimal("0.01")
    assert shown == [
        ("1609604284784580096", "Buy", Decimal("123.00"), Decimal("0.5000"), "SomethingNew"),
        ("a-zero-trigger", "Buy", small, None, "New"),
        ("b-partly-filled", "Buy", small, Decimal("58000"), "PartiallyFilled"),
        ("c-stop-limit", "Buy", small, Decimal("56990"), "Untriggered"),
        ("d-stop-market", "Buy", Decimal(0), Decimal("57000.5"), "Untriggered"),
        # A market order's own price is one the exchange made up.
        ("e-market", "Sell", small, None, "New"),
    ]


def test_two_pages_make_one_list(rows: Rows) -> None:
    orders = map_orders(rows("orders_page_2") + rows("orders_page_1"))
    assert [order.order_id for order in orders] == [f"order-{number:03d}" for number in range(54)]


def test_no_orders_are_none(rows: Rows) -> None:
    assert map_orders(rows("orders_none")) == ()


@pytest.mark.parametrize("blank", ["", None, "missing", True, [], "x" * 200, "\x1b[31m"])
@pytest.mark.parametrize("field", ["orderId", "symbol", "side", "qty", "price", "orderStatus", "orderType"])
def test_H06_a_blank_of_an_order_is_a_failed_fetch(rows: Rows, field: str, blank: Any) -> None:
    row = next(row for row in rows("orders_every_kind") if row["orderType"] == "Limit") | {field: blank}
    if blank == "missing":
        del row[field]
    with pytest.raises(AnswerMalformed):
        map_orders([row])


@pytest.mark.parametrize("trigger", ["NaN", "soon", True, []])
def test_H06_a_trigger_that_is_no_price_is_a_failed_fetch(rows: Rows, trigger: Any) -> None:
    row = next(row for row in rows("orders_every_kind") if row["orderType"] == "Market") | {"triggerPrice": trigger}
    with pytest.raises(AnswerMalformed):
        map_orders([row])
