"""The accounts a demo or a test starts with: user N from the seed and N alone."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from decimal import Decimal

from pushserver.exchange_sim.accounts import Account, ApiKey, Coin, Order
from pushserver.exchange_sim.changes import Trade, closed, traded, with_coin, with_order
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.exchange_sim.market import Instrument, Market
from pushserver.exchange_sim.world import World

#: Of ten users, number 5 trades isolated, 6 in hedge mode, 8 under portfolio margin, the others in cross margin.
MODE_OF_DIGIT = {5: "ISOLATED_MARGIN", 8: "PORTFOLIO_MARGIN"}
HEDGE_DIGIT = 6
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

#: About how many USDT a seeded trade or order is worth.
TRADE_VALUE = Decimal(1500)


def seed_users(world: World, count: int) -> None:
    """Creates users 1 to ``count`` with the keys of ``demo_credentials``."""
    for number in range(1, count + 1):
        chance = random.Random(f"{world.seed}:{number}")  # noqa: S311 - an invented account
        now_ms = world.now_ms()
        world.commit(seeded_account(number, world.market, chance, now_ms), "seeded")
        api_key, secret = demo_credentials(number)
        created_ms, expires_ms = now_ms - 30 * DAY_MS, now_ms + 60 * DAY_MS
        world.keys[api_key] = ApiKey(api_key, secret, number, created_ms=created_ms, expires_ms=expires_ms)


def seeded_account(number: int, market: Market, chance: random.Random, now_ms: int) -> Account:
    """An account with some history: trades of the past hours, open positions, resting orders."""
    digit = number % 10
    account = Account(user=number, margin_mode=MODE_OF_DIGIT.get(digit, "REGULAR_MARGIN"), hedge=digit == HEDGE_DIGIT)
    account = with_coin(account, Coin("USDT", Decimal(chance.randrange(5_000, 50_000))))
    if chance.random() < 0.5:
        account = with_coin(account, Coin("BTC", Decimal(chance.randrange(1, 50)) / 1000))
    for symbol in chance.sample(SYMBOLS, chance.randint(1, 2)):
        instrument = market.instruments[symbol]
        account = with_history(account, instrument, market.marks[symbol], chance, now_ms)
    for _ in range(chance.randint(1, 4)):
        order = resting_order(market.instruments[chance.choice(SYMBOLS)], market, account.hedge, chance, now_ms)
        account = with_order(account, order)
    return account


def with_history(
    account: Account, instrument: Instrument, mark: Decimal, chance: random.Random, now_ms: int
) -> Account:
    """Two hours ago a position was opened, one hour ago a part of it was closed."""
    side = chance.choice(("Buy", "Sell"))
    position_idx = {"Buy": 1, "Sell": 2}[side] if account.hedge else 0
    entry = near(mark, instrument, chance, 0.02)
    quantity = 2 * quantity_worth(TRADE_VALUE, instrument, entry)
    opening = Trade(instrument, side, quantity, entry, random_id(chance), now_ms - 2 * HOUR_MS, position_idx)
    account = traded(account, opening)
    exit_price = near(mark, instrument, chance, 0.01)
    return closed(account, instrument, position_idx, quantity / 2, exit_price, random_id(chance), now_ms - HOUR_MS)


def resting_order(instrument: Instrument, market: Market, hedge: bool, chance: random.Random, now_ms: int) -> Order:
    """A limit order up to 1.5 percent from the mark; one in four waits for a trigger instead."""
    side = chance.choice(("Buy", "Sell"))
    away = Decimal(chance.randint(2, 30)) / 2000
    mark = market.marks[instrument.symbol]
    price = on_tick(mark * (1 - away if side == "Buy" else 1 + away), instrument)
    order = Order(
        order_id=random_id(chance),
        symbol=instrument.symbol,
        side=side,
        quantity=quantity_worth(TRADE_VALUE, instrument, mark),
        price=price,
        position_idx={"Buy": 1, "Sell": 2}[side] if hedge else 0,
        created_ms=now_ms,
        updated_ms=now_ms,
    )
    if chance.random() < 0.75:
        return order
    return conditional(order)


def conditional(order: Order) -> Order:
    """The same order as a market order that waits for the mark to reach its price."""
    return replace(
        order,
        order_type="Market",
        price=Decimal(0),
        trigger_price=order.price,
        trigger_direction=2 if order.side == "Buy" else 1,
        stop_order_type="Stop",
        status="Untriggered",
        time_in_force="IOC",
    )


def near(mark: Decimal, instrument: Instrument, chance: random.Random, spread: float) -> Decimal:
    return on_tick(mark * Decimal(repr(round(1 + chance.uniform(-spread, spread), 6))), instrument)


def on_tick(price: Decimal, instrument: Instrument) -> Decimal:
    ticks = (price / instrument.tick_size).to_integral_value()
    return max(ticks, Decimal(1)) * instrument.tick_size


def quantity_worth(value: Decimal, instrument: Instrument, price: Decimal) -> Decimal:
    """The quantity on the instrument's step that is worth about ``value`` (at least one step)."""
    contracts = value if instrument.inverse else value / price
    steps = (contracts / instrument.quantity_step).to_integral_value()
    return max(steps, Decimal(1)) * instrument.quantity_step


def random_id(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))
