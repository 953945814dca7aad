"""What the private stream tells of one change of an account: the difference between before and after, in Bybit's rows.

As the real one: only the coins that were touched, a position row for every symbol whose orders changed even if the
position did not, a close as side "" and size "0", and never a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from pushserver.exchange_sim.accounts import Account, Order, Position, PositionKey
from pushserver.exchange_sim.answers import Row, order_row, position_row, wallet_row
from pushserver.exchange_sim.market import Market
from pushserver.exchange_sim.money import ZERO, text


def account_events(before: Account, after: Account, market: Market) -> Iterator[tuple[str, list[Row]]]:
    """``(topic, rows)`` in the order in which the exchange sends them: order, execution, position, wallet."""
    orders = changed_orders(before, after)
    if orders:
        profits = {row.order_id: row.closed_pnl for row in after.closed if row not in before.closed}
        yield "order", [stream_order(order, profits.get(order.order_id, ZERO)) for order in orders]
    traded = [key for key, leg in after.positions.items() if before.position(*key).trade_sequence != leg.trade_sequence]
    executions = [execution_row(before.position(*key), after.position(*key), market, after) for key in traded]
    if executions:
        yield "execution", executions
    rows = [stream_position(after, after.position(*key), market) for key in told_positions(before, after, orders)]
    if rows:
        yield "position", rows
    touched = frozenset(
        name for name in {*before.coins, *after.coins} if before.coins.get(name) != after.coins.get(name)
    )
    if touched:
        yield "wallet", [wallet_row(after, market, touched)]


def changed_orders(before: Account, after: Account) -> list[Order]:
    known = {order.order_id: order for order in (*before.orders.values(), *before.recent_orders)}
    now = {order.order_id: order for order in (*after.recent_orders, *after.orders.values())}
    return [order for order_id, order in now.items() if known.get(order_id) != order]


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


def execution_row(before: Position, after: Position, market: Market, account: Account) -> Row:
    moved = signed(after) - signed(before)
    quantity, mark = abs(moved), market.marks[after.symbol]
    closing = min(before.size, quantity) if before.size and moved * before.direction < ZERO else ZERO
    order: Any = next((o for o in reversed(account.recent_orders) if o.symbol == after.symbol), None)
    return {
        "category": market.instruments[after.symbol].category,
        "symbol": after.symbol,
        "orderId": order.order_id if order else "",
        "orderLinkId": "",
        "side": "Buy" if moved > ZERO else "Sell",
        "execId": f"{account.user:08x}-{after.trade_sequence:x}-{account.version:x}",
        "execPrice": text(mark),
        "execQty": text(quantity),
        "execType": "Trade",
        "execValue": text(quantity * mark),
        "execFee": "0",
        "execTime": str(after.updated_ms),
        "execPnl": "0",
        "closedSize": text(closing),
        "isMaker": False,
        "isLeverage": "0",
        "seq": after.trade_sequence,
        "extraFees": "",
    }


def signed(position: Position) -> Decimal:
    return position.size * position.direction
