"""What a client that reads everything correctly must come to: the account in twelve figures and two lists.

Made from the account itself and not from the rows of the answers, so that it can convict a wrong mapping. Covers one
linear settle coin. Numbers are plain decimal strings.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from pushserver.exchange_sim.accounts import Account, Coin, Order
from pushserver.exchange_sim.market import Market
from pushserver.exchange_sim.money import ZERO, text
from pushserver.exchange_sim.valuation import value_position, value_wallet

DAY_MS = 86_400_000
#: Under isolated margin the dollar coins are what is free and what is used.
ISOLATED_MARGIN_COINS = frozenset({"USDT", "USDC"})
TYPES = ("balance", "positions", "pnl", "orders")


def figures_of(account: Account, market: Market, now_ms: int, settle_coin: str = "USDT") -> dict[str, Any]:
    """``{"balance": {...}, "positions": [...], "pnl": {...}, "orders": [...]}`` at this instant."""
    positions = position_figures(account, market, settle_coin)
    return {
        "balance": balance_figures(account, market),
        "positions": positions,
        "pnl": pnl_figures(account, market, now_ms, settle_coin),
        "orders": order_figures(account, market, settle_coin),
    }


def balance_figures(account: Account, market: Market) -> dict[str, str] | None:
    """None for a wallet never used: all its totals are blank."""
    if not account.coins and not account.positions and not account.orders:
        return None
    wallet = value_wallet(account, market)
    available, used = wallet.total_available, wallet.total_initial_margin
    if account.margin_mode == "ISOLATED_MARGIN":
        available = used = ZERO
        for name in ISOLATED_MARGIN_COINS & wallet.coins.keys():
            coin = wallet.coins[name]
            record = account.coins.get(name) or Coin(name)
            margin = coin.position_margin + coin.order_margin
            used += margin * coin.usd_price
            available += (record.wallet_balance - margin - record.locked - record.bonus) * coin.usd_price
    return {
        "total_balance": text(wallet.total_equity),
        "available_balance": text(available),
        "used_margin": text(used),
    }


def position_figures(account: Account, market: Market, settle_coin: str) -> list[dict[str, str]]:
    rows = []
    for position in account.positions.values():
        instrument = market.instruments[position.symbol]
        if not position.size or instrument.category != "linear" or instrument.settle_coin != settle_coin:
            continue
        figures = value_position(position, market)
        rows.append(
            {
                "symbol": position.symbol,
                "side": position.side,
                "size": text(position.size),
                "entry_price": text(position.avg_price),
                "mark_price": text(figures.mark),
                "unrealized_pnl": text(figures.unrealised_pnl),
            }
        )
    return sorted(rows, key=lambda row: (row["symbol"], row["side"]))


def pnl_figures(account: Account, market: Market, now_ms: int, settle_coin: str) -> dict[str, str]:
    midnight_ms = now_ms - now_ms % DAY_MS
    unrealised = ZERO
    for position in account.positions.values():
        instrument = market.instruments[position.symbol]
        if position.size and instrument.category == "linear" and instrument.settle_coin == settle_coin:
            unrealised += value_position(position, market).unrealised_pnl
    coin = account.coins.get(settle_coin)
    realised = coin.cum_realised_pnl if coin else ZERO
    today = sum(
        (r.closed_pnl for r in account.closed if r.category == "linear" and r.updated_ms >= midnight_ms), start=ZERO
    )
    return {
        "total_pnl": text(realised + unrealised),
        "today_pnl": text(today),
        "unrealized_pnl": text(unrealised),
        "realized_pnl": text(realised),
    }


def order_figures(account: Account, market: Market, settle_coin: str) -> list[dict[str, str | None]]:
    rows = [
        {
            "order_id": order.order_id,
            "symbol": order.symbol,
            "side": order.side,
            "quantity": text(order.quantity),
            "price": None if price is None else text(price),
            "status": order.status,
        }
        for order in account.orders.values()
        if order.category == "linear" and market.instruments[order.symbol].settle_coin == settle_coin
        for price in (shown_price(order),)
    ]
    return sorted(rows, key=lambda row: str(row["order_id"]))


def shown_price(order: Order) -> Decimal | None:
    """The limit price; without one the trigger price; else nothing."""
    if order.order_type == "Limit":
        return order.price
    return order.trigger_price or None
