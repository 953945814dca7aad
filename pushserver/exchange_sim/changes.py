"""Changes of an account, each a pure function from one account to the next. A refused change raises ValueError.

Money is conserved: what a trade costs or earns goes to the settle coin's wallet balance, to its ``cum_realised_pnl``,
to the position's realised figures and, when something was closed, into one closed-pnl row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

from pushserver.exchange_sim.accounts import (
    RECENT_ORDERS,
    TRADING_FEE,
    Account,
    ClosedRow,
    Coin,
    Fill,
    Order,
    Position,
    contract_value,
    profit,
)
from pushserver.exchange_sim.market import Instrument
from pushserver.exchange_sim.money import ZERO, rounded


@dataclass(frozen=True, slots=True)
class Trade:
    """One execution: who pays whom follows from the position it meets."""

    instrument: Instrument
    side: str
    quantity: Decimal
    price: Decimal
    order_id: str
    at_ms: int
    position_idx: int = 0
    order_type: str = "Market"
    order_price: Decimal = ZERO


def with_coin(account: Account, coin: Coin) -> Account:
    return replace(account, coins={**account.coins, coin.coin: coin})


def with_position(account: Account, position: Position) -> Account:
    """Puts a leg as it is, without touching the wallet. Raises ValueError where side, size or mode contradict."""
    if position.size < ZERO or (position.size > ZERO) != (position.side in ("Buy", "Sell")):
        raise ValueError('a position is Buy or Sell with a size above zero, or flat: side "" and size 0')
    if position.size > ZERO and (position.avg_price <= ZERO or position.leverage <= ZERO):
        raise ValueError("an open position needs avg_price and leverage above zero")
    if position.position_idx not in (0, 1, 2):
        raise ValueError("position_idx is 0 (one-way), 1 (hedge long) or 2 (hedge short)")
    if position.size > ZERO and position.position_idx and position.side != ("Buy", "Sell")[position.position_idx - 1]:
        raise ValueError("the hedge legs are 1 Buy and 2 Sell")
    return replace(account, positions={**account.positions, (position.symbol, position.position_idx): position})


def with_order(account: Account, order: Order) -> Account:
    """Places (or replaces) an open order. Raises ValueError for one that is not open."""
    if not order.open:
        raise ValueError(f"an order with status {order.status} cannot be placed")
    if order.side not in ("Buy", "Sell") or order.quantity < ZERO:
        raise ValueError("an order is Buy or Sell and its quantity is not negative")
    return replace(account, orders={**account.orders, order.order_id: order})


def with_closed_row(account: Account, row: ClosedRow) -> Account:
    return replace(account, closed=(*account.closed, row))


def cancelled(account: Account, order_id: str, at_ms: int) -> Account:
    order = open_order(account, order_id)
    return finished(account, replace(order, status="Cancelled", cancel_type="CancelByUser", updated_ms=at_ms))


def open_order(account: Account, order_id: str) -> Order:
    try:
        return account.orders[order_id]
    except KeyError:
        raise ValueError(f"no open order {order_id!r}") from None


def finished(account: Account, order: Order) -> Account:
    """Moves an order from the open ones to the recently closed ones."""
    remaining = {key: value for key, value in account.orders.items() if key != order.order_id}
    return replace(account, orders=remaining, recent_orders=(*account.recent_orders, order)[-RECENT_ORDERS:])


def filled(account: Account, instruments: Mapping[str, Instrument], order_id: str, quantity: Decimal | None,
           price: Decimal, at_ms: int) -> Account:  # fmt: skip
    """Fills ``quantity`` of an order (None: all that is left) at ``price``, with everything that follows."""
    order = open_order(account, order_id)
    if order.category == "spot":
        raise ValueError("spot orders can be placed and cancelled, not filled")
    quantity = order.leaves_quantity if quantity is None else quantity
    if not ZERO < quantity <= order.leaves_quantity:
        raise ValueError(f"order {order_id!r} has {order.leaves_quantity} left to fill")
    instrument = instruments[order.symbol]
    value = contract_value(instrument, quantity, price)
    done = quantity == order.leaves_quantity
    order = replace(
        order,
        filled_quantity=order.filled_quantity + quantity,
        filled_value=rounded(order.filled_value + value),
        filled_fee=rounded(order.filled_fee + value * TRADING_FEE),
        status="Filled" if done else "PartiallyFilled",
        updated_ms=at_ms,
    )
    account = finished(account, order) if done else with_order(account, order)
    trade = Trade(
        instrument, order.side, quantity, price, order_id, at_ms, order.position_idx, order.order_type, order.price
    )
    return traded(account, trade, reduce_only=order.reduce_only)


def closed(account: Account, instrument: Instrument, position_idx: int, quantity: Decimal | None, price: Decimal,
           order_id: str, at_ms: int) -> Account:  # fmt: skip
    """Closes ``quantity`` of a leg (None: all of it) at ``price`` with a market order."""
    position = account.position(instrument.symbol, position_idx)
    quantity = position.size if quantity is None else quantity
    if not ZERO < quantity <= position.size:
        raise ValueError(f"{instrument.symbol} leg {position_idx} has {position.size} to close")
    side = "Sell" if position.side == "Buy" else "Buy"
    trade = Trade(instrument, side, quantity, price, order_id, at_ms, position_idx, order_price=price)
    return market_order(account, trade, reduce_only=True)


def market_order(account: Account, trade: Trade, reduce_only: bool = False) -> Account:
    """Applies an execution that is a whole order by itself, and remembers that order as filled."""
    account = traded(account, trade, reduce_only)
    value = rounded(contract_value(trade.instrument, trade.quantity, trade.price))
    order = Order(
        order_id=trade.order_id,
        symbol=trade.instrument.symbol,
        side=trade.side,
        quantity=trade.quantity,
        category=trade.instrument.category,
        order_type=trade.order_type,
        price=trade.order_price,
        status="Filled",
        filled_quantity=trade.quantity,
        filled_value=value,
        filled_fee=rounded(value * TRADING_FEE),
        reduce_only=reduce_only,
        position_idx=trade.position_idx,
        time_in_force="IOC",
        created_ms=trade.at_ms,
        updated_ms=trade.at_ms,
    )
    return finished(account, order)


def traded(account: Account, trade: Trade, reduce_only: bool = False) -> Account:
    """Applies an execution: it first closes what it is opposed to, and opens with the rest."""
    key = (trade.instrument.symbol, trade.position_idx)
    position = account.position(*key)
    opposed = position.size > ZERO and position.side != trade.side
    closing = min(trade.quantity, position.size) if opposed else ZERO
    opening = trade.quantity - closing
    if opening and (reduce_only or (opposed and trade.position_idx)):
        raise ValueError("the trade is larger than the position it may only reduce")
    if closing:
        account = after_closing(account, trade, closing)
    if opening:
        account = after_opening(account, trade, opening)
    fill = fill_of(position, trade, closing, account.position(*key).trade_sequence)
    return replace(account, fills=(*account.fills, fill))


def fill_of(position: Position, trade: Trade, closing: Decimal, trade_sequence: int) -> Fill:
    """The execution that met ``position`` and closed ``closing`` of it."""
    instrument = trade.instrument
    gross = profit(instrument, position.direction, closing, position.avg_price, trade.price) if closing else ZERO
    value = rounded(contract_value(instrument, trade.quantity, trade.price))
    return Fill(
        order_id=trade.order_id,
        symbol=instrument.symbol,
        category=instrument.category,
        side=trade.side,
        quantity=trade.quantity,
        price=trade.price,
        value=value,
        fee=rounded(value * TRADING_FEE),
        closed_quantity=closing,
        pnl=rounded(gross),
        order_type=trade.order_type,
        order_price=trade.order_price,
        at_ms=trade.at_ms,
        trade_sequence=trade_sequence,
    )


def after_closing(account: Account, trade: Trade, quantity: Decimal) -> Account:
    instrument = trade.instrument
    position = account.position(instrument.symbol, trade.position_idx)
    entry_value = rounded(contract_value(instrument, quantity, position.avg_price))
    exit_value = rounded(contract_value(instrument, quantity, trade.price))
    gross = rounded(profit(instrument, position.direction, quantity, position.avg_price, trade.price))
    open_fee = rounded(position.open_fees * quantity / position.size)
    close_fee = rounded(exit_value * TRADING_FEE)
    remaining = position.size - quantity
    after = replace(
        position,
        size=remaining,
        side=position.side if remaining else "",
        avg_price=position.avg_price if remaining else ZERO,
        open_fees=position.open_fees - open_fee,
        cur_realised_pnl=position.cur_realised_pnl + gross - close_fee if remaining else ZERO,
        cum_realised_pnl=position.cum_realised_pnl + gross - close_fee,
        updated_ms=trade.at_ms,
        trade_sequence=next_sequence(position),
        take_profit=position.take_profit if remaining else "",
        stop_loss=position.stop_loss if remaining else "",
        liq_price=position.liq_price if remaining else "",
    )
    row = ClosedRow(
        order_id=trade.order_id,
        symbol=instrument.symbol,
        side=trade.side,
        quantity=quantity,
        entry_value=entry_value,
        exit_value=exit_value,
        avg_entry_price=position.avg_price,
        avg_exit_price=trade.price,
        closed_pnl=gross - open_fee - close_fee,
        open_fee=open_fee,
        close_fee=close_fee,
        order_price=trade.order_price or trade.price,
        order_type=trade.order_type,
        leverage=position.leverage,
        category=instrument.category,
        created_ms=trade.at_ms,
        updated_ms=trade.at_ms,
    )
    account = with_position(account, after)
    account = with_closed_row(account, row)
    return realised(account, instrument.settle_coin, gross - close_fee)


def after_opening(account: Account, trade: Trade, quantity: Decimal) -> Account:
    instrument = trade.instrument
    position = account.position(instrument.symbol, trade.position_idx)
    fee = rounded(contract_value(instrument, quantity, trade.price) * TRADING_FEE)
    size = position.size + quantity
    value = contract_value(instrument, quantity, trade.price)
    if position.size:
        value += contract_value(instrument, position.size, position.avg_price)
    fresh = not position.size
    after = replace(
        position,
        side=trade.side,
        size=size,
        avg_price=trade.price if fresh else rounded(size / value if instrument.inverse else value / size),
        open_fees=position.open_fees + fee,
        cur_realised_pnl=(ZERO if fresh else position.cur_realised_pnl) - fee,
        cum_realised_pnl=position.cum_realised_pnl - fee,
        created_ms=position.created_ms or trade.at_ms,
        opened_ms=trade.at_ms if fresh else position.opened_ms,
        updated_ms=trade.at_ms,
        trade_sequence=next_sequence(position),
    )
    return realised(with_position(account, after), instrument.settle_coin, -fee)


def next_sequence(position: Position) -> int:
    return 140_612_148_840_001 if position.trade_sequence < 0 else position.trade_sequence + 1


def realised(account: Account, coin_name: str, amount: Decimal) -> Account:
    """Books a realised profit (or cost) in the wallet."""
    coin = account.coins.get(coin_name) or Coin(coin_name)
    return with_coin(
        account,
        replace(coin, wallet_balance=coin.wallet_balance + amount, cum_realised_pnl=coin.cum_realised_pnl + amount),
    )
