"""What mark prices are applied to: the last answer about each type, cut down to what moves with the market.

A round makes a base of every state it commits and stores it in the same step; the user's home applies prices to it
until the next answer. Bases of different types may be of different moments, so each has its own holdings, or says by
``trace`` which holdings it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from pushserver.errors import AnswerMalformed
from pushserver.feeds.coins import DOLLAR_COINS, in_dollars
from pushserver.feeds.numbers import LARGEST, decimal_at, is_blank, rows_at, text_at
from pushserver.feeds.positions import held, map_positions
from pushserver.model import Balance, DataType, Pnl, Position

Row = Mapping[str, Any]
LINEAR = "linear"


@dataclass(frozen=True, slots=True)
class Holding:
    """One position as the exchange last told it. ``coin`` is what it is settled in; empty: its pnl does not follow
    from the mark price in a straight line (inverse contracts, options), so it stays as it was told."""

    position: Position
    coin: str


@dataclass(frozen=True, slots=True)
class CoinBase:
    """A coin in which positions are settled: USD for one, the open pnl that the wallet counted at its moment, and
    whether the coin counts as margin, so that what is available moves with it."""

    coin: str
    rate: Decimal
    unrealized: Decimal
    is_margin: bool


@dataclass(frozen=True, slots=True)
class PositionsBase:
    as_of_ms: int
    trace: str
    holdings: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class PnlBase:
    as_of_ms: int
    trace: str
    holdings: tuple[Holding, ...]
    figures: Pnl


@dataclass(frozen=True, slots=True)
class BalanceBase:
    """``is_stable``: nothing but dollar coins, so with the positions everything that moves is known."""

    as_of_ms: int
    trace: str
    figures: Balance
    coins: tuple[CoinBase, ...]
    is_stable: bool


Base = PositionsBase | PnlBase | BalanceBase


def positions_base(rows: Sequence[Row], as_of_ms: int, trace: str) -> bytes:
    """``rows`` as the exchange sent them, ``trace`` as ``Figures.positions_trace`` has it.

    Raises AnswerMalformed, as mapping the rows does.
    """
    return orjson.dumps([as_of_ms, trace, _holding_fields(rows)])


def pnl_base(figures: Pnl, rows: Sequence[Row], as_of_ms: int, trace: str) -> bytes:
    """Raises AnswerMalformed, as mapping the rows does."""
    pnl = [figures.total_pnl, figures.today_pnl, figures.unrealized_pnl, figures.realized_pnl]
    return orjson.dumps([as_of_ms, trace, _holding_fields(rows), [*map(str, pnl)]])


def balance_base(figures: Balance, account: Row, as_of_ms: int, trace: str | None) -> bytes:
    """``account`` as the exchange sent it; ``trace`` of the positions that were held then. Empty when it cannot be
    had, because the wallet lacks what is needed or nobody looked at the positions."""
    if trace is None:
        return b""
    try:
        coins = rows_at(account, "coin")
        settling = [_coin_fields(coin, account) for coin in coins if coin.get("coin") in DOLLAR_COINS]
        is_stable = all(coin.get("coin") in DOLLAR_COINS or not decimal_at(coin, "usdValue") for coin in coins)
    except AnswerMalformed:
        return b""
    balance = [figures.total_balance, figures.available_balance, figures.used_margin]
    return orjson.dumps([as_of_ms, trace, [*map(str, balance)], settling, is_stable])


def base_from_bytes(data_type: DataType, raw: bytes) -> Base | None:
    """None for whatever no round of this program version wrote."""
    try:
        return _READERS[data_type](*orjson.loads(raw))
    except (ValueError, TypeError, KeyError, IndexError, InvalidOperation):
        return None


def settle_coin(category: object, symbol: str) -> str:
    """What a contract's profit is paid in, by its name: ``BTCUSDT``, ``BTCUSDT-26DEC25`` USDT; ``BTCPERP``,
    ``BTC-26DEC25`` USDC. Empty where its pnl is no straight line of the mark price."""
    if category != LINEAR:
        return ""
    name, _, delivery = symbol.partition("-")
    if name.endswith("USDT"):
        return "USDT"
    return "USDC" if name.endswith("PERP") or delivery else ""


def _holding_fields(rows: Iterable[Row]) -> list[list[str]]:
    fields = []
    for row in held(rows):
        [position] = map_positions([row])
        numbers = (position.size, position.entry_price, position.mark_price, position.unrealized_pnl)
        coin = settle_coin(row.get("category"), position.symbol) if position.mark_price > 0 else ""
        fields.append([position.symbol, position.side, *map(str, numbers), coin])
    return sorted(fields, key=lambda texts: (texts[0], texts[1]))


def _coin_fields(coin: Row, account: Row) -> list[object]:
    unrealized = decimal_at(coin, "unrealisedPnl")
    rate = in_dollars(Decimal(1), coin) if decimal_at(coin, "equity") else Decimal(1)
    is_cross = not is_blank(account.get("totalAvailableBalance"))
    is_margin = is_cross and coin.get("marginCollateral") is not False and coin.get("collateralSwitch") is not False
    return [text_at(coin, "coin"), str(rate), str(unrealized), is_margin]


def _number(text: Any) -> Decimal:
    if not isinstance(text, str):
        raise TypeError("figures are texts")
    number = Decimal(text)
    if not number.is_finite() or abs(number) >= LARGEST:
        raise ValueError("not a figure of a sensible size")
    return number


def _of_kind(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{kind.__name__} expected")
    return value


def _holdings(rows: Any) -> tuple[Holding, ...]:
    holdings = []
    for symbol, side, size, entry, mark, unrealized, coin in rows:
        if side not in ("Buy", "Sell"):
            raise ValueError("no side")
        numbers = map(_number, (size, entry, mark, unrealized))
        holdings.append(Holding(Position(_of_kind(symbol, str), side, *numbers), _of_kind(coin, str)))
    return tuple(holdings)


def _read_positions(as_of_ms: Any, trace: Any, rows: Any) -> Base:
    return PositionsBase(_of_kind(as_of_ms, int), _of_kind(trace, str), _holdings(rows))


def _read_pnl(as_of_ms: Any, trace: Any, rows: Any, figures: Any) -> Base:
    total, today, unrealized, realized = map(_number, figures)
    pnl = Pnl(total_pnl=total, today_pnl=today, unrealized_pnl=unrealized, realized_pnl=realized)
    return PnlBase(_of_kind(as_of_ms, int), _of_kind(trace, str), _holdings(rows), pnl)


def _read_balance(as_of_ms: Any, trace: Any, figures: Any, coins: Any, is_stable: Any) -> Base:
    total, available, used = map(_number, figures)
    bases = tuple(
        CoinBase(_of_kind(coin, str), _number(rate), _number(unrealized), _of_kind(is_margin, bool))
        for coin, rate, unrealized, is_margin in coins
    )
    balance = Balance(total, available, used)
    return BalanceBase(_of_kind(as_of_ms, int), _of_kind(trace, str), balance, bases, _of_kind(is_stable, bool))


_READERS: Mapping[DataType, Callable[..., Base]] = {
    DataType.POSITIONS: _read_positions,
    DataType.PNL: _read_pnl,
    DataType.BALANCE: _read_balance,
}
