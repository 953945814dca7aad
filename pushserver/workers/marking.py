"""New figures from the last answers and newer mark prices; pure.

The open pnl of a linear contract is size x (mark - entry), so between two answers a position is known to the digit.
What follows from it moves by its change: pnl, the equity, and in cross margin what is available.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal

from pushserver.model import AccountData, Balance, DataType, Pnl, Position
from pushserver.workers.mark_bases import BalanceBase, Base, Holding, PnlBase, PositionsBase

#: Figures are kept to as many places as the exchange keeps them to.
PLACES = Decimal("0.00000001")
#: Types whose figures move with the market.
MARKED_TYPES = (DataType.BALANCE, DataType.POSITIONS, DataType.PNL)


class Line:
    """The open pnl of one holding as a straight line of its mark price, through what the exchange told."""

    __slots__ = ("_told", "coin", "offset", "slope", "symbol", "told_mark", "told_unrealized")

    def __init__(self, holding: Holding) -> None:
        told = self._told = holding.position
        self.symbol, self.coin = told.symbol, holding.coin
        self.told_mark, self.told_unrealized = told.mark_price, told.unrealized_pnl
        self.slope = told.size if told.side == "Buy" else -told.size
        by_formula = self.slope * (told.mark_price - told.entry_price)
        if abs(by_formula - told.unrealized_pnl) <= PLACES:
            self.offset = -self.slope * told.entry_price
        else:
            # The entry price was rounded, or counts fees in: only the change is sure.
            self.offset = told.unrealized_pnl - self.slope * told.mark_price

    def unrealized(self, mark: Decimal) -> Decimal:
        """At the mark that was told exactly what was told."""
        if mark == self.told_mark:
            return self.told_unrealized
        return (self.slope * mark + self.offset).quantize(PLACES, ROUND_HALF_EVEN)

    def position(self, mark: Decimal) -> Position:
        told = self._told
        return Position(told.symbol, told.side, told.size, told.entry_price, mark, self.unrealized(mark))


Rows = tuple[Line | Position, ...]


@dataclass(frozen=True, slots=True)
class Book:
    """The bases of one user, ready for prices. ``replaced`` gives the book with a newer base.

    ``symbols``: whose marks are needed. ``is_complete``: every position follows its mark. ``is_whole``: the balance
    moves with nothing but these positions.
    """

    positions: PositionsBase | None = None
    pnl: PnlBase | None = None
    balance: BalanceBase | None = None
    symbols: frozenset[str] = frozenset()
    is_complete: bool = False
    is_whole: bool = False
    _position_rows: Rows = field(default=(), repr=False)
    _pnl_rows: Rows = field(default=(), repr=False)
    _balance_rows: Rows | None = field(default=None, repr=False)

    def replaced(self, base: Base) -> Book:
        """The same book when ``base`` is no newer than what it has of the type."""
        known = self.base(type_of(base))
        if known is not None and known.as_of_ms >= base.as_of_ms:
            return self
        if isinstance(base, PositionsBase):
            return _prepared(base, self.pnl, self.balance)
        if isinstance(base, PnlBase):
            return _prepared(self.positions, base, self.balance)
        return _prepared(self.positions, self.pnl, base)

    def without(self, data_type: DataType) -> Book:
        """For a type nobody listens to any more."""
        return _prepared(
            None if data_type is DataType.POSITIONS else self.positions,
            None if data_type is DataType.PNL else self.pnl,
            None if data_type is DataType.BALANCE else self.balance,
        )

    def base(self, data_type: DataType) -> Base | None:
        return {
            DataType.POSITIONS: self.positions,
            DataType.PNL: self.pnl,
            DataType.BALANCE: self.balance,
        }.get(data_type)

    def types(self) -> tuple[DataType, ...]:
        """Those that can be computed."""
        known = []
        if self.balance is not None and self._balance_rows is not None:
            known.append(DataType.BALANCE)
        if self.positions is not None:
            known.append(DataType.POSITIONS)
        if self.pnl is not None:
            known.append(DataType.PNL)
        return tuple(known)

    def figures(self, data_type: DataType, marks: Mapping[str, Decimal]) -> AccountData:
        """The type's state at these marks, which name all ``symbols``; one of ``types()``."""
        return _FIGURES[data_type](self, marks)

    def _positions_at(self, marks: Mapping[str, Decimal]) -> tuple[Position, ...]:
        return tuple(row.position(marks[row.symbol]) if isinstance(row, Line) else row for row in self._position_rows)

    def _pnl_at(self, marks: Mapping[str, Decimal]) -> Pnl:
        assert self.pnl is not None
        told = self.pnl.figures
        unrealized = told.unrealized_pnl
        for row in self._pnl_rows:
            if isinstance(row, Line):
                unrealized += row.unrealized(marks[row.symbol]) - row.told_unrealized
        return replace(told, unrealized_pnl=unrealized, total_pnl=told.realized_pnl + unrealized)

    def _balance_at(self, marks: Mapping[str, Decimal]) -> Balance:
        assert self.balance is not None and self._balance_rows is not None
        told = self.balance.figures
        total, available = told.total_balance, told.available_balance
        for coin in self.balance.coins:
            change = -coin.unrealized
            for row in self._balance_rows:
                if isinstance(row, Line) and row.coin == coin.coin:
                    change += row.unrealized(marks[row.symbol])
            if change:
                in_dollars = (change * coin.rate).quantize(PLACES, ROUND_HALF_EVEN)
                total += in_dollars
                available += in_dollars if coin.is_margin else 0
        return Balance(total, available, told.used_margin)


_FIGURES: Mapping[DataType, Callable[[Book, Mapping[str, Decimal]], AccountData]] = {
    DataType.POSITIONS: Book._positions_at,
    DataType.PNL: Book._pnl_at,
    DataType.BALANCE: Book._balance_at,
}


def type_of(base: Base) -> DataType:
    if isinstance(base, PositionsBase):
        return DataType.POSITIONS
    return DataType.PNL if isinstance(base, PnlBase) else DataType.BALANCE


def _prepared(positions: PositionsBase | None, pnl: PnlBase | None, balance: BalanceBase | None) -> Book:
    position_rows = _rows(positions)
    pnl_rows = _rows(pnl)
    balance_rows = _rows_of_balance(balance, positions, position_rows, pnl, pnl_rows)
    lines = [row for row in (*position_rows, *pnl_rows, *(balance_rows or ())) if isinstance(row, Line)]
    held = [base for base in (positions, pnl) if base is not None]
    is_complete = bool(held) and all(holding.coin for base in held for holding in base.holdings)
    is_whole = is_complete and balance is not None and balance_rows is not None and balance.is_stable
    symbols = frozenset(line.symbol for line in lines)
    return Book(positions, pnl, balance, symbols, is_complete, is_whole, position_rows, pnl_rows, balance_rows)


def _rows(base: PositionsBase | PnlBase | None) -> Rows:
    """Lines where the price decides, and as they were told what it does not decide."""
    if base is None:
        return ()
    return tuple(Line(holding) if holding.coin else holding.position for holding in base.holdings)


def _rows_of_balance(
    balance: BalanceBase | None,
    positions: PositionsBase | None,
    position_rows: Rows,
    pnl: PnlBase | None,
    pnl_rows: Rows,
) -> Rows | None:
    """The holdings that the wallet counted; None when they are not known, or not all of them."""
    if balance is None:
        return None
    for base, rows in ((positions, position_rows), (pnl, pnl_rows)):
        if base is not None and base.trace == balance.trace:
            held_in = {holding.coin for holding in base.holdings}
            if all(coin.coin in held_in or not coin.unrealized for coin in balance.coins):
                settled = {coin.coin for coin in balance.coins}
                return rows if held_in - {""} <= settled else None
    return None
