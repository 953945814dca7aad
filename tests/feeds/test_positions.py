"""Positions out of one-way, hedge, portfolio-margin and flat rows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from pushserver.errors import AnswerMalformed
from pushserver.feeds.positions import map_positions
from pushserver.model import Position

Rows = Callable[[str], list[dict[str, Any]]]


def position(symbol: str, side: str, *figures: str) -> Position:
    return Position(symbol, side, *map(Decimal, figures))


def test_rows_are_sorted_by_symbol(rows: Rows) -> None:
    assert map_positions(rows("positions_one_way")) == (
        position("BTCUSDT", "Buy", "0.02", "61000", "61450", "9"),
        position("SOLUSDT", "Sell", "3.5", "150.2", "148.25", "6.825"),
    )


def test_hedge_mode_gives_both_legs_and_leaves_out_the_flat_one(rows: Rows) -> None:
    assert map_positions(rows("positions_hedge")) == (
        position("BTCUSDT", "Buy", "0.2", "60000", "61450", "290"),
        position("BTCUSDT", "Sell", "0.05", "62000.5", "61450", "27.525"),
        position("ETHUSDT", "Buy", "1", "3000", "3120.5", "120.5"),
    )


def test_the_order_of_rows_does_not_matter(rows: Rows) -> None:
    hedge = rows("positions_hedge")
    assert map_positions(hedge) == map_positions(hedge[::-1])


@pytest.mark.parametrize("name", ["positions_flat_rows", "positions_none"])
def test_flat_rows_and_no_rows_are_flat(rows: Rows, name: str) -> None:
    assert map_positions(rows(name)) == ()


def test_portfolio_margin_blanks_nothing_we_need(rows: Rows) -> None:
    assert map_positions(rows("positions_portfolio_margin")) == (
        position("BTCUSDT", "Buy", "0.01", "177489.6", "177188", "-3.016"),
    )


def test_an_inverse_position_is_passed_on_in_its_coin(rows: Rows) -> None:
    assert map_positions(rows("positions_inverse")) == (
        position("BTCUSD", "Sell", "1000", "60000", "61450", "-0.00039328"),
    )


@pytest.mark.parametrize("blank", ["", None, "missing", "\x00", True, {}, "x" * 200])
@pytest.mark.parametrize("field", ["symbol", "side", "size", "avgPrice", "markPrice", "unrealisedPnl"])
def test_H06_a_blank_of_an_open_position_is_a_failed_fetch(rows: Rows, field: str, blank: Any) -> None:
    row = rows("positions_one_way")[0] | {field: blank}
    if blank == "missing":
        del row[field]
    with pytest.raises(AnswerMalformed):
        map_positions([row])


@pytest.mark.parametrize(("field", "value"), [("side", "None"), ("side", "buy"), ("size", "-1")])
def test_H06_a_value_that_makes_no_sense_is_a_failed_fetch(rows: Rows, field: str, value: str) -> None:
    with pytest.raises(AnswerMalformed):
        map_positions([rows("positions_one_way")[0] | {field: value}])


def test_H06_a_flat_row_must_still_say_that_it_is_flat(rows: Rows) -> None:
    with pytest.raises(AnswerMalformed):
        map_positions([rows("positions_flat_rows")[0] | {"size": ""}])
