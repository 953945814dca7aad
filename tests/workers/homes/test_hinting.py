"""What is made of the events of a private stream."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.exchange import stream_messages
from pushserver.exchange.stream_messages import Happening, Topic
from pushserver.workers.hints import CATCH_UP, CLOSED_PNL, ORDERS, POSITIONS, WALLET
from pushserver.workers.homes.hinting import (
    BUSY_WAKES,
    BUSY_WINDOW_S,
    REMEMBERED,
    WAKE_EVERY_S,
    AccountNews,
    HintQueue,
)


def told(topic: Topic, *rows: dict[str, Any]) -> Happening:
    return Happening(topic, "", rows)


def position(seq: int, **changes: Any) -> Happening:
    row = {
        "category": "linear", "symbol": "BTCUSDT", "positionIdx": 0, "side": "Buy", "size": "1", "entryPrice": "100",
        "markPrice": "100", "unrealisedPnl": "0", "seq": seq,
    }  # fmt: skip
    return told(Topic.POSITION, row | changes)


def order(updated: int, **changes: Any) -> Happening:
    row = {"category": "linear", "orderId": "o1", "orderStatus": "New", "qty": "1", "updatedTime": str(updated)}
    return told(Topic.ORDER, row | changes)


def execution(name: str, **changes: Any) -> Happening:
    return told(Topic.EXECUTION, {"execId": name, "symbol": "BTCUSDT", "closedSize": "0", "execPnl": "0"} | changes)


@pytest.fixture
def news() -> AccountNews:
    return AccountNews()


def test_each_kind_of_event_says_where_to_look(news: AccountNews) -> None:
    assert news.hints(told(Topic.WALLET, {"accountType": "UNIFIED"})) == WALLET
    assert news.hints(position(1)) == POSITIONS | WALLET
    assert news.hints(position(2, size="0", side="")) == POSITIONS | WALLET | CLOSED_PNL
    assert news.hints(order(1)) == ORDERS | WALLET
    assert news.hints(execution("e1")) == POSITIONS | WALLET | ORDERS
    assert news.hints(execution("e2", closedSize="0.5")) == CATCH_UP


def test_a_fill_of_which_nothing_is_known_may_have_closed_something(news: AccountNews) -> None:
    assert news.hints(told(Topic.EXECUTION, {"execId": "e1"})) == CATCH_UP


def test_H10_a_position_told_again_with_nothing_changed_is_no_news(news: AccountNews) -> None:
    assert news.hints(position(1))
    assert news.hints(position(2, markPrice="105", unrealisedPnl="5")) == 0
    assert news.hints(position(3, size="2")) == POSITIONS | WALLET
    assert news.hints(position(4, entryPrice="101", size="2")) == POSITIONS | WALLET
    assert news.hints(position(5, cumRealisedPnl="1", entryPrice="101", size="2")) == POSITIONS | WALLET


def test_H10_what_comes_late_is_no_news(news: AccountNews) -> None:
    assert news.hints(position(7, size="2"))
    assert news.hints(position(6, size="1")) == 0
    assert news.hints(order(9, orderStatus="Filled"))
    assert news.hints(order(8, orderStatus="New")) == 0


def test_H10_a_fill_or_an_order_told_twice_is_news_once(news: AccountNews) -> None:
    assert news.hints(execution("e1"))
    assert news.hints(execution("e1")) == 0
    assert news.hints(order(1))
    assert news.hints(order(1)) == 0
    assert news.hints(order(1, orderStatus="Filled")) == ORDERS | WALLET


def test_legs_and_markets_are_told_apart(news: AccountNews) -> None:
    assert news.hints(position(1, positionIdx=1))
    assert news.hints(position(1, positionIdx=2))
    assert news.hints(position(1, symbol="ETHUSDT"))
    assert news.hints(position(1, category="inverse"))


def test_rows_of_one_message_are_looked_at_together(news: AccountNews) -> None:
    both = told(Topic.ORDER, {"orderId": "o1", "orderStatus": "New"}, {"orderId": "o2", "orderStatus": "New"})
    assert news.hints(both) == ORDERS | WALLET
    assert news.hints(told(Topic.WALLET)) == 0, "no rows, no news"


def test_memory_is_bounded_and_what_is_forgotten_counts_as_news(news: AccountNews) -> None:
    for number in range(REMEMBERED + 1):
        assert news.hints(execution(f"e{number}"))
    assert news.hints(execution(f"e{REMEMBERED}")) == 0
    assert news.hints(execution("e0"))


WORDS = st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.lists(st.integers(), max_size=2)
NAMES = st.sampled_from(
    ["category", "symbol", "positionIdx", "seq", "size", "side", "orderId", "updatedTime", "execId", "closedSize", "x"]
)


@given(st.sampled_from(Topic), st.lists(st.dictionaries(NAMES, WORDS), max_size=4))
def test_H10_no_row_makes_it_raise(topic: Topic, rows: list[dict[str, Any]]) -> None:
    news = AccountNews()
    for _ in range(2):
        assert 0 <= news.hints(told(topic, *rows)) <= CATCH_UP


@given(st.binary(max_size=300) | st.from_regex(r'\{"(topic|op|success|data)":.{0,40}\}').map(str.encode))
def test_H10_no_message_makes_the_reader_raise(raw: bytes) -> None:
    stream_messages.read(raw)


def test_the_first_hint_is_passed_on_at_once() -> None:
    queue = HintQueue()
    queue.add(4, WALLET)
    assert queue.wait_s(10.0) == 0.0
    assert queue.take(10.0) == {(WALLET, False): [4]}
    assert queue.wait_s(10.0) is None


def test_H10_however_much_happens_a_user_is_woken_twice_a_second_at_most() -> None:
    queue = HintQueue()
    wakes = []
    for step in range(1_000):
        now_s = 10.0 + step / 200
        queue.add(4, 1 << (step % 4))
        wakes += [(now_s, hints) for (hints, _), users in queue.take(now_s).items() if users == [4]]
    assert len(wakes) == 5.0 / WAKE_EVERY_S
    assert all(later[0] - earlier[0] >= WAKE_EVERY_S for earlier, later in itertools.pairwise(wakes))
    assert {hints for _, hints in wakes[1:]} == {CATCH_UP}, "none of the hints in between is lost"


def test_others_do_not_wait_for_a_busy_user() -> None:
    queue = HintQueue()
    queue.add(1, WALLET)
    queue.take(10.0)
    queue.add(1, ORDERS)
    queue.add(2, ORDERS)
    assert queue.take(10.1) == {(ORDERS, False): [2]}
    assert queue.wait_s(10.1) == pytest.approx(0.4)
    assert queue.take(10.5) == {(ORDERS, False): [1]}


def test_what_could_not_be_passed_on_is_passed_on_later_together_with_what_came_since() -> None:
    queue = HintQueue()
    queue.add(1, WALLET)
    lost = queue.take(10.0)
    queue.add(1, ORDERS)
    queue.put_back(lost)
    assert queue.take(10.1) == {(WALLET | ORDERS, False): [1]}


def test_a_user_that_left_is_not_woken() -> None:
    queue = HintQueue()
    queue.add(1, WALLET)
    queue.forget(1)
    assert queue.take(10.0) == {}


def test_H08_who_trades_all_the_time_no_longer_passes_the_others() -> None:
    queue = HintQueue()
    busy = []
    for step in range(60):
        queue.add(1, WALLET)
        busy += [is_busy for (_, is_busy) in queue.take(step * 0.5)]
    assert busy[:BUSY_WAKES] == [False] * BUSY_WAKES
    assert sum(busy) > 30
    queue.add(1, WALLET)
    assert list(queue.take(30.0 + BUSY_WINDOW_S)) == [(WALLET, False)], "calm again"
