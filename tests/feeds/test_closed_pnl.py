"""Today's closed pnl, counted since a boundary, is what counting the whole day gives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushserver.errors import AnswerMalformed
from pushserver.feeds import closed_pnl
from pushserver.feeds.closed_pnl import LATEST_APPEARANCE_MS, PAGE_ROWS, ClosedDay, ClosedSums, advance

DATE = "2026-01-02"
MIDNIGHT_MS = 1_767_312_000_000
MINUTE_MS = 60_000
MARKS = {"BTCUSD": Decimal("61450.5"), "ETHUSD": Decimal("3012.25")}
BEGINNING = ClosedDay(DATE, MIDNIGHT_MS, 0)


@dataclass(frozen=True)
class Fill:
    """After ``at_ms`` its order's row shows this fill too, from ``seen_ms`` on."""

    order: int
    at_ms: int
    seen_ms: int
    amount: Decimal


@st.composite
def fills(draw: st.DrawFn) -> Fill:
    # Coarse times, so that stamps coincide with each other and with boundaries.
    at_ms = MIDNIGHT_MS + draw(st.integers(-4, 90)) * MINUTE_MS // 2
    late_ms = draw(st.sampled_from([0, 0, 1, MINUTE_MS, LATEST_APPEARANCE_MS // 2, LATEST_APPEARANCE_MS - 1]))
    return Fill(draw(st.integers(0, 19)), at_ms, at_ms + late_ms, Decimal(draw(st.integers(-900, 900))) / 1000)


def row_of(order: int, versions: Sequence[Fill]) -> dict[str, Any]:
    """The one row of an order after these fills; every third order is one of an inverse contract."""
    market = ("linear", "BTCUSDT") if order % 3 else ("inverse", ("BTCUSD", "ETHUSD")[order % 2])
    return {
        "category": market[0], "symbol": market[1], "orderId": f"order {order}", "fillCount": str(len(versions)),
        "closedPnl": str(sum(fill.amount for fill in versions)),
        "updatedTime": str(max(fill.at_ms for fill in versions)),
    }  # fmt: skip


def visible(history: Sequence[Fill], now_ms: int, since_ms: int) -> list[dict[str, Any]]:
    """What the exchange shows at a moment of the rows updated since another."""
    orders: dict[int, list[Fill]] = {}
    for fill in history:
        if fill.seen_ms <= now_ms:
            orders.setdefault(fill.order, []).append(fill)
    rows = [row_of(order, versions) for order, versions in orders.items()]
    return [row for row in rows if int(row["updatedTime"]) >= since_ms]


class Looks:
    """Looks at a history as a worker does, with the day written down in between."""

    def __init__(self, history: Sequence[Fill]) -> None:
        self.history = history
        self.day = BEGINNING
        self.rows_read: list[int] = []
        self.rng = random.Random(7)

    def look(self, now_ms: int, whole: bool = False) -> ClosedSums:
        if whole:
            self.day = BEGINNING
        rows = visible(self.history, now_ms, self.day.boundary_ms)
        if self.day.counts_twice(rows):
            self.day = BEGINNING
            rows = visible(self.history, now_ms, self.day.boundary_ms)
        self.rows_read.append(len(rows))
        # Rows of one page show up again on the next one, and no order is promised.
        rows += self.rng.sample(rows, len(rows) // 3)
        self.rng.shuffle(rows)
        sums, day = advance(self.day, rows, now_ms)
        self.day = ClosedDay.from_values(orjson.loads(orjson.dumps(day, default=str)))
        assert self.day == day
        return sums


def plain_sum(rows: list[dict[str, Any]]) -> Decimal:
    """In dollars, each different row once."""
    different = {orjson.dumps(row, option=orjson.OPT_SORT_KEYS): row for row in rows}.values()
    rates = [MARKS[row["symbol"]] if row["category"] == "inverse" else Decimal(1) for row in different]
    return sum((Decimal(row["closedPnl"]) * rate for row, rate in zip(different, rates, strict=True)), Decimal(0))


@given(
    st.lists(fills(), min_size=15, max_size=40),
    st.lists(st.tuples(st.integers(0, 55 * MINUTE_MS), st.sampled_from([False] * 7 + [True])), min_size=6, max_size=14),
)
@settings(max_examples=250, deadline=None)
def test_whatever_the_day_and_the_looks_the_sum_is_that_of_the_whole_day(
    history: list[Fill], looks: list[tuple[int, bool]]
) -> None:
    whole_page, closed_pnl.PAGE_ROWS = closed_pnl.PAGE_ROWS, 2
    try:
        worker = Looks(history)
        for after_ms, whole in sorted(looks):
            now_ms = MIDNIGHT_MS + after_ms
            sums = worker.look(now_ms, whole)
            rows = visible(history, now_ms, MIDNIGHT_MS)
            assert sums.in_dollars(MARKS) == plain_sum(rows)
            assert sums.trace() == advance(BEGINNING, rows, now_ms)[0].trace(), "no news where nothing is new"
    finally:
        closed_pnl.PAGE_ROWS = whole_page


def heavy_day(orders: int, every_ms: int) -> list[Fill]:
    stamps = [MIDNIGHT_MS + number * every_ms for number in range(orders)]
    return [Fill(number, at_ms, at_ms + 40, Decimal(number % 7 - 3)) for number, at_ms in enumerate(stamps)]


def test_a_look_at_two_thousand_closing_orders_reads_one_page_instead_of_twenty() -> None:
    history = heavy_day(2_000, 10_000)
    worker = Looks(history)
    end_ms = history[-1].at_ms
    worker.look(end_ms)
    for seconds in range(0, 480, 120):
        sums = worker.look(end_ms + seconds * 1000)
    assert worker.rows_read[0] > 1_900
    assert max(worker.rows_read[1:]) <= 100
    assert sums.rows == 2_000
    assert len(orjson.dumps(worker.day, default=str)) < 10_000, "it is written after every round"


def test_a_day_that_fits_a_page_is_read_whole() -> None:
    worker = Looks(heavy_day(PAGE_ROWS, 60_000))
    worker.look(MIDNIGHT_MS + 10 * 3_600_000)
    assert worker.day == BEGINNING


def test_an_order_that_goes_on_filling_after_it_was_settled_is_not_counted_twice() -> None:
    history = heavy_day(200, 60_000)
    worker = Looks(history)
    later_ms = history[-1].at_ms + 60_000
    worker.look(later_ms)
    worker.history = [*history, Fill(3, later_ms, later_ms, Decimal(50))]
    sums = worker.look(later_ms)
    assert sums.rows == 200
    assert worker.rows_read == [200, 200], "the day was read whole again"
    worker.look(later_ms + 60_000)
    assert worker.rows_read[-1] <= 10, "once is enough"


@pytest.mark.parametrize("before_ms", [1, 60_000, LATEST_APPEARANCE_MS])
def test_a_row_that_appears_up_to_five_minutes_late_is_in_the_next_look(before_ms: int) -> None:
    history = heavy_day(200, 60_000)
    newest_ms = history[-1].seen_ms
    late = Fill(500, newest_ms - before_ms, newest_ms + 1, Decimal(50))
    worker = Looks([*history, late])
    assert worker.look(newest_ms).rows == 200
    assert worker.look(newest_ms + 1).rows == 201
    assert worker.rows_read[-1] <= 10


def test_rows_without_an_order_are_doubted() -> None:
    nameless = row_of(1, heavy_day(1, 1)) | {"orderId": ""}
    settled = advance_all([nameless | {"fillCount": str(number)} for number in range(PAGE_ROWS + 1)])
    assert settled.counts_twice([nameless])
    assert not BEGINNING.counts_twice([nameless]), "nothing is settled"


def advance_all(rows: list[dict[str, Any]]) -> ClosedDay:
    """The day after rows that are all old enough to be settled, and a young one."""
    young_ms = MIDNIGHT_MS + 2 * LATEST_APPEARANCE_MS
    young = row_of(2, [Fill(2, young_ms, young_ms, Decimal(1))])
    return advance(BEGINNING, [*rows, young], young_ms)[1]


def test_what_is_settled_in_coin_follows_the_mark() -> None:
    coins = ClosedSums(2, 5, Decimal(3), {"BTCUSD": Decimal("0.01")})
    assert coins.in_dollars({"BTCUSD": Decimal(50_000)}) == 503
    assert coins.in_dollars({"BTCUSD": Decimal(60_000)}) == 603
    with pytest.raises(AnswerMalformed):
        coins.in_dollars({})
    assert ClosedSums(2, 5, Decimal(3), {"BTCUSD": Decimal(0)}).in_dollars({}) == 3


@pytest.mark.parametrize("field", ["closedPnl", "updatedTime", "symbol"])
def test_H06_a_blank_of_a_row_since_the_boundary_is_a_failed_fetch(field: str) -> None:
    row = row_of(0, heavy_day(1, 1))
    with pytest.raises(AnswerMalformed):
        advance(BEGINNING, [row | {field: ""}], MIDNIGHT_MS)
