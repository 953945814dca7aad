"""Stand-ins for outside parts, as small as the tests allow."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import gevent

from pushserver.clock import Clock
from pushserver.errors import ExchangeError, ExchangeUnavailable
from pushserver.exchange.port import Answer, Pay, unpaid
from pushserver.model import Credentials, Freshness, Secret


@dataclass
class FakeAccount:
    """One user's account at the FakeExchange, with just the fields the feeds read."""

    equity: str = "1000"
    available: str = "800"
    used: str = "200"
    realized: str = "0"
    positions: list[dict[str, Any]] = field(default_factory=list)
    closed: list[dict[str, Any]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)

    def wallet_row(self) -> dict[str, Any]:
        coin = {"coin": "USDT", "equity": self.equity, "usdValue": self.equity, "cumRealisedPnl": self.realized}
        return {
            "totalEquity": self.equity,
            "totalAvailableBalance": self.available,
            "totalInitialMargin": self.used,
            "coin": [coin],
        }

    def open_position(self, symbol: str, size: str, unrealized: str, side: str = "Buy") -> None:
        row = {
            "category": "linear", "symbol": symbol, "positionIdx": 0, "side": side, "size": size,
            "avgPrice": "100", "markPrice": "101", "unrealisedPnl": unrealized,
            "curRealisedPnl": "-0.1", "cumRealisedPnl": "-0.1",
        }  # fmt: skip
        self.positions = [*(held for held in self.positions if held["symbol"] != symbol), row]

    def add_order(self, order_id: str, price: str = "90") -> None:
        self.orders.append(
            {
                "orderId": order_id,
                "symbol": "BTCUSDT",
                "side": "Buy",
                "qty": "1",
                "orderType": "Limit",
                "price": price,
                "orderStatus": "New",
                "category": "linear",
            }
        )

    def close_trade(self, order_id: str, pnl: str, at_ms: int) -> None:
        row = {"category": "linear", "symbol": "BTCUSDT", "orderId": order_id, "closedPnl": pnl}
        self.closed.append({**row, "updatedTime": str(at_ms)})


class FakeExchange:
    """Accounts by API key, a log of every request, and faults to order.

    ``faults[endpoint]`` holds errors (or functions called before the answer) for the next requests; ``always`` holds
    one for every request. Endpoints: wallet, positions, closed_pnl, orders, server_time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.accounts: dict[str, FakeAccount] = defaultdict(FakeAccount)
        self.requests: list[tuple[float, str, str]] = []
        self.faults: dict[str, list[ExchangeError | Callable[[], None]]] = defaultdict(list)
        self.always: dict[str, ExchangeError | Callable[[], None]] = {}
        self.latency_s = 0.0
        self.stamp_offset_ms = 0
        self.in_flight = 0

    def count(self, endpoint: str | None = None) -> int:
        return sum(1 for _, _, asked in self.requests if endpoint in (None, asked))

    def counts(self) -> Counter[str]:
        return Counter(endpoint for _, _, endpoint in self.requests)

    def wallet(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        self._receive("wallet", credentials, deadline_s)
        return self._answer([self.accounts[credentials.api_key].wallet_row()])

    def positions(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        self._receive("positions", credentials, deadline_s)
        return self._answer(self.accounts[credentials.api_key].positions)

    def closed_pnl(self, credentials: Credentials, since_ms: int, deadline_s: float, pay: Pay = unpaid) -> Answer:
        self._receive("closed_pnl", credentials, deadline_s)
        rows = self.accounts[credentials.api_key].closed
        return self._answer([row for row in rows if int(row["updatedTime"]) >= since_ms])

    def open_orders(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Answer:
        self._receive("orders", credentials, deadline_s)
        return self._answer(self.accounts[credentials.api_key].orders)

    def mark_prices(self, category: str, deadline_s: float, pay: Pay = unpaid) -> Mapping[str, Decimal]:
        self._receive("mark_prices", None, deadline_s)
        return {}

    def key_information(self, credentials: Credentials, deadline_s: float, pay: Pay = unpaid) -> Mapping[str, Any]:
        self._receive("key_information", credentials, deadline_s)
        return {"readOnly": 1}

    def server_time_ms(self, deadline_s: float) -> int:
        self._receive("server_time", None, deadline_s)
        return self._clock.wall_ms()

    def _receive(self, endpoint: str, credentials: Credentials | None, deadline_s: float) -> None:
        key = credentials.api_key if credentials else ""
        self.requests.append((self._clock.monotonic_s(), key, endpoint))
        fault = self.faults[endpoint].pop(0) if self.faults[endpoint] else self.always.get(endpoint)
        if isinstance(fault, ExchangeError):
            raise fault
        if fault is not None:
            fault()
        if self._clock.monotonic_s() + self.latency_s > deadline_s:
            self._clock.sleep(max(0.0, deadline_s - self._clock.monotonic_s()))
            raise ExchangeUnavailable("no answer in time", endpoint=endpoint)
        ends_s = self._clock.monotonic_s() + self.latency_s
        # Requests that are sent at the same time are under way at the same time, by any clock.
        gevent.sleep(0)
        self._clock.sleep(max(0.0, ends_s - self._clock.monotonic_s()))

    def _answer(self, rows: list[dict[str, Any]]) -> Answer:
        return Answer(tuple(dict(row) for row in rows), self._clock.wall_ms() + self.stamp_offset_ms, 1)


class FakeKeys:
    """Exchange keys by user: user 4 has key ``key-4``. Set ``errors[user]`` to have reading refused."""

    def __init__(self) -> None:
        self.versions: dict[int, int | None] = defaultdict(lambda: 1)
        self.errors: dict[int, Exception] = {}
        self.reads = 0

    def credentials(self, user_id: int) -> Credentials | None:
        self.reads += 1
        if user_id in self.errors:
            raise self.errors[user_id]
        version = self.versions[user_id]
        return None if version is None else Credentials(f"key-{user_id}", Secret("secret"), version)


@dataclass
class FakeCommit:
    result: str
    seq: int
    listeners: int
    told: Any


class FakeStates:
    """The newest states in memory: what was published, what is watched, which statuses were told."""

    def __init__(self) -> None:
        self.stored: dict[tuple[int, Any], tuple[str, int]] = {}
        self.published: list[tuple[int, Any, bytes, int]] = []
        self.statuses: dict[tuple[int, Any], tuple[str, str, int | None]] = {}
        self.told: list[tuple[int, Any, str, str, int | None]] = []
        self.listening: dict[int, frozenset[Any]] = {}
        self.error: Exception | None = None

    def commit(
        self, user_id: int, data_type: Any, update: Any, as_of_ms: int, fence: str = "", base: bytes = b""
    ) -> FakeCommit:
        if self.error is not None:
            raise self.error
        digest, confirmed_ms = self.stored.get((user_id, data_type), ("", 0))
        told = Freshness(self.statuses.get((user_id, data_type), ("live",))[0])
        if as_of_ms < confirmed_ms:
            return FakeCommit("stale", len(self.published), 0, told)
        self.stored[user_id, data_type] = (update.digest, as_of_ms)
        if digest == update.digest:
            return FakeCommit("unchanged", len(self.published), 0, told)
        self.published.append((user_id, data_type, update.head, as_of_ms))
        return FakeCommit("published", len(self.published), 1, told)

    def set_status(
        self,
        user_id: int,
        data_type: Any,
        state: Any,
        reason: str,
        message: str,
        until_ms: int | None = None,
        fence: str = "",
    ) -> bool:
        status = (state.value, reason, until_ms)
        old = self.statuses.get((user_id, data_type), ("live", "", None))
        self.statuses[user_id, data_type] = status
        if old == status or old[0] == status[0] == "live":
            return False
        self.told.append((user_id, data_type, *status))
        return True

    def open_rounds(self, fences: Any) -> dict[int, frozenset[Any]]:
        return self.watched(fences)

    def watched(self, user_ids: Any) -> dict[int, frozenset[Any]]:
        if self.error is not None:
            raise self.error
        return {user_id: self.listening.get(user_id, frozenset()) for user_id in user_ids}


class FakePauses:
    """One egress address's gate, by a clock of the tests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.until_ms: int | None = None
        self.code = ""
        self.probing = False

    def pause(self, seconds: float, code: str) -> bool:
        until_ms = self._clock.wall_ms() + round(seconds * 1000)
        self.probing = False
        if self.until_ms is not None and self._clock.wall_ms() < self.until_ms and self.until_ms + 1000 >= until_ms:
            return False
        self.until_ms, self.code = until_ms, code
        return True

    def suspect(self, code: str) -> bool:
        if self.until_ms is not None:
            return False
        self.until_ms, self.code, self.probing = self._clock.wall_ms(), code, True
        return True

    def gate(self, may_probe: bool = True) -> Any:
        from pushserver.bus.pauses import OPEN, Gate

        if self.until_ms is None:
            return OPEN
        left_s = (self.until_ms - self._clock.wall_ms()) / 1000
        if left_s > 0:
            return Gate("paused", left_s, self.until_ms, self.code)
        if may_probe and not self.probing:
            self.probing = True
            return Gate("probe", 0.0, self.until_ms, self.code)
        return Gate("paused", 1.0, self.until_ms, self.code)

    def clear(self) -> None:
        self.until_ms = None


class FakeBudget:
    """Grants everything at once while the address is not paused, unless ``grants`` says how much the next get."""

    burst = 10
    rate_per_s = 85.0
    per_window = 480

    def __init__(self, pauses: FakePauses, clock: Clock) -> None:
        self._pauses = pauses
        self._clock = clock
        self.spent: list[int] = []
        self.grants: list[int] = []
        self.owed = 0
        self.slow = False

    def spend(
        self, *sizes: int, horizon_s: float = 0.0, may_probe: bool = False, known_pause: Any = None
    ) -> Any:  # fmt: skip
        from pushserver.bus.budgets import VALID_S, Grant

        if known_pause is not None and known_pause[0] > 0:
            self._pauses.pause(*known_pause)
        gate = self._pauses.gate(may_probe)
        if gate.verdict != "open":
            return Grant(0, gate.left_s, (), gate)
        paid = sizes[: self.grants.pop(0)] if self.grants else sizes
        self.spent += paid
        now_s = self._clock.monotonic_s()
        return Grant(sum(paid), 0.01 * (len(paid) < len(sizes)), ((now_s, now_s + VALID_S),) * len(paid))

    def owe(self, requests: int) -> None:
        self.owed += requests

    def reopen(self, slowly: bool) -> None:
        self._pauses.clear()
        self.slow = slowly


class FakeMemos:
    def __init__(self) -> None:
        self.stored: dict[int, bytes] = {}

    def read(self, user_ids: Any) -> dict[int, bytes | None]:
        return {user_id: self.stored.get(user_id) for user_id in user_ids}

    def write(self, user_id: int, memo: bytes, fence: str = "") -> bool:
        self.stored[user_id] = memo
        return True
