from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.exchange_sim.accounts import Order, Position
from pushserver.exchange_sim.money import ONE
from pushserver.exchange_sim.paging import ORDERS, POSITIONS, cut_page
from pushserver.exchange_sim.refusals import Refusal


def order(number: int, created_ms: int) -> Order:
    return Order(f"id-{number:04d}", "BTCUSDT", "Buy", ONE, created_ms=created_ms)


@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 10))
def test_pages_show_every_row_once_and_newest_first(stamps: list[int], limit: int) -> None:
    rows = ORDERS.sort([order(number, stamp) for number, stamp in enumerate(stamps)])
    seen: list[Order] = []
    cursor = ""
    while True:
        page, next_cursor = cut_page(rows, ORDERS, limit, unquote(cursor))
        if not page:
            break
        seen += page
        cursor = next_cursor
    assert seen == rows
    assert [o.created_ms for o in seen] == sorted(stamps, reverse=True)


def test_the_last_page_still_has_a_cursor_and_only_an_empty_page_has_none() -> None:
    rows = [order(1, 5)]
    page, cursor = cut_page(rows, ORDERS, 20, "")
    assert len(page) == 1 and cursor == "id-0001%3A5%2Cid-0001%3A5"
    assert cut_page(rows, ORDERS, 20, unquote(cursor)) == ([], "")


def test_a_row_that_vanishes_between_pages_hides_no_other() -> None:
    rows = ORDERS.sort([order(number, 5) for number in range(6)])
    _, cursor = cut_page(rows, ORDERS, 2, "")
    page, _ = cut_page([rows[0], *rows[2:]], ORDERS, 2, unquote(cursor))
    assert page == rows[2:4]


def test_positions_page_by_symbol_and_leg() -> None:
    rows = POSITIONS.sort([Position("ETHUSDT", 0), Position("BTCUSDT", 2), Position("BTCUSDT", 1)])
    page, cursor = cut_page(rows, POSITIONS, 2, "")
    assert [(p.symbol, p.position_idx) for p in page] == [("BTCUSDT", 1), ("BTCUSDT", 2)]
    assert cursor == "BTCUSDT%2C0%2C2"
    assert cut_page(rows, POSITIONS, 2, unquote(cursor))[0] == [rows[2]]


@pytest.mark.parametrize("cursor", ["id-0001%3A5%2Cid-0001%3A5", "nonsense", "a,b", "a:1,b:c"])
def test_a_cursor_never_handed_out_is_refused(cursor: str) -> None:
    with pytest.raises(Refusal) as caught:
        cut_page([order(1, 5)], ORDERS, 20, cursor)
    assert caught.value.code == 10001
