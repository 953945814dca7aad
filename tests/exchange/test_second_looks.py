"""What is looked at twice before it is believed (a key refused at the door, our own clock), and what is not: a ban."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest

from pushserver.clock import ManualClock
from pushserver.errors import AddressBanned, AnswerMalformed, KeyRefused
from pushserver.exchange.bybit import BybitExchange
from pushserver.model import Credentials
from pushserver.observers import ExchangeClockMeasured, RecordingObserver
from tests.exchange.stub import NOW_MS, Request, Step, Stub, always, envelope, http, in_turn, page

ACCOUNT = {"accountType": "UNIFIED"}


def test_H04_a_401_is_believed_when_it_comes_twice(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    payments: list[int] = []
    stub.handler = always(http(b"", 401))
    with pytest.raises(KeyRefused) as caught:
        exchange.wallet(credentials, deadline_s, lambda: payments.append(1))
    assert (caught.value.code, caught.value.exchange_code) == ("key_invalid", 401)
    assert (len(stub.requests), len(payments)) == (2, 1)


def test_H02_a_request_that_waited_for_a_connection_is_paid_for_again(
    stub: Stub, exchange_at: Callable[..., BybitExchange], credentials: Credentials, clock: ManualClock
) -> None:
    exchange = exchange_at(stub.url, concurrency=1)
    deadline_s = clock.monotonic_s() + 20
    payments: list[int] = []

    def slow(_: Request) -> Iterator[Step]:
        yield 0.1
        clock.advance(3.0)
        yield http(page(ACCOUNT))

    stub.handler = slow
    asking = [
        gevent.spawn(exchange.wallet, credentials, deadline_s, lambda number=number: payments.append(number))
        for number in (1, 2)
    ]
    gevent.joinall(asking, raise_error=True)
    assert (len(stub.requests), payments) == (2, [2])


def test_H02_a_request_sent_twice_is_paid_for_twice(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    payments: list[int] = []
    good = http(page(ACCOUNT))
    stub.handler = lambda request: [good] if request.connection != 1 or len(stub.requests) == 1 else [None]
    assert exchange.wallet(credentials, deadline_s, lambda: payments.append(1)).requests == 1
    assert exchange.wallet(credentials, deadline_s, lambda: payments.append(2)).requests == 2
    assert (len(stub.requests), payments) == (3, [2])


@pytest.mark.parametrize("kind", ["key", "marks"])
def test_H02_what_turns_out_to_need_more_requests_pays_for_them(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float, kind: str
) -> None:
    payments: list[int] = []
    good = envelope({"readOnly": 1}) if kind == "key" else page({"symbol": "BTCUSD", "markPrice": "1"})
    stub.handler = lambda request: [http(good)] if len(stub.requests) != 2 else [None]
    for _ in range(2):
        if kind == "key":
            exchange.key_information(credentials, deadline_s, lambda: payments.append(1))
        else:
            exchange.mark_prices("inverse", deadline_s, lambda: payments.append(1))
    assert (len(stub.requests), len(payments)) == (3, 1)


def test_H02_what_cannot_be_paid_for_again_is_not_sent(
    stub: Stub, exchange_at: Callable[..., BybitExchange], credentials: Credentials, clock: ManualClock
) -> None:
    class NotNow(Exception):
        pass

    def refuse() -> None:
        raise NotNow

    def slow(_: Request) -> Iterator[Step]:
        yield 0.1
        clock.advance(3.0)
        yield http(page(ACCOUNT))

    exchange = exchange_at(stub.url, concurrency=1)
    deadline_s = clock.monotonic_s() + 20
    stub.handler = slow
    first, second = [gevent.spawn(exchange.wallet, credentials, deadline_s, refuse) for _ in range(2)]
    gevent.joinall([first, second])
    assert isinstance(second.exception, NotNow)
    assert len(stub.requests) == 1
    stub.handler = always(http(page(ACCOUNT)))
    assert exchange.wallet(credentials, deadline_s).requests == 1


def test_H04_a_single_401_does_no_harm(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = in_turn(http(b"", 401), http(page(ACCOUNT)))
    assert exchange.wallet(credentials, deadline_s).requests == 2


def test_H04_a_key_the_exchange_names_invalid_is_not_asked_about_again(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(http(envelope(code=10003)))
    with pytest.raises(KeyRefused):
        exchange.wallet(credentials, deadline_s)
    assert len(stub.requests) == 1


@pytest.mark.parametrize("jump_s", [-3_600, 3_600])
def test_M3_a_clock_of_ours_that_jumps_is_put_right_by_the_exchange_s(
    stub: Stub,
    exchange: BybitExchange,
    credentials: Credentials,
    clock: ManualClock,
    observer: RecordingObserver,
    jump_s: int,
) -> None:
    clock._wall_ms += jump_s * 1000
    stub.handler = always(http(page(ACCOUNT)))
    assert exchange.server_time_ms(clock.monotonic_s() + 5) == NOW_MS
    assert exchange.server_now_ms() == NOW_MS
    assert exchange.wallet(credentials, clock.monotonic_s() + 5).as_of_ms == NOW_MS
    assert ExchangeClockMeasured(-jump_s) in observer.records


def test_H07_a_stamp_ahead_of_the_exchange_s_own_time_is_refused(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    exchange.server_time_ms(deadline_s)
    stub.handler = always(http(envelope({"list": [ACCOUNT]}, time_ms=NOW_MS + 5_001)))
    with pytest.raises(AnswerMalformed) as caught:
        exchange.wallet(credentials, deadline_s)
    assert caught.value.code == "exchange_time_ahead"


def test_H03_the_clock_s_offset_is_told_when_it_changes(
    stub: Stub, exchange: BybitExchange, deadline_s: float, observer: RecordingObserver
) -> None:
    for _ in range(3):
        exchange.server_time_ms(deadline_s)
    stub.handler = always(http(envelope(time_ms=NOW_MS + 1_500)))
    for _ in range(3):
        exchange.server_time_ms(deadline_s)
    told = [record for record in observer.records if isinstance(record, ExchangeClockMeasured)]
    assert told == [ExchangeClockMeasured(0.0), ExchangeClockMeasured(1.5)]


def test_H02_a_ban_closes_the_idle_connections(
    stub: Stub, exchange: BybitExchange, credentials: Credentials, deadline_s: float
) -> None:
    stub.handler = always(0.05, http(page(ACCOUNT)))
    gevent.joinall([gevent.spawn(exchange.wallet, credentials, deadline_s) for _ in range(2)], raise_error=True)
    stub.handler = always(http(b"access too frequent", 403))
    with pytest.raises(AddressBanned):
        exchange.wallet(credentials, deadline_s)
    assert stub.connections == 2
    stub.handler = always(http(page(ACCOUNT)))
    exchange.wallet(credentials, deadline_s)
    assert stub.connections == 3
