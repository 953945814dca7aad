"""What customers do by themselves: orders reach their price, positions open and close, money comes and goes.

Pure: told the time and the source of chance; returns the accounts that changed, uncommitted.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal

from pushserver.exchange_sim.accounts import Account, Coin, Order
from pushserver.exchange_sim.changes import Trade, cancelled, closed, filled, market_order, with_coin, with_order
from pushserver.exchange_sim.market import Market
from pushserver.exchange_sim.money import ZERO
from pushserver.exchange_sim.seeding import SYMBOLS, TRADE_VALUE, quantity_worth, random_id, resting_order

#: More open orders than this and a customer cancels the oldest instead of placing another.
MOST_ORDERS = 6
MOST_CLOSED_ROWS = 2_000


def crossed_orders(account: Account, market: Market) -> list[Order]:
    """Open contract orders whose limit or trigger price the mark has reached."""
    return [order for order in account.orders.values() if order.category != "spot" and reached(order, market)]


def reached(order: Order, market: Market) -> bool:
    mark = market.marks[order.symbol]
    if order.status == "Untriggered":
        return mark >= order.trigger_price if order.trigger_direction == 1 else mark <= order.trigger_price
    return bool(order.price) and (mark <= order.price if order.side == "Buy" else mark >= order.price)


def activity_step(
    accounts: Iterable[Account], market: Market, chance: random.Random, now_ms: int, probability: float
) -> Iterator[tuple[Account, str]]:
    """One step for everybody: (changed account, what happened). Each account acts with ``probability``."""
    for account in accounts:
        changed, causes = account, []
        for order in crossed_orders(account, market):
            price = order.price or market.marks[order.symbol]
            try:
                changed = filled(changed, market.instruments, order.order_id, None, price, now_ms)
                causes.append("filled")
            except ValueError:
                # It may only reduce a position that is gone: the exchange cancels such an order.
                changed = cancelled(changed, order.order_id, now_ms)
                causes.append("cancelled")
        if chance.random() < probability:
            changed, cause = one_action(changed, market, chance, now_ms)
            causes.append(cause)
        if changed is not account:
            yield replace(changed, closed=changed.closed[-MOST_CLOSED_ROWS:]), ", ".join(causes)


def one_action(account: Account, market: Market, chance: random.Random, now_ms: int) -> tuple[Account, str]:
    action = chance.choices(("place", "cancel", "open", "close", "transfer"), weights=(4, 2, 2, 2, 1))[0]
    held = [position for position in account.positions.values() if position.size]
    if action == "close" and held:
        position = chance.choice(held)
        instrument = market.instruments[position.symbol]
        half = (position.size / 2 / instrument.quantity_step).to_integral_value() * instrument.quantity_step
        quantity = half if ZERO < half < position.size and chance.random() < 0.5 else None
        mark = market.marks[position.symbol]
        order_id = random_id(chance)
        return closed(account, instrument, position.position_idx, quantity, mark, order_id, now_ms), "closed"
    if action == "open":
        return opened(account, market, chance, now_ms), "opened"
    if action == "transfer":
        coin = account.coins.get("USDT") or Coin("USDT")
        amount = max(Decimal(chance.randrange(-20_000, 20_001)) / 100, -coin.wallet_balance)
        return with_coin(account, replace(coin, wallet_balance=coin.wallet_balance + amount)), "transferred"
    if account.orders and (action == "cancel" or len(account.orders) >= MOST_ORDERS):
        oldest = min(account.orders.values(), key=lambda order: (order.created_ms, order.order_id))
        return cancelled(account, oldest.order_id, now_ms), "cancelled"
    instrument = market.instruments[chance.choice(SYMBOLS)]
    return with_order(account, resting_order(instrument, market, account.hedge, chance, now_ms)), "placed"


def opened(account: Account, market: Market, chance: random.Random, now_ms: int) -> Account:
    """A market order worth a fraction of the usual value; in one-way mode it may also reduce or turn a position."""
    instrument = market.instruments[chance.choice(SYMBOLS)]
    mark = market.marks[instrument.symbol]
    side = chance.choice(("Buy", "Sell"))
    quantity = quantity_worth(TRADE_VALUE * chance.randint(1, 4) / 4, instrument, mark)
    position_idx = {"Buy": 1, "Sell": 2}[side] if account.hedge else 0
    return market_order(account, Trade(instrument, side, quantity, mark, random_id(chance), now_ms, position_idx))
