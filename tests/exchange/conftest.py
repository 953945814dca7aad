"""An exchange client on a stub server, with the clock in the test's hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pushserver.clock import ManualClock
from pushserver.exchange.bybit import BybitExchange
from pushserver.model import Credentials, Market, Secret
from pushserver.observers import RecordingObserver
from tests.exchange.stub import NOW_MS, Stub, always, envelope, http

LINEAR_USDT = Market("linear", "USDT")


@pytest.fixture
def credentials() -> Credentials:
    return Credentials("canary-api-key-0001", Secret("canary-api-secret-000000000000000001"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(wall_ms=NOW_MS)


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(always(http(envelope()))) as server:
        yield server


@pytest.fixture
def exchange_at(
    clock: ManualClock, observer: RecordingObserver
) -> Iterator[Callable[..., BybitExchange]]:  # fmt: skip
    """Makes a client of a URL; markets, request_timeout_s and concurrency as given."""
    made: list[BybitExchange] = []

    def make(url: str, markets: tuple[Market, ...] = (LINEAR_USDT,), **options: float) -> BybitExchange:
        made.append(BybitExchange(url, markets, clock, observer, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for exchange in made:
        exchange.close()


@pytest.fixture
def exchange(stub: Stub, exchange_at: Callable[..., BybitExchange]) -> BybitExchange:
    return exchange_at(stub.url)


@pytest.fixture
def deadline_s(clock: ManualClock) -> float:
    return clock.monotonic_s() + 5.0
