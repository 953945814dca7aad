"""What can be traded and at which mark: the market everybody shares.

``walk`` is pure (told the elapsed time and the source of chance); ``Market`` holds the marks of the moment.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from pushserver.exchange_sim.money import ONE, ZERO


@dataclass(frozen=True, slots=True)
class Instrument:
    """One contract. ``settle_coin`` is what profit is paid in; an inverse contract counts its size in USD."""

    symbol: str
    category: str
    base_coin: str
    quote_coin: str
    settle_coin: str
    tick_size: Decimal = Decimal("0.01")
    quantity_step: Decimal = Decimal("0.001")
    follows: str | None = None  # the symbol whose mark it copies, so that BTCUSD and BTCUSDT never drift apart
    volatility: float = 0.0002  # standard deviation of the relative move in one second

    @property
    def inverse(self) -> bool:
        return self.category == "inverse"


def linear(symbol: str, tick_size: str, quantity_step: str, volatility: float) -> Instrument:
    return Instrument(
        symbol,
        "linear",
        symbol.removesuffix("USDT"),
        "USDT",
        "USDT",
        Decimal(tick_size),
        Decimal(quantity_step),
        volatility=volatility,
    )


DEFAULT_INSTRUMENTS = (
    linear("BTCUSDT", "0.1", "0.001", 0.00015),
    linear("ETHUSDT", "0.01", "0.01", 0.0002),
    linear("SOLUSDT", "0.01", "0.1", 0.0003),
    Instrument("BTCPERP", "linear", "BTC", "USDC", "USDC", Decimal("0.1"), Decimal("0.001"), follows="BTCUSDT"),
    Instrument("BTCUSD", "inverse", "BTC", "USD", "BTC", Decimal("0.1"), Decimal(1), follows="BTCUSDT"),
    Instrument("ETHUSD", "inverse", "ETH", "USD", "ETH", Decimal("0.01"), Decimal(1), follows="ETHUSDT"),
)

DEFAULT_MARKS = {"BTCUSDT": Decimal("61450"), "ETHUSDT": Decimal("3120.5"), "SOLUSDT": Decimal("148.25")}

#: How much of a coin's value counts as collateral; a coin not named here counts fully.
COLLATERAL_RATIOS = {"BTC": Decimal("0.99"), "ETH": Decimal("0.98"), "SOL": Decimal("0.9")}


def guess_instrument(symbol: str) -> Instrument:
    """The contract a symbol's name stands for (``XRPUSDT`` linear, ``XRPPERP`` in USDC, ``XRPUSD`` inverse).

    Raises ValueError for any other name.
    """
    for suffix, category, quote, settle in (
        ("USDT", "linear", "USDT", "USDT"),
        ("PERP", "linear", "USDC", "USDC"),
        ("USD", "inverse", "USD", ""),
    ):
        base = symbol.removesuffix(suffix)
        if base != symbol and base.isalnum() and base.isupper():
            return Instrument(symbol, category, base, quote, settle or base, Decimal("0.0001"))
    raise ValueError(f"no contract is named {symbol!r}")


class Market:
    """Instruments, marks and the USD price of coins. ``version`` grows with every change of a mark or price."""

    def __init__(self) -> None:
        self.instruments = {instrument.symbol: instrument for instrument in DEFAULT_INSTRUMENTS}
        self.marks: dict[str, Decimal] = {}
        self.stable_prices = {"USDT": ONE, "USDC": ONE, "USD": ONE}
        self.version = 0
        self.set_prices(DEFAULT_MARKS)
        self.opening_marks = dict(self.marks)

    def set_prices(self, marks: Mapping[str, Decimal], usd_prices: Mapping[str, Decimal] | None = None) -> set[str]:
        """Set these marks, those that follow them, and the USD price of coins that have no market of their own.

        New symbols become contracts. Returns the symbols that really moved. Raises ValueError for a price that is not
        above zero or a symbol that cannot be a contract, and has then changed nothing.
        """
        usd_prices = usd_prices or {}
        for name, price in (*marks.items(), *usd_prices.items()):
            if not price.is_finite() or price <= ZERO:
                raise ValueError(f"the price of {name} must be above zero")
        self.instruments.update({s: guess_instrument(s) for s in marks if s not in self.instruments})
        wanted = dict(marks)
        for instrument in self.instruments.values():
            leader = instrument.follows
            if leader is not None and leader in marks and instrument.symbol not in marks:
                wanted[instrument.symbol] = marks[leader]
        moved = {symbol for symbol, mark in wanted.items() if self.marks.get(symbol) != mark}
        self.marks.update(wanted)
        self.stable_prices.update(usd_prices)
        if moved or usd_prices:
            self.version += 1
        return moved

    def instrument(self, symbol: str) -> Instrument:
        """Raises ValueError for an unknown symbol."""
        try:
            return self.instruments[symbol]
        except KeyError:
            raise ValueError(f"unknown symbol {symbol!r}") from None

    def usd_price(self, coin: str) -> Decimal:
        """USD for one ``coin``. Raises ValueError for a coin nobody quotes."""
        stable = self.stable_prices.get(coin)
        if stable is not None:
            return stable
        mark = self.marks.get(f"{coin}USDT")
        if mark is None:
            raise ValueError(f"no price for coin {coin!r}")
        return mark * self.stable_prices["USDT"]


def walk(market: Market, chance: random.Random, elapsed_s: float) -> dict[str, Decimal]:
    """The marks after ``elapsed_s`` more seconds: a geometric random walk of every symbol that follows no other."""
    moved: dict[str, Decimal] = {}
    for symbol, instrument in market.instruments.items():
        if instrument.follows is not None:
            continue
        tick = instrument.tick_size
        step = chance.gauss(0.0, instrument.volatility * math.sqrt(elapsed_s))
        ticks = (market.marks[symbol] * Decimal(repr(math.exp(step))) / tick).to_integral_value()
        moved[symbol] = max(ticks * tick, tick)
    return moved
