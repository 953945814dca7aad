"""Rounds of users whose private stream is followed: hints are served at once, the rest is only reconciled."""

from __future__ import annotations

import dataclasses

import pytest

from pushserver.bus.homes import Live
from pushserver.bus.schedule import HINT_HEAD_START_S
from pushserver.errors import ExchangeUnavailable
from pushserver.model import DataType
from pushserver.workers import hints
from pushserver.workers.memo import Resource
from tests.workers.bench import Bench

KEPT = Live.STREAM | Live.MARKS | Live.BALANCE


class LiveBench(Bench):
    """A worker whose users have a home that keeps ``live`` fresh."""

    live = int(KEPT)

    def serve(self, claim: object) -> object:  # type: ignore[override]
        return super().serve(dataclasses.replace(claim, live=self.live, homeless=False))  # type: ignore[type-var]

    def hint(self, user_id: int, bits: int) -> None:
        self.schedule.wake([user_id], head_start_s=HINT_HEAD_START_S, hints=bits)


@pytest.fixture
def bench() -> LiveBench:
    bench = LiveBench()
    bench.watch(4)
    bench.run_for(8)
    bench.exchange.requests.clear()
    return bench


def test_hints_name_resources_and_bits_without_meaning_are_ignored() -> None:
    assert hints.hinted(hints.CATCH_UP) == frozenset(Resource)
    assert hints.hinted(hints.ORDERS | 1 << 20) == {Resource.ORDERS}


def test_what_a_home_keeps_fresh_is_only_reconciled(bench: LiveBench) -> None:
    bench.run_for(120)
    counts = bench.exchange.counts()
    assert 1 <= counts["positions"] <= 3 and 1 <= counts["orders"] <= 3 and 1 <= counts["wallet"] <= 3
    assert not bench.states.told, "nothing is late meanwhile"


def test_polling_goes_on_at_once_when_the_home_is_lost(bench: LiveBench) -> None:
    bench.live = 0
    bench.hint(4, hints.CATCH_UP)
    bench.run_for(30)
    assert bench.exchange.count("positions") >= 6


def test_a_stream_without_marks_leaves_positions_to_polling(bench: LiveBench) -> None:
    bench.live = int(Live.STREAM)
    bench.hint(4, hints.CATCH_UP)
    bench.run_for(30)
    assert bench.exchange.count("positions") >= 6
    assert bench.exchange.count("orders") <= 2


def test_a_hint_fetches_what_it_names_and_no_more_when_there_is_news(bench: LiveBench) -> None:
    bench.exchange.accounts["key-4"].add_order("a")
    bench.hint(4, hints.ORDERS)
    bench.run_for(0.3)
    assert bench.pushed(4, DataType.ORDERS) == 2
    bench.run_for(10)
    assert bench.exchange.counts() == {"orders": 1}


def test_a_hint_that_nothing_new_is_seen_of_is_looked_after_once_more(bench: LiveBench) -> None:
    bench.hint(4, hints.ORDERS)
    bench.run_for(0.3)
    bench.exchange.accounts["key-4"].add_order("late")
    bench.run_for(2)
    assert bench.pushed(4, DataType.ORDERS) == 2, "the list lagged behind the stream"
    bench.run_for(10)
    assert bench.exchange.counts() == {"orders": 2}


def test_what_is_caught_up_with_is_read_once(bench: LiveBench) -> None:
    bench.hint(4, hints.CATCH_UP)
    bench.run_for(10)
    assert bench.exchange.counts() == {"orders": 1, "positions": 1, "wallet": 1, "closed_pnl": 1}


def test_a_hinted_request_that_failed_is_not_left_to_the_next_reconciliation(bench: LiveBench) -> None:
    bench.exchange.faults["orders"].append(ExchangeUnavailable())
    bench.exchange.accounts["key-4"].add_order("a")
    bench.hint(4, hints.ORDERS)
    bench.run_for(5)
    assert bench.pushed(4, DataType.ORDERS) == 2


def test_a_type_newly_listened_to_is_fetched_at_once_although_its_resource_is_fresh(bench: LiveBench) -> None:
    bench.watch(4, frozenset({DataType.POSITIONS}))
    bench.run_for(10)
    bench.exchange.requests.clear()
    bench.watch(4)
    bench.run_for(0.5)
    assert bench.exchange.count("positions") == 1
