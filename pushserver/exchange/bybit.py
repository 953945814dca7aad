"""Bybit v5 over REST, read-only, through pybit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from pushserver.clock import Clock
from pushserver.errors import AnswerMalformed
from pushserver.exchange.bybit_errors import allowance_of
from pushserver.exchange.clock_offset import ClockOffset
from pushserver.exchange.conversation import Conversation, Line
from pushserver.exchange.paging import Row, all_rows, newest_of_each
from pushserver.exchange.port import Answer, Endpoint, Pay, unpaid
from pushserver.exchange.pybit_client import Pybit
from pushserver.exchange.transport import Transport
from pushserver.feeds.numbers import decimal_of, milliseconds_at
from pushserver.model import Credentials, Market, Proxy
from pushserver.observers import Observer

#: The largest pages each list has.
POSITIONS_LIMIT, CLOSED_PNL_LIMIT, ORDERS_LIMIT = 200, 100, 50
#: The longest span one question for closed pnl may have, both ends included.
LONGEST_WINDOW_MS = 7 * 86_400_000 - 1
#: Rows may be stamped a little after our own idea of the exchange's time.
SLACK_MS = 5_000


class BybitExchange:
    """The ``Exchange`` port on Bybit.

    ``markets`` says what positions, closed pnl and orders cover. One object serves all users of a process; it must
    stay in one thread. A single HTTP request takes at most ``request_timeout_s``, and at most ``concurrency`` are
    under way at a time. All leave through ``proxy`` if there is one: an object stands for one egress address.
    """

    def __init__(
        self,
        rest_url: str,
        markets: tuple[Market, ...],
        clock: Clock,
        observer: Observer,
        *,
        request_timeout_s: float = 5.0,
        concurrency: int = 100,
        proxy: Proxy | None = None,
    ) -> None:
        rest_url = rest_url.rstrip("/")
        self._markets = markets
        transport = Transport(rest_url, concurrency, proxy)
        self._line = Line(transport, Pybit(rest_url), clock, ClockOffset(), observer, request_timeout_s)

    @property
    def in_flight(self) -> int:
        """Requests that wait for their answer."""
        return self._line.transport.in_flight

    def server_now_ms(self) -> int:
        """The exchange's time, as far as its answers have told it."""
        return self._line.server_now_ms()

    def wallet(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        conversation = self._conversation(Endpoint.WALLET, credentials, deadline_s, pay)
        result = conversation.ask_result(accountType="UNIFIED")
        accounts = conversation.rows_of(result)
        # Answers to this question have one entry; none at all would say nothing about the account.
        unified = [account for account in accounts if account.get("accountType", "UNIFIED") == "UNIFIED"]
        if len(unified) != 1:
            raise conversation.malformed("it holds no unified account")
        return self._answer(conversation, unified)

    def positions(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        conversation = self._conversation(Endpoint.POSITIONS, credentials, deadline_s, pay)
        rows: list[Row] = []
        for market in self._markets:
            if market.category != "spot":
                rows += all_rows(conversation, POSITIONS_LIMIT, market.category, settleCoin=market.settle_coin)
        return self._answer(conversation, newest_of_each(rows, "category", "symbol", "positionIdx", "side"))

    def closed_pnl(self, credentials: Credentials, since_ms: int, deadline_s: float, pay: Pay = unpaid) -> Answer:
        conversation = self._conversation(Endpoint.CLOSED_PNL, credentials, deadline_s, pay)
        rows: list[Row] = []
        for category in self._categories("linear", "inverse"):
            for start_ms, end_ms in windows(since_ms, self._line.server_now_ms() + SLACK_MS):
                rows += all_rows(conversation, CLOSED_PNL_LIMIT, category, startTime=start_ms, endTime=end_ms)
        return self._answer(conversation, [row for row in rows if _stamp_ms(conversation, row) >= since_ms])

    def open_orders(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        conversation = self._conversation(Endpoint.OPEN_ORDERS, credentials, deadline_s, pay)
        rows: list[Row] = []
        for market in self._markets:
            rows += all_rows(conversation, ORDERS_LIMIT, market.category, settleCoin=market.settle_coin)
        return self._answer(conversation, newest_of_each(rows, "category", "orderId"))

    def mark_prices(self, category: str, deadline_s: float, pay: Pay = unpaid) -> Mapping[str, Decimal]:
        conversation = self._conversation(Endpoint.TICKERS, None, deadline_s, pay)
        result = conversation.ask_result(category=category)
        marks = dict(_marks(conversation.rows_of(result)))
        if not marks:
            raise conversation.malformed("it holds no mark price")
        return marks

    def key_information(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Mapping[str, Any]:
        conversation = self._conversation(Endpoint.KEY_INFORMATION, credentials, deadline_s, pay)
        result = conversation.ask().get("result")
        if not isinstance(result, Mapping) or not result:
            raise conversation.malformed("it says nothing of the key")
        return result

    def server_time_ms(self, deadline_s: float) -> int:
        conversation = self._conversation(Endpoint.SERVER_TIME, None, deadline_s)
        conversation.ask_result()
        assert conversation.oldest_ms is not None, "a page without a time is refused"
        return conversation.oldest_ms

    def close(self) -> None:
        self._line.transport.close()

    def _conversation(
        self, endpoint: Endpoint, credentials: Credentials | None, deadline_s: float, pay: Pay = unpaid
    ) -> Conversation:
        return Conversation(self._line, endpoint, credentials, deadline_s, pay)

    def _categories(self, *wanted: str) -> list[str]:
        """The configured ones among ``wanted``, each once: some questions know no settle coin."""
        return [category for category in wanted if any(market.category == category for market in self._markets)]

    def _answer(self, conversation: Conversation, rows: list[Row]) -> Answer:
        """Where the markets have nothing of the kind nothing was asked, and that is true as of now."""
        as_of_ms = self._line.server_now_ms() if conversation.oldest_ms is None else conversation.oldest_ms
        remaining, resets_in_s = allowance_of(conversation.last_headers, self._line.server_now_ms())
        return Answer(tuple(rows), as_of_ms, conversation.requests, remaining, resets_in_s)


def windows(since_ms: int, until_ms: int) -> Iterator[tuple[int, int]]:
    """Explicit spans without gap or overlap: the server looks back a week at most from an end it is given alone."""
    start_ms = since_ms
    while True:
        end_ms = max(start_ms, min(start_ms + LONGEST_WINDOW_MS, until_ms))
        yield start_ms, end_ms
        start_ms = end_ms + 1
        if start_ms > until_ms:
            return


def _marks(rows: list[Row]) -> Iterator[tuple[str, Decimal]]:
    for row in rows:
        symbol = row.get("symbol")
        try:
            mark = decimal_of(row.get("markPrice"), "markPrice")
        except AnswerMalformed:
            # One symbol out of hundreds: who needs it will find it missing.
            continue
        if isinstance(symbol, str) and mark > 0:
            yield symbol, mark


def _stamp_ms(conversation: Conversation, row: Row) -> int:
    try:
        return milliseconds_at(row, "updatedTime")
    except AnswerMalformed as error:
        raise conversation.malformed(error.message) from None
