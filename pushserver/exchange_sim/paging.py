"""Pages and cursors as Bybit hands them out: opaque, already percent-encoded, and *not* empty on the last page.

A cursor remembers where in the order its page ended, not a row number: rows that come or go between two pages neither
repeat nor hide others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pushserver.exchange_sim import refusals
from pushserver.exchange_sim.accounts import ClosedRow, Order, Position
from pushserver.exchange_sim.refusals import Refusal

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ordering(Generic[R]):
    """How rows are sorted (ascending by ``place``) and how a cursor tells a place; ``read`` may raise ValueError."""

    place: Callable[[R], Any]
    write: Callable[[R, R], str]
    read: Callable[[str], Any]

    def sort(self, rows: Sequence[R]) -> list[R]:
        return sorted(rows, key=self.place)


def cut_page(rows: Sequence[R], ordering: Ordering[R], limit: int, cursor: str) -> tuple[Sequence[R], str]:
    """The ``limit`` rows behind ``cursor`` ("" = from the start) and the next cursor; ``rows`` are sorted.

    ``cursor`` is decoded once, as a query string is. Raises Refusal 10001 for one never handed out here, such as one
    that a client encoded a second time.
    """
    start = 0
    if cursor:
        try:
            start = bisect_right(rows, ordering.read(cursor), key=ordering.place)
        except ValueError:
            raise Refusal(refusals.BAD_PARAMETER, "params error: cursor is invalid") from None
    page = rows[start : start + limit]
    if not page:
        return page, ""
    return page, ordering.write(page[0], page[-1]).replace(":", "%3A").replace(",", "%2C")


def read_newest_first(cursor: str) -> tuple[int, str]:
    order_id, stamp = cursor.split(",")[1].split(":") if cursor.count(",") == 1 else ("", "")
    return -int(stamp), order_id


def read_by_symbol(cursor: str) -> tuple[str, int]:
    symbol, _, position_idx = cursor.split(",") if cursor.count(",") == 2 else ("", "", "")
    return symbol, int(position_idx)


ORDERS: Ordering[Order] = Ordering(
    place=lambda order: (-order.created_ms, order.order_id),
    write=lambda first, last: f"{first.order_id}:{first.created_ms},{last.order_id}:{last.created_ms}",
    read=read_newest_first,
)
CLOSED_ROWS: Ordering[ClosedRow] = Ordering(
    place=lambda row: (-row.updated_ms, row.order_id),
    write=lambda first, last: f"{first.order_id}:{first.updated_ms},{last.order_id}:{last.updated_ms}",
    read=read_newest_first,
)
POSITIONS: Ordering[Position] = Ordering(
    place=lambda position: (position.symbol, position.position_idx),
    write=lambda _, last: f"{last.symbol},{last.updated_ms},{last.position_idx}",
    read=read_by_symbol,
)
