"""From when on rounds read closed pnl, and what their phones are shown of it."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from pushserver.exchange.port import Answer, Pay, unpaid
from pushserver.model import Credentials, DataType
from pushserver.workers.memo import Memo
from tests.workers.bench import Bench

#: The bench begins at noon.
NOON_S = 12 * 3_600
ORDERS = 400


class HeavyTrader(Bench):
    """User 4 closed one order a minute and a bit; ``since_s`` and ``rows``: seconds of the day each look began at,
    and how many rows it brought."""

    def __init__(self) -> None:
        super().__init__()
        self.midnight_ms = self.clock.wall_ms() - NOON_S * 1000
        self.since_s: list[float] = []
        self.rows: list[int] = []
        self.read = self.exchange.closed_pnl
        self.exchange.closed_pnl = self.closed_pnl  # type: ignore[method-assign]
        for number in range(ORDERS):
            self.close(f"order {number}", "1", self.midnight_ms + (number + 1) * NOON_S * 1000 // ORDERS)
        self.watch(4, frozenset({DataType.PNL}))

    def close(self, order: str, pnl: str, at_ms: int) -> None:
        self.exchange.accounts["key-4"].close_trade(order, pnl, at_ms)

    def closed_pnl(self, credentials: Credentials, since_ms: int, deadline_s: float, pay: Pay = unpaid) -> Answer:
        answer = self.read(credentials, since_ms, deadline_s, pay)
        self.since_s.append((since_ms - self.midnight_ms) / 1000)
        self.rows.append(len(answer.rows))
        return answer

    def shown(self) -> Decimal:
        [*_, head] = [head for _, kind, head, _ in self.states.published if kind is DataType.PNL]
        [_, figure] = head.split(b'"today_pnl":', 1)
        return Decimal(json.loads(figure.split(b",")[0].rstrip(b"}")))


@pytest.fixture
def bench() -> HeavyTrader:
    return HeavyTrader()


def test_only_the_tail_is_read_between_two_whole_counts(bench: HeavyTrader) -> None:
    bench.run_for(610)
    whole = [number for number, since_s in enumerate(bench.since_s) if since_s == 0]
    assert whole == [0, 3], "looks come every 120 s, whole ones after 300 s"
    assert bench.rows[0] == ORDERS
    assert max(rows for number, rows in enumerate(bench.rows) if number not in whole) <= 4
    assert bench.shown() == ORDERS


def test_what_is_closed_between_looks_is_added(bench: HeavyTrader) -> None:
    bench.run_for(30)
    bench.close("new", "2.5", bench.clock.wall_ms())
    bench.exchange.accounts["key-4"].realized = "2.5"
    bench.run_for(12)
    assert bench.shown() == ORDERS + Decimal("2.5")
    assert bench.since_s.count(0) == 1


def test_a_settled_order_that_fills_further_is_counted_once_and_paid_for(bench: HeavyTrader) -> None:
    bench.run_for(30)
    account = bench.exchange.accounts["key-4"]
    account.closed[7] |= {"closedPnl": "5", "updatedTime": str(bench.clock.wall_ms())}
    account.realized = "4"
    asked = bench.exchange.count()
    bench.run_for(6)
    assert bench.shown() == ORDERS + 4
    assert bench.since_s.count(0) == 2
    assert sum(ending.requests for ending in bench.endings) == bench.exchange.count() > asked


def test_a_lost_memo_and_a_new_key_and_a_new_day_begin_with_the_whole_day(bench: HeavyTrader) -> None:
    bench.run_for(6)
    assert bench.memo(4).closed_day is not None
    bench.memos.stored.clear()
    bench.run_for(6)
    assert bench.since_s == [0, 0]
    memo = bench.memo(4)
    memo.use_key(99)
    assert memo.closed_day is None
    bench.clock.advance(NOON_S)
    bench.run_for(6)
    assert bench.since_s[2] == NOON_S * 2
    assert bench.shown() == 0


@pytest.mark.parametrize(
    "damage", [b'"linear":"x"', b'"linear":null', b'"linear":[]', b'"linear":"NaN"', b'"dollars":"1"']
)
def test_a_damaged_day_counts_as_no_memo(bench: HeavyTrader, damage: bytes) -> None:
    bench.run_for(6)
    raw = bench.memo(4).to_bytes()
    [settled] = [part for part in raw.replace(b"{", b",").split(b",") if part.startswith(b'"linear":')]
    assert Memo.from_bytes(raw.replace(settled, damage)) == Memo()
    assert Memo.from_bytes(raw) == bench.memo(4)
