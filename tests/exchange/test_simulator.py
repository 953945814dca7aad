"""The client and the mapping against the simulated exchange as a real process: signatures, limits, faults, figures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pushserver.clock import SystemClock
from pushserver.errors import (
    AddressBanned,
    AnswerMalformed,
    ExchangeError,
    ExchangeUnavailable,
    KeyRefused,
    RateLimited,
)
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.exchange_sim.fault_kinds import KINDS
from pushserver.feeds.balance import map_balance
from pushserver.feeds.orders import map_orders
from pushserver.feeds.pnl import map_pnl, realized
from pushserver.feeds.positions import map_positions
from pushserver.model import Credentials, Market, Secret
from pushserver.observers import Observer
from tests.feeds.today import closed_today

ROOT = Path(__file__).resolve().parents[2]
COINS = frozenset({"USDT"})
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def sim_url() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pushserver.exchange_sim", "--port", "0", "--frozen"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.fixture
def sim(sim_url: str) -> SimControl:
    control = SimControl(sim_url)
    control.reset(users=3, seed=1)
    control.freeze()
    return control


@pytest.fixture
def client(sim_url: str) -> Iterator[BybitExchange]:
    exchange = BybitExchange(sim_url, (Market("linear", "USDT"),), SystemClock(), Observer(), request_timeout_s=1.0)
    yield exchange
    exchange.close()


def user(number: int) -> Credentials:
    api_key, secret = demo_credentials(number)
    return Credentials(api_key, Secret(secret))


def soon() -> float:
    return SystemClock().monotonic_s() + 5.0


def read(client: BybitExchange, credentials: Credentials) -> dict[str, Any]:
    """All four types, in the form in which the simulated exchange tells its truth."""
    account = client.wallet(credentials, soon()).rows[0]
    positions = client.positions(credentials, soon()).rows
    now_ms = client.server_time_ms(soon())
    midnight_ms = now_ms - now_ms % DAY_MS
    today = closed_today(client.closed_pnl(credentials, midnight_ms, soon()).rows, midnight_ms, {})
    return {
        "balance": asdict(map_balance(account, COINS)),
        "positions": [asdict(row) for row in map_positions(positions)],
        "pnl": asdict(map_pnl(realized(account, COINS), today, positions)),
        "orders": [asdict(row) for row in map_orders(client.open_orders(credentials, soon()).rows)],
    }


def comparable(value: Any) -> Any:
    """Figures as numbers of ten significant digits, since divisions may end differently."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    try:
        return float(f"{Decimal(value):.10g}")
    except (ArithmeticError, TypeError, ValueError):
        return value


@pytest.mark.parametrize("margin_mode", ["REGULAR_MARGIN", "ISOLATED_MARGIN", "PORTFOLIO_MARGIN"])
def test_all_figures_are_the_exchange_s_own(sim: SimControl, client: BybitExchange, margin_mode: str) -> None:
    sim.change(
        1,
        margin_mode=margin_mode,
        hedge=True,
        wallet={"USDT": {"wallet_balance": "20000", "locked": "12.5", "cum_realised_pnl": "-77.25"}, "BTC": "0.3"},
        drop=["positions"],
        positions=[
            {"symbol": "BTCUSDT", "position_idx": 1, "side": "Buy", "size": "0.2", "avg_price": "60000"},
            {"symbol": "BTCUSDT", "position_idx": 2, "side": "Sell", "size": "0.05", "avg_price": "62000.5"},
        ],
    )
    truth = sim.figures(1)
    shown = read(client, user(1))
    for data_type in ("balance", "positions", "pnl", "orders"):
        assert comparable(shown[data_type]) == comparable(truth[data_type])
    assert len(shown["positions"]) == 2 and len(shown["orders"]) > 0


def test_five_hundred_orders_and_closed_rows_are_read_to_the_last(sim: SimControl, client: BybitExchange) -> None:
    orders = [
        {"symbol": "BTCUSDT", "side": "Buy", "quantity": "0.001", "price": str(50_000 + number)}
        for number in range(500)
    ]
    now_ms = sim.figures(2)["time_ms"]
    closed = [
        {"symbol": "BTCUSDT", "side": "Sell", "quantity": "0.001", "closed_pnl": "0.5", "order_id": f"c-{number:03d}",
         "category": "linear", "updated_ms": now_ms, "created_ms": now_ms}
        for number in range(250)
    ]  # fmt: skip
    sim.change(2, drop=["orders", "closed"], orders=orders, closed=closed)
    assert len(client.open_orders(user(2), soon()).rows) == 500
    assert len(client.closed_pnl(user(2), now_ms - 1_000, soon()).rows) == 250


def test_a_wallet_never_used_is_a_failed_fetch(sim: SimControl, client: BybitExchange) -> None:
    sim.change(3, drop=["wallet", "positions", "orders", "closed"])
    account = client.wallet(user(3), soon()).rows[0]
    with pytest.raises(AnswerMalformed):
        map_balance(account, COINS)
    with pytest.raises(AnswerMalformed):
        realized(account, COINS)


FAILURES: dict[str, type[ExchangeError] | tuple[type[ExchangeError], ...]] = {
    "rate_limited": RateLimited,
    "timestamp": ExchangeError,
    "key_invalid": KeyRefused,
    "permission_denied": KeyRefused,
    "ip_not_allowed": KeyRefused,
    "key_expired": KeyRefused,
    "legacy_error": KeyRefused,
    "system_error": ExchangeUnavailable,
    "request_timeout": ExchangeUnavailable,
    "server_timeout": ExchangeUnavailable,
    "ret_code": ExchangeUnavailable,
    "http_status": ExchangeUnavailable,
    "redirect": ExchangeUnavailable,
    "cut": ExchangeUnavailable,
    "hang": ExchangeUnavailable,
    "drip": ExchangeUnavailable,
    "geo_block": ExchangeError,
    "queued": ExchangeError,
}
#: Kinds that still leave a usable answer.
HARMLESS = {"latency", "repeated_cursor", "stale"}
#: Kinds that say there is nothing, which only the wallet cannot mean.
EMPTY = {"empty_list"}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_H06_every_fault_is_a_typed_failure_or_does_no_harm(sim: SimControl, client: BybitExchange, kind: str) -> None:
    truth = sim.figures(1)
    sim.fault(kind, user=1)
    asked = {
        "balance": lambda: asdict(map_balance(client.wallet(user(1), soon()).rows[0], COINS)),
        "positions": lambda: [asdict(row) for row in map_positions(client.positions(user(1), soon()).rows)],
        "orders": lambda: [asdict(row) for row in map_orders(client.open_orders(user(1), soon()).rows)],
    }
    for data_type, ask in asked.items():
        if kind in HARMLESS:
            if kind == "repeated_cursor":
                assert comparable(ask()) == comparable(truth[data_type])
            continue
        if kind in EMPTY and data_type != "balance":
            assert ask() == []
            continue
        with pytest.raises(FAILURES.get(kind, AnswerMalformed)) as caught:
            ask()
        assert "sim-key" not in caught.value.message
        if kind in ("hang", "drip", "queued"):
            break
    # And the next one is served again.
    sim.clear_faults()
    assert read(client, user(2))["balance"]


def test_H02_a_ban_is_seen_by_every_user_and_by_the_clock(sim: SimControl, client: BybitExchange) -> None:
    sim.ban(60)
    for ask in (lambda: client.wallet(user(1), soon()), lambda: client.server_time_ms(soon())):
        with pytest.raises(AddressBanned) as caught:
            ask()
        assert (caught.value.code, caught.value.retry_after_s) == ("exchange_address_banned", 600.0)
    sim.lift_ban()
    assert client.wallet(user(1), soon()).requests == 1


@pytest.mark.parametrize("skew_ms", [-7_000, -2_000, 3_000])
def test_H03_a_skewed_clock_is_corrected(sim: SimControl, client: BybitExchange, skew_ms: int) -> None:
    sim.skew_clock(skew_ms)
    try:
        assert client.wallet(user(1), soon()).requests <= 2
        assert client.wallet(user(1), soon()).requests == 1
    finally:
        sim.skew_clock(0)


def test_H04_a_revoked_key_is_refused_and_a_wrong_secret_as_well(sim: SimControl, client: BybitExchange) -> None:
    with pytest.raises(KeyRefused) as caught:
        client.wallet(Credentials(user(1).api_key, Secret("not the secret")), soon())
    assert caught.value.code == "key_signature"
    sim.revoke_key(user(1).api_key)
    with pytest.raises(KeyRefused) as caught:
        client.wallet(user(1), soon())
    assert caught.value.code == "key_invalid"


PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent.pool
from pushserver.clock import SystemClock
from pushserver.exchange.bybit import BybitExchange
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.model import Credentials, Market, Secret
from pushserver.observers import RecordingObserver, RequestAnswered

clock, observer = SystemClock(), RecordingObserver()
exchange = BybitExchange(sys.argv[1], (Market("linear", "USDT"),), clock, observer)
keys = [demo_credentials(number) for number in range(1, 41)]

def call(number):
    api_key, secret = keys[number % 40]
    seen = exchange.key_information(Credentials(api_key, Secret(secret)), clock.monotonic_s() + 20.0)
    return seen["userID"] == number % 40 + 1 and seen["apiKey"] == api_key

results = gevent.pool.Pool(100).map(call, range(1000))
answered = [record for record in observer.records if isinstance(record, RequestAnswered)]
print(sum(results), len(answered), {record.result for record in answered})
"""


def test_C03_a_thousand_interleaved_calls_in_a_patched_process_are_signed_for_their_own_user(sim: SimControl) -> None:
    sim.reset(users=40, seed=1)
    # Limits out of the way: 25 calls per user within a moment are more than the exchange allows.
    sim.set_limits(requests=100_000, per_endpoint={"/v5/user/query-api": 10_000})
    result = subprocess.run(
        [sys.executable, "-c", PATCHED, sim.base_url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.strip() == "1000 1000 {'ok'}", result.stdout + result.stderr
    assert sim.counters()["refused_signatures"] == 0
