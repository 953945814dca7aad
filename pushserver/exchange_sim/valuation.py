"""What an account is worth at the marks of the moment: the identities real answers obey.

Equity is wallet balance less borrowings plus unrealised pnl; ``total_equity`` is the sum of the coins' USD values to
the last digit; collateral ratios lower ``total_wallet_balance`` and ``total_margin_balance`` but not the equity;
what is available is the margin balance less the initial margin.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pushserver.exchange_sim.accounts import (
    MAINTENANCE_MARGIN_RATE,
    TRADING_FEE,
    Account,
    Coin,
    Order,
    Position,
    contract_value,
    profit,
)
from pushserver.exchange_sim.market import COLLATERAL_RATIOS, Market
from pushserver.exchange_sim.money import ONE, ZERO, rounded


@dataclass(frozen=True, slots=True)
class PositionFigures:
    """Figures in the settle coin; margins at the mark, ``value`` at the entry price."""

    mark: Decimal
    value: Decimal
    unrealised_pnl: Decimal
    initial_margin: Decimal
    maintenance_margin: Decimal


@dataclass(frozen=True, slots=True)
class CoinFigures:
    usd_price: Decimal
    equity: Decimal
    usd_value: Decimal
    unrealised_pnl: Decimal
    order_margin: Decimal
    position_margin: Decimal
    maintenance_margin: Decimal


@dataclass(frozen=True, slots=True)
class WalletFigures:
    """USD, but for ``coins``."""

    coins: dict[str, CoinFigures]
    total_equity: Decimal
    total_wallet_balance: Decimal
    total_margin_balance: Decimal
    total_available: Decimal
    total_unrealised_pnl: Decimal
    total_initial_margin: Decimal
    total_maintenance_margin: Decimal


def value_position(position: Position, market: Market) -> PositionFigures:
    mark = market.marks[position.symbol]
    if not position.size:
        return PositionFigures(mark, ZERO, ZERO, ZERO, ZERO)
    instrument = market.instruments[position.symbol]
    value = contract_value(instrument, position.size, position.avg_price)
    mark_value = contract_value(instrument, position.size, mark)
    closing_fee = closing_fee_of(mark_value, position.leverage, position.direction)
    return PositionFigures(
        mark=mark,
        value=rounded(value),
        unrealised_pnl=rounded(profit(instrument, position.direction, position.size, position.avg_price, mark)),
        initial_margin=rounded(mark_value / position.leverage + closing_fee),
        maintenance_margin=rounded(mark_value * MAINTENANCE_MARGIN_RATE + closing_fee),
    )


def closing_fee_of(value: Decimal, leverage: Decimal, direction: int) -> Decimal:
    """The fee of closing at the bankruptcy price, which lies below a long's entry and above a short's."""
    return value * (ONE - direction / leverage) * TRADING_FEE


def value_order(order: Order, leverage: Decimal, market: Market) -> Decimal:
    """Initial margin of an open order: none for spot, reduce-only and conditional ones."""
    if order.category == "spot" or order.reduce_only or order.status == "Untriggered" or not order.price:
        return ZERO
    value = contract_value(market.instruments[order.symbol], order.leaves_quantity, order.price)
    direction = 1 if order.side == "Buy" else -1
    return rounded(value / leverage + value * TRADING_FEE + closing_fee_of(value, leverage, direction))


def value_wallet(account: Account, market: Market) -> WalletFigures:
    unrealised: dict[str, Decimal] = {}
    position_margin: dict[str, Decimal] = {}
    maintenance: dict[str, Decimal] = {}
    order_margin: dict[str, Decimal] = {}
    for position in account.positions.values():
        if not position.size:
            continue
        coin = market.instruments[position.symbol].settle_coin
        figures = value_position(position, market)
        unrealised[coin] = unrealised.get(coin, ZERO) + figures.unrealised_pnl
        position_margin[coin] = position_margin.get(coin, ZERO) + figures.initial_margin
        maintenance[coin] = maintenance.get(coin, ZERO) + figures.maintenance_margin
    for order in account.orders.values():
        if order.category == "spot":
            continue
        coin = market.instruments[order.symbol].settle_coin
        leverage = account.position(order.symbol, order.position_idx).leverage
        order_margin[coin] = order_margin.get(coin, ZERO) + value_order(order, leverage, market)

    coins: dict[str, CoinFigures] = {}
    for name in sorted({*account.coins, *unrealised, *order_margin}):
        usd_price = market.usd_price(name)
        record = account.coins.get(name) or Coin(name)
        equity = record.wallet_balance - record.spot_borrow + unrealised.get(name, ZERO)
        coins[name] = CoinFigures(
            usd_price=usd_price,
            equity=equity,
            usd_value=rounded(equity * usd_price),
            unrealised_pnl=unrealised.get(name, ZERO),
            order_margin=order_margin.get(name, ZERO),
            position_margin=position_margin.get(name, ZERO),
            maintenance_margin=maintenance.get(name, ZERO),
        )
    return total(account, coins)


def total(account: Account, coins: dict[str, CoinFigures]) -> WalletFigures:
    wallet_balance = margin_balance = ZERO
    for name, figures in coins.items():
        record = account.coins.get(name) or Coin(name)
        if not (record.margin_collateral and record.collateral_switch):
            continue
        ratio = COLLATERAL_RATIOS.get(name, ONE)
        wallet_balance += rounded((record.wallet_balance - record.spot_borrow) * figures.usd_price * ratio)
        margin_balance += rounded(figures.equity * figures.usd_price * ratio)
    initial_margin = sum(
        (rounded((c.order_margin + c.position_margin) * c.usd_price) for c in coins.values()), start=ZERO
    )
    return WalletFigures(
        coins=coins,
        total_equity=sum((c.usd_value for c in coins.values()), start=ZERO),
        total_wallet_balance=wallet_balance,
        total_margin_balance=margin_balance,
        total_available=margin_balance - initial_margin,
        total_unrealised_pnl=sum((rounded(c.unrealised_pnl * c.usd_price) for c in coins.values()), start=ZERO),
        total_initial_margin=initial_margin,
        total_maintenance_margin=sum((rounded(c.maintenance_margin * c.usd_price) for c in coins.values()), start=ZERO),
    )
