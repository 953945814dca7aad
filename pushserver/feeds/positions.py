"""Positions: every row with a size, as the exchange sees it.

In hedge mode a symbol has two rows, one per side. Inverse contracts have their size in dollars and their pnl in the
coin; options have both in their settle coin. The figures are passed on as they are, not converted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pushserver.errors import AnswerMalformed
from pushserver.feeds.numbers import decimal_at, text_at
from pushserver.model import Position

SIDES = frozenset({"Buy", "Sell"})


def held(rows: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The rows that hold something. Flat ones have blanks in most of their fields, so nothing else is read of them.

    Raises:
        AnswerMalformed: a size is blank, negative or no number.
    """
    return tuple(row for row in rows if _size_of(row))


def _size_of(row: Mapping[str, Any]) -> object:
    size = decimal_at(row, "size")
    if size < 0:
        raise AnswerMalformed("size is negative")
    return size


def map_positions(rows: Iterable[Mapping[str, Any]]) -> tuple[Position, ...]:
    """Positions sorted by symbol, then side.

    Raises:
        AnswerMalformed: a field of a row with a size is blank or of the wrong kind.
    """
    return tuple(sorted((_position(row) for row in held(rows)), key=lambda position: (position.symbol, position.side)))


def _position(row: Mapping[str, Any]) -> Position:
    side = text_at(row, "side")
    if side not in SIDES:
        raise AnswerMalformed("side is neither Buy nor Sell")
    return Position(
        symbol=text_at(row, "symbol"),
        side=side,
        size=decimal_at(row, "size"),
        entry_price=decimal_at(row, "avgPrice"),
        mark_price=decimal_at(row, "markPrice"),
        unrealized_pnl=decimal_at(row, "unrealisedPnl"),
    )
