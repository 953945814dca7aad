"""What is asked of Bybit, page by page, and what becomes of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import gevent
import gevent.pool
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.clock import ManualClock
from pushserver.errors import (
    AddressBanned,
    AnswerMalformed,
    ClockSkew,
    ExchangeError,
    ExchangeUnavailable,
    KeyRefused,
    RateLimited,
)
from pushserver.exchange.bybit import LONGEST_WINDOW_MS, BybitExchange, windows
from pushserver.exchange.port import Exchange
from pushserver.model import Credentials, Market, Secret
from pushserver.observers import RecordingObserver, RequestAnswered
from tests.exchange.stub import NOW_MS, Handler, Request, Step, Stub, always, envelope, http, in_turn, page

USDT, USDC = Market("linear", "USDT"), Market("linear", "USDC")
INVERSE, SPOT, OPTION = Market("inverse"), Market("spot"), Market("option")
DAY_MS = 86_400_000
MIDNIGHT_MS = NOW_MS - NOW_MS % DAY_MS
ACCOUNT = {"accountType": "UNIFIED", "totalEquity": "1", "coin": []}

Make = Callable[..., BybitExchange]


def by_category(rows: dict[str, list[Any]]) -> Handler:
    return lambda request: [http(page(*rows.get(request.params.get("category", ""), [])))]


def symbols(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"symbol": f"S{number}USDT", "positionIdx": 0} for number in range(start, start + count)]


def closed(updated_ms: object, order_id: str = "a") -> dict[str, Any]:
    return {"orderId": order_id, "updatedTime": updated_ms, "closedPnl": "1"}


def test_the_client_is_an_exchange(exchange: BybitExchange) -> None:
    port: Exchange = exchange
    assert port is exchange


def test_the_wallet_is_the_unified_account_stamped_by_the_exchange(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(envelope({"list": [ACCOUNT]}, time_ms=NOW_MS - 7)))
    answer = exchange.wallet(credentials, deadline_s)
    assert (answer.rows, answer.as_of_ms, answer.requests) == ((ACCOUNT,), NOW_MS - 7, 1)
    assert stub.requests[0].params == {"accountType": "UNIFIED"}


@pytest.mark.parametrize(
    "result",
    [
        {"list": []},
        {"list": [ACCOUNT, ACCOUNT]},
        {"list": [{"accountType": "CONTRACT"}]},
        {"list": None},
        {"list": {}},
        {"list": [[]]},
        {"list": ["x"]},
        {},
        [],
        None,
        "x",
    ],
)
def test_H06_a_wallet_without_one_account_is_malformed(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, result: Any
) -> None:
    body = envelope({}).replace(b'"result": {}', b'"result": ' + json.dumps(result).encode())
    stub.handler = always(http(body))
    with pytest.raises(AnswerMalformed) as caught:
        exchange.wallet(credentials, deadline_s)
    assert caught.value.endpoint == "wallet_balance"


@pytest.mark.parametrize("time_ms", [None, "1767225600000", 1.5, True, 0, -1, 10**15, [], "x"])
def test_H06_an_answer_without_a_time_is_malformed(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, time_ms: Any
) -> None:
    stub.handler = always(http(envelope({"list": [ACCOUNT]}, time_ms=time_ms)))
    with pytest.raises(AnswerMalformed):
        exchange.wallet(credentials, deadline_s)


def test_positions_ask_every_market_that_can_have_some(
    stub: Stub, exchange_at: Make, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = by_category({"linear": symbols(1), "inverse": [{"symbol": "BTCUSD", "positionIdx": 0}]})
    exchange = exchange_at(stub.url, (USDT, USDC, INVERSE, SPOT, OPTION))
    answer = exchange.positions(credentials, deadline_s)
    assert [request.params for request in stub.requests] == [
        {"category": "linear", "settleCoin": "USDT", "limit": "200"},
        {"category": "linear", "settleCoin": "USDC", "limit": "200"},
        {"category": "inverse", "limit": "200"},
        {"category": "option", "limit": "200"},
    ]
    assert [(row["category"], row["symbol"]) for row in answer.rows] == [("linear", "S0USDT"), ("inverse", "BTCUSD")]
    assert answer.requests == 4


def test_open_orders_ask_every_market_by_pages_of_fifty(
    stub: Stub, exchange_at: Make, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = by_category({"spot": [{"orderId": "1"}]})
    answer = exchange_at(stub.url, (USDT, INVERSE, SPOT)).open_orders(credentials, deadline_s)
    assert [request.params for request in stub.requests] == [
        {"category": "linear", "settleCoin": "USDT", "limit": "50"},
        {"category": "inverse", "limit": "50"},
        {"category": "spot", "limit": "50"},
    ]
    assert answer.rows == ({"orderId": "1", "category": "spot"},)


def test_closed_pnl_asks_each_category_once_with_explicit_ends(
    stub: Stub, exchange_at: Make, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = by_category({"linear": [closed(MIDNIGHT_MS)], "inverse": [closed(MIDNIGHT_MS)]})
    exchange = exchange_at(stub.url, (USDT, USDC, INVERSE, SPOT))
    answer = exchange.closed_pnl(credentials, MIDNIGHT_MS, deadline_s)
    window = {"startTime": str(MIDNIGHT_MS), "endTime": str(NOW_MS + 5_000), "limit": "100"}
    assert [request.params for request in stub.requests] == [
        {"category": "linear", **window},
        {"category": "inverse", **window},
    ]
    assert [row["category"] for row in answer.rows] == ["linear", "inverse"]


def test_closed_pnl_of_a_month_is_asked_in_windows_of_a_week(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(page()))
    exchange.closed_pnl(credentials, NOW_MS - 30 * DAY_MS, deadline_s)
    spans = [(int(request.params["startTime"]), int(request.params["endTime"])) for request in stub.requests]
    assert len(spans) == 5
    assert all(end - start < 7 * DAY_MS for start, end in spans)
    assert all(second[0] == first[1] + 1 for first, second in pairwise(spans))


@given(since_ms=st.integers(0, 10**13), span_ms=st.integers(-DAY_MS, 100 * DAY_MS))
def test_windows_cover_the_span_without_gap_or_overlap(since_ms: int, span_ms: int) -> None:
    until_ms = since_ms + span_ms
    found = list(windows(since_ms, until_ms))
    assert found[0][0] == since_ms and found[-1][1] == max(since_ms, until_ms)
    assert all(0 <= end - start <= LONGEST_WINDOW_MS for start, end in found)
    assert all(second[0] == first[1] + 1 for first, second in pairwise(found))


def test_closed_rows_from_before_are_dropped_whatever_the_exchange_filters_by(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    rows = [closed(str(MIDNIGHT_MS - 1), "old"), closed(str(MIDNIGHT_MS), "new"), closed(str(NOW_MS * 10**6), "ns")]
    stub.handler = always(http(page(*rows)))
    answer = exchange.closed_pnl(credentials, MIDNIGHT_MS, deadline_s)
    assert [row["orderId"] for row in answer.rows] == ["new", "ns"]


@pytest.mark.parametrize("stamp", ["", None, "soon", -1, 1.5, True, [], "9" * 30])
def test_H06_a_closed_row_without_a_time_is_malformed(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, stamp: Any
) -> None:
    stub.handler = always(http(page(closed(stamp))))
    with pytest.raises(AnswerMalformed) as caught:
        exchange.closed_pnl(credentials, MIDNIGHT_MS, deadline_s)
    assert caught.value.endpoint == "closed_pnl"


def test_all_pages_are_read_and_stamped_with_the_oldest(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = in_turn(
        http(envelope({"list": symbols(200), "nextPageCursor": "p2"}, time_ms=NOW_MS + 2)),
        http(envelope({"list": symbols(200, 200), "nextPageCursor": "p3"}, time_ms=NOW_MS + 1)),
        http(envelope({"list": symbols(3, 400), "nextPageCursor": "p4"}, time_ms=NOW_MS + 3)),
    )
    answer = exchange.positions(credentials, deadline_s)
    assert (len(answer.rows), answer.as_of_ms, answer.requests) == (403, NOW_MS + 1, 3)
    assert [request.params.get("cursor") for request in stub.requests] == [None, "p2", "p3"]


@pytest.mark.parametrize("last", [page(cursor="more"), page(), envelope({"list": []})])
def test_a_full_last_page_costs_one_question_more(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, last: bytes
) -> None:
    stub.handler = in_turn(http(page(*symbols(200), cursor="more")), http(last))
    answer = exchange.positions(credentials, deadline_s)
    assert (len(answer.rows), answer.requests) == (200, 2)


def test_a_server_that_ignores_the_limit_is_read_to_the_end(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = in_turn(
        http(page(*symbols(20), cursor="p2")),
        http(page(*symbols(20, 20), cursor="p3")),
        http(page(*symbols(5, 40), cursor="p4")),
    )
    answer = exchange.positions(credentials, deadline_s)
    assert (len(answer.rows), answer.requests) == (45, 3)


def test_twenty_rows_that_are_all_end_when_the_cursor_repeats(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(page(*symbols(20), cursor="again")))
    answer = exchange.positions(credentials, deadline_s)
    assert (len(answer.rows), answer.requests) == (20, 2)


def test_two_legs_count_even_where_the_index_is_missing(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    legs = [{"symbol": "BTCUSDT", "side": side, "size": "1"} for side in ("Buy", "Sell")]
    stub.handler = always(http(page(*legs)))
    assert [row["side"] for row in exchange.positions(credentials, deadline_s).rows] == ["Buy", "Sell"]


@pytest.mark.parametrize("cursor", ["", None])
def test_a_full_page_without_a_cursor_is_the_last(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, cursor: Any
) -> None:
    stub.handler = always(http(page(*symbols(200), cursor=cursor)))
    assert exchange.positions(credentials, deadline_s).requests == 1


def test_H06_pages_in_a_circle_are_malformed(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(page(*symbols(200), cursor="again")))
    with pytest.raises(AnswerMalformed):
        exchange.positions(credentials, deadline_s)
    assert len(stub.requests) == 2


def test_H06_pages_without_end_are_given_up_after_twenty(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = lambda request: [http(page(*symbols(200), cursor=f"c{len(stub.requests)}"))]
    with pytest.raises(AnswerMalformed):
        exchange.positions(credentials, deadline_s)
    assert len(stub.requests) == 20


@pytest.mark.parametrize("cursor", [5, True, [], {}, "a b", "a\r\nX: y", "x&limit=1", "a#b", "ä", "c" * 3_000, "\x00"])
def test_H06_a_cursor_that_is_none_is_malformed(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, cursor: Any
) -> None:
    stub.handler = always(http(page(*symbols(200), cursor=cursor)))
    with pytest.raises(AnswerMalformed):
        exchange.positions(credentials, deadline_s)
    assert len(stub.requests) == 1


def test_a_page_that_fails_takes_the_others_with_it(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = in_turn(http(page(*symbols(200), cursor="p2")), http(envelope(code=10006)))
    with pytest.raises(RateLimited):
        exchange.positions(credentials, deadline_s)


def test_a_row_that_moved_between_pages_counts_once_as_read_last(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    moved = {"symbol": "S0USDT", "positionIdx": 0, "size": "2"}
    hedge = {"symbol": "S0USDT", "positionIdx": 2, "size": "3"}
    stub.handler = in_turn(http(page(*symbols(200), cursor="p2")), http(page(moved, hedge)))
    rows = exchange.positions(credentials, deadline_s).rows
    assert [row.get("size") for row in rows if row["symbol"] == "S0USDT"] == ["2", "3"]
    stub.handler = in_turn(
        http(page(*[{"orderId": str(n), "n": 1} for n in range(50)], cursor="p2")), http(page({"orderId": "7", "n": 2}))
    )
    orders = exchange.open_orders(credentials, deadline_s).rows
    assert len(orders) == 50 and [row["n"] for row in orders if row["orderId"] == "7"] == [2]


@pytest.mark.parametrize("result", [{}, {"list": None}, {"list": {}}, {"list": [1]}, {"list": [None]}])
def test_H06_a_missing_list_is_no_empty_list(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, result: Any
) -> None:
    stub.handler = always(http(envelope(result)))
    calls: list[Callable[[], object]] = [
        lambda: exchange.positions(credentials, deadline_s),
        lambda: exchange.open_orders(credentials, deadline_s),
        lambda: exchange.closed_pnl(credentials, MIDNIGHT_MS, deadline_s),
        lambda: exchange.mark_prices("linear", deadline_s),
    ]
    for call in calls:
        with pytest.raises(AnswerMalformed):
            call()


def test_an_empty_list_is_empty(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(page()))
    assert exchange.positions(credentials, deadline_s).rows == ()
    assert exchange.open_orders(credentials, deadline_s).rows == ()
    assert exchange.closed_pnl(credentials, MIDNIGHT_MS, deadline_s).rows == ()


def test_a_market_without_positions_is_not_asked_for_them(
    stub: Stub, exchange_at: Make, credentials: Credentials, deadline_s: float
) -> None:
    exchange = exchange_at(stub.url, (SPOT,))
    for answer in (exchange.positions(credentials, deadline_s), exchange.closed_pnl(credentials, 0, deadline_s)):
        assert (answer.rows, answer.as_of_ms, answer.requests) == ((), NOW_MS, 0)
    assert stub.requests == []


def test_mark_prices_leave_out_what_has_none(stub: Stub, exchange: BybitExchange, deadline_s: float) -> None:
    rows: list[Any] = [
        {"symbol": "BTCUSDT", "markPrice": "61450.10"},
        {"symbol": "A", "markPrice": ""},
        {"symbol": "B", "markPrice": "0"},
        {"symbol": "C"},
        {"symbol": 5, "markPrice": "1"},
        {"symbol": "D", "markPrice": "NaN"},
    ]
    stub.handler = always(http(page(*rows)))
    assert exchange.mark_prices("linear", deadline_s) == {"BTCUSDT": Decimal("61450.10")}
    assert stub.requests[0].params == {"category": "linear"}
    assert "x-bapi-sign" not in stub.requests[0].headers


def test_H06_tickers_without_any_price_are_malformed(stub: Stub, exchange: BybitExchange, deadline_s: float) -> None:
    stub.handler = always(http(page({"symbol": "A", "markPrice": ""})))
    with pytest.raises(AnswerMalformed):
        exchange.mark_prices("linear", deadline_s)


def test_key_information_is_passed_on(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(envelope({"readOnly": 1, "userID": 7})))
    assert exchange.key_information(credentials, deadline_s) == {"readOnly": 1, "userID": 7}
    stub.handler = always(http(envelope({})))
    with pytest.raises(AnswerMalformed):
        exchange.key_information(credentials, deadline_s)


def test_H04_a_refused_key_says_at_which_endpoint(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(envelope(code=33004, message="Your api key has expired.")))
    with pytest.raises(KeyRefused) as caught:
        exchange.open_orders(credentials, deadline_s)
    assert (caught.value.code, caught.value.endpoint, caught.value.exchange_code) == (
        "key_expired",
        "open_orders",
        33004,
    )


class SkewedExchange:
    """Refuses what is stamped a second ahead or five behind its own clock."""

    def __init__(self, ahead_ms: int, tells_time: bool = True) -> None:
        self.now_ms = NOW_MS + ahead_ms
        self.tells_time = tells_time

    def __call__(self, request: Request) -> Iterable[Step]:
        if request.path == "/v5/market/time":
            return [http(envelope(time_ms=self.now_ms))]
        early_ms = int(request.headers["x-bapi-timestamp"]) - self.now_ms
        if not -5_000 <= early_ms < 1_000:
            return [http(envelope(code=10002, time_ms=self.now_ms if self.tells_time else None))]
        return [http(envelope({"list": [ACCOUNT]}, time_ms=self.now_ms))]


@pytest.mark.parametrize("ahead_ms", [-3_600_000, -1_500, 0, 900])
def test_H03_a_clock_that_is_off_is_corrected_with_one_more_request(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, ahead_ms: int
) -> None:
    stub.handler = SkewedExchange(ahead_ms)
    answer = exchange.wallet(credentials, deadline_s)
    assert answer.requests == len(stub.requests) == (1 if ahead_ms > -1_000 else 2)
    # From now on the stamps are right at once.
    assert exchange.wallet(credentials, deadline_s).requests == 1


def test_H03_a_refusal_that_does_not_tell_the_time_costs_a_question(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    stub.handler = SkewedExchange(-60_000, tells_time=False)
    assert exchange.wallet(credentials, deadline_s).requests == 3
    assert [request.path for request in stub.requests][1] == "/v5/market/time"
    assert "+60000 ms off" in caplog.text


def test_pages_and_repetitions_are_paid_for_but_not_the_first_request(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    asked_when_paid: list[int] = []

    def pay() -> None:
        asked_when_paid.append(len(stub.requests))

    stub.handler = in_turn(http(page(*symbols(200), cursor="a")), http(page(*symbols(1))))
    exchange.positions(credentials, deadline_s, pay)
    assert asked_when_paid == [1]
    del stub.requests[:], asked_when_paid[:]
    stub.handler = SkewedExchange(-60_000, tells_time=False)
    exchange.wallet(credentials, deadline_s, pay)
    assert asked_when_paid == [1, 2]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (None, 0.0)),
        ({"X-Bapi-Limit-Status": "7"}, (7, 0.0)),
        ({"X-Bapi-Limit-Status": "0", "X-Bapi-Limit-Reset-Timestamp": str(NOW_MS + 700)}, (0, 0.7)),
        ({"X-Bapi-Limit-Status": "0"}, (0, 1.0)),
        ({"X-Bapi-Limit-Status": "many"}, (None, 0.0)),
    ],
)
def test_an_answer_tells_how_many_more_the_user_may_ask(
    stub: Stub,
    exchange: BybitExchange,
    credentials: Credentials,
    deadline_s: float,
    headers: dict[str, str],
    expected: tuple[int | None, float],
) -> None:
    written = {name.replace("-", "_"): value for name, value in headers.items()}
    stub.handler = always(http(envelope({"list": [ACCOUNT]}), **written))
    answer = exchange.wallet(credentials, deadline_s)
    assert (answer.remaining, answer.resets_in_s) == expected


def test_H03_a_second_refusal_is_final(
    stub: Stub,
    exchange: BybitExchange,
    credentials: Credentials,
    deadline_s: float,
    observer: RecordingObserver,
) -> None:
    stub.handler = always(http(envelope(code=10002)))
    with pytest.raises(ClockSkew):
        exchange.wallet(credentials, deadline_s)
    refused = RequestAnswered("wallet_balance", "exchange_clock_skew", 0.0, "clock")
    assert [record for record in observer.records if isinstance(record, RequestAnswered)] == [refused] * 2


def test_H03_one_call_is_signed_again_once_however_many_pages_it_has(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    refused = http(envelope(code=10002))
    stub.handler = in_turn(refused, http(page(*symbols(200), cursor="p2")), refused)
    with pytest.raises(ClockSkew):
        exchange.positions(credentials, deadline_s)
    assert len(stub.requests) == 3


@pytest.mark.parametrize(("ahead_ms", "accepted"), [(4_900, True), (5_001, False), (3_600_000, False)])
def test_H07_an_answer_from_the_future_is_a_failed_fetch_and_teaches_nothing(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, ahead_ms: int, accepted: bool
) -> None:
    stub.handler = always(http(envelope({"list": [ACCOUNT]}, time_ms=NOW_MS + ahead_ms)))
    if accepted:
        assert exchange.wallet(credentials, deadline_s).as_of_ms == NOW_MS + ahead_ms
    else:
        with pytest.raises(AnswerMalformed) as caught:
            exchange.wallet(credentials, deadline_s)
        assert caught.value.code == "exchange_time_ahead"
    stub.handler = always(http(envelope({"list": [ACCOUNT]})))
    exchange.wallet(credentials, deadline_s)
    assert stub.requests[-1].headers["x-bapi-timestamp"] == str(NOW_MS)


def test_the_whole_call_ends_at_the_deadline_however_many_pages_are_left(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, clock: ManualClock
) -> None:
    def slow(request: Request) -> Iterable[Step]:
        clock.advance(0.4)
        return [http(page(*symbols(200), cursor=f"c{len(stub.requests)}"))]

    stub.handler = slow
    with pytest.raises(ExchangeUnavailable) as caught:
        exchange.positions(credentials, clock.monotonic_s() + 1.0)
    assert caught.value.code == "exchange_timeout"
    assert len(stub.requests) == 3


def test_H02_a_ban_is_no_failure_of_the_key(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(b"access too frequent", 403))
    with pytest.raises(AddressBanned):
        exchange.wallet(credentials, deadline_s)


def test_C03_a_thousand_interleaved_calls_of_fifty_users_never_mix(stub: Stub, exchange_at: Make) -> None:
    """The exchange answers with the user it saw; every third request fails on the way."""

    def answer(request: Request) -> Iterable[Step]:
        key = request.headers["x-bapi-api-key"]
        number = len(stub.requests)
        yield 0.001 * (number % 4)
        if number % 3 == 0:
            yield [http(envelope(code=10016)), http(b"<html>"), http(b"", 503), None][number % 4]
        else:
            yield http(envelope({"list": [{"accountType": "UNIFIED", "seen": key}]}))

    stub.handler = answer
    clock = ManualClock(wall_ms=NOW_MS)
    exchange = exchange_at(stub.url, concurrency=20)
    outcomes: list[tuple[str, str]] = []

    def call(number: int) -> None:
        key = f"api-key-of-user-{number % 50:02d}"
        credentials = Credentials(key, Secret(f"secret-of-user-{number % 50:02d}"))
        try:
            rows = exchange.wallet(credentials, clock.monotonic_s() + 20.0).rows
        except ExchangeError as error:
            outcomes.append((key, f"failed: {error.code}"))
        else:
            outcomes.append((key, rows[0]["seen"]))

    gevent.pool.Pool(40).map(call, range(1_000))
    good = [seen for key, seen in outcomes if not seen.startswith("failed")]
    assert len(outcomes) == 1_000 and len(good) > 500
    assert all(seen == key for key, seen in outcomes if not seen.startswith("failed"))
    assert {seen for _key, seen in outcomes if seen.startswith("failed")} <= {
        "failed: exchange_unavailable",
        "failed: exchange_answer_malformed",
    }
