"""When what a home keeps fresh is due, and when it is late."""

from __future__ import annotations

import random

import pytest

from pushserver.bus.homes import Live
from pushserver.model import DataType
from pushserver.workers.memo import Memo, Resource, ResourceMemo
from pushserver.workers.round_state import seconds_to_midnight
from pushserver.workers.timing import Moment, Timing

INTERVALS = {DataType.BALANCE: 10.0, DataType.POSITIONS: 5.0, DataType.PNL: 5.0, DataType.ORDERS: 15.0}
ALL = frozenset(DataType)
EVERYTHING = int(Live.STREAM | Live.MARKS | Live.BALANCE)
READ_MS = 1_000_000
DATE = "2026-11-23"


@pytest.fixture
def timing() -> Timing:
    return Timing(INTERVALS, reconcile_s=60)


@pytest.fixture
def memo() -> Memo:
    """Everything was read and committed at ``READ_MS``."""
    memo = Memo(today="1", realized="1", today_date=DATE)
    for resource in Resource:
        memo.resources[resource] = ResourceMemo(fetched_ms=READ_MS)
    for row in memo.types.values():
        row.good_ms, row.watched_ms = READ_MS, READ_MS - 1
    return memo


@pytest.mark.parametrize(
    ("live", "kept"),
    [
        (0, set()),
        (Live.STREAM, {DataType.ORDERS}),
        (Live.MARKS, set()),
        (Live.STREAM | Live.MARKS, {DataType.ORDERS, DataType.POSITIONS, DataType.PNL}),
        (EVERYTHING, set(DataType)),
    ],
)
def test_only_what_stream_and_marks_keep_fresh_is_reconciled_instead_of_polled(
    timing: Timing, live: int, kept: set[DataType]
) -> None:
    assert {data_type for data_type in DataType if timing.interval_ms(data_type, live) == 60_000} == kept


def test_a_late_reconciliation_is_no_delay_while_the_stream_says_nothing(timing: Timing, memo: Memo) -> None:
    assert timing.late_at_ms(memo, DataType.POSITIONS) == READ_MS + 6_500
    assert timing.late_at_ms(memo, DataType.POSITIONS, EVERYTHING) == READ_MS + 121_500


def test_what_a_hint_is_open_about_is_late_after_its_own_interval(timing: Timing, memo: Memo) -> None:
    memo.resources[Resource.POSITIONS].wanted_ms = READ_MS + 30_000
    assert timing.late_at_ms(memo, DataType.POSITIONS, EVERYTHING) == READ_MS + 36_500
    assert timing.late_at_ms(memo, DataType.ORDERS, EVERYTHING) == READ_MS + 121_500


def test_closed_pnl_is_counted_less_often_where_a_stream_tells_of_fills(timing: Timing, memo: Memo) -> None:
    for live, after_ms in ((0, 120_000), (EVERYTHING, 300_000)):
        assert not timing.closed_is_due(memo, Moment(READ_MS + after_ms - 1, DATE, live))
        assert timing.closed_is_due(memo, Moment(READ_MS + after_ms, DATE, live))


def test_a_new_day_makes_pnl_due(timing: Timing, memo: Memo) -> None:
    soon = Moment(READ_MS + 1, DATE, EVERYTHING)
    assert timing.due_types(memo, ALL, soon) == frozenset()
    assert timing.due_types(memo, ALL, Moment(READ_MS + 1, "2026-11-24", EVERYTHING)) == {DataType.PNL}
    assert timing.next_round_in_s(memo, ALL, soon, random.Random(1)) <= 60.0
    assert seconds_to_midnight(86_400_000 * 3 - 1500) == 1.5
