"""What the private stream tells of one change of an account: the difference between before and after, in Bybit's rows.

As the real one: only the coins that were touched, a position row for every symbol whose orders changed even if the
position did not, a close as side "" and size "0", and never a snapshot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from pushserver.exchange_sim.accounts import Account, ClosedRow, Fill, Order, Position, PositionKey
from pushserver.exchange_sim.answers import Row, order_row, position_row, wallet_row
from pushserver.exchange_sim.market import Market
from pushserver.exchange_sim.money import ZERO, text

R = TypeVar("R", Order, ClosedRow)


def account_events(before: Account, after: Account, market: Market) -> Iterator[tuple[str, list[Row]]]:
    """``(topic, rows)`` in the order in which the exchange sends them: order, execution, position, wallet."""
    orders = changed_orders(before, after)
    if orders:
        profits: dict[str, Decimal] = defaultdict(lambda: ZERO)
        for row in newest(before.closed, after.closed):
            profits[row.order_id] += row.closed_pnl
        yield "order", [stream_order(order, profits[order.order_id]) for order in orders]
    if after.fills:
        yield "execution", [execution_row(fill, after, number) for number, fill in enumerate(after.fills)]
    rows = [stream_position(after, after.position(*key), market) for key in told_positions(before, after, orders)]
    if rows:
        yield "position", rows
    touched = frozenset(
        name for name in {*before.coins, *after.coins} if before.coins.get(name) != after.coins.get(name)
    )
    if touched:
        yield "wallet", [wallet_row(after, market, touched)]


def newest(before: Sequence[R], after: Sequence[R]) -> list[R]:
    """What was appended: the work grows with the news, not with the history."""
    last = before[-1] if before else None
    appended: list[R] = []
    for row in reversed(after):
        if row is last:
            break
        appended.append(row)
    return appended[::-1]


def changed_orders(before: Account, after: Account) -> list[Order]:
    """Orders that came, moved or ended; those that only vanished are told as cancelled."""
    ended = newest(before.recent_orders, after.recent_orders)
    ended_ids = {order.order_id for order in ended}
    vanished = [
        replace(order, status="Cancelled", cancel_type="CancelByAdmin", updated_ms=after.updated_ms)
        for order_id, order in before.orders.items()
        if order_id not in after.orders and order_id not in ended_ids
    ]
    moved = [order for order_id, order in after.orders.items() if before.orders.get(order_id) != order]
    return [*ended, *vanished, *moved]


def told_positions(before: Account, after: Account, orders: list[Order]) -> list[PositionKey]:
    """The legs that changed, and those whose symbol has changed orders (most of these tell nothing new)."""
    changed = {key for key in {*before.positions, *after.positions} if before.position(*key) != after.position(*key)}
    beside = {(order.symbol, order.position_idx) for order in orders if order.category != "spot"}
    return sorted(changed | beside)


def stream_order(order: Order, closed_pnl: Decimal) -> Row:
    return order_row(order) | {"category": order.category, "closedPnl": text(closed_pnl), "slippageTolerance": "0"}


def stream_position(account: Account, position: Position, market: Market) -> Row:
    row: Row = position_row(account, position, market)
    row["category"] = market.instruments[position.symbol].category
    row["entryPrice"] = row.pop("avgPrice")
    if not position.size:
        row |= {"positionValue": "0", "unrealisedPnl": "0"}
    return row


def execution_row(fill: Fill, account: Account, number: int) -> Row:
    """``number`` tells apart the fills of one change."""
    return {
        "category": fill.category,
        "symbol": fill.symbol,
        "orderId": fill.order_id,
        "orderLinkId": "",
        "side": fill.side,
        "orderPrice": text(fill.order_price),
        "orderType": fill.order_type,
        "execId": f"{account.user:08x}-{account.version:x}-{number:x}",
        "execPrice": text(fill.price),
        "execQty": text(fill.quantity),
        "execType": "Trade",
        "execValue": text(fill.value),
        "execFee": text(fill.fee),
        "execTime": str(fill.at_ms),
        "execPnl": text(fill.pnl),
        "closedSize": text(fill.closed_quantity),
        "isMaker": fill.order_type == "Limit",
        "isLeverage": "0",
        "marketUnit": "",
        "seq": fill.trade_sequence,
        "extraFees": "",
    }
