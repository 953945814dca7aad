"""What is looked at twice before it is believed (a key refused at the door, our own clock), and what is not: a ban."""

from __future__ import annotations

import gevent
import pytest

from pushserver.clock import ManualClock
from pushserver.errors import AddressBanned, AnswerMalformed, KeyRefused
from pushserver.exchange.bybit import BybitExchange
from pushserver.model import Credentials
from pushserver.observers import ExchangeClockMeasured, RecordingObserver
from tests.exchange.stub import NOW_MS, Stub, always, envelope, http, in_turn, page

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
