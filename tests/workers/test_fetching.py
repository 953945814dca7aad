"""Rounds of a user against a fake exchange: what is asked, committed and told, also when everything goes wrong."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from pushserver.bus.schedule import BUSY_HEAD_START_S, HINT_HEAD_START_S
from pushserver.errors import (
    AddressBanned,
    AnswerMalformed,
    ClockSkew,
    CredentialsUnreadable,
    ExchangeError,
    ExchangeUnavailable,
    KeyRefused,
    PermissionMissing,
    RateLimited,
    RequestRejected,
    StoreUnavailable,
)
from pushserver.model import DataType
from pushserver.observers import AddressPaused, FetchFailed, FreshnessChanged, StateCommitted
from pushserver.workers import paying
from pushserver.workers.hints import CLOSED_PNL, ORDERS, POSITIONS
from pushserver.workers.stopping import CHECK_S
from tests.workers.bench import ALL, Bench

ENDPOINTS = ("positions", "wallet", "closed_pnl", "orders")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def types_told(bench: Bench, state: str) -> Counter[DataType]:
    return Counter(kind for _, kind, told, *_ in bench.states.told if told == state)


def test_a_watched_user_gets_all_types_in_the_first_round(bench: Bench) -> None:
    bench.exchange.accounts["key-4"].open_position("BTCUSDT", "1", "5")
    bench.watch(4)
    bench.run_for(0.3)
    assert {kind for _, kind, *_ in bench.states.published} == ALL
    [pnl] = [head for _, kind, head, _ in bench.states.published if kind is DataType.PNL]
    assert b'"unrealized_pnl":5.0' in pnl and b'"total_pnl":5.0' in pnl


def test_a_user_and_minute_cost_at_most_23_requests_and_unchanged_data_one_push(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(60)
    assert bench.exchange.count() <= 23
    assert all(bench.pushed(4, kind) == 1 for kind in DataType)


def test_a_fill_gives_exactly_one_push_of_each_type_it_affects(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(22)
    account = bench.exchange.accounts["key-4"]
    account.open_position("BTCUSDT", "1", "5")
    account.equity, account.realized = "1004.9", "-0.1"
    account.close_trade("a", "3", bench.clock.wall_ms())
    bench.run_for(6)
    assert [bench.pushed(4, kind) for kind in (DataType.POSITIONS, DataType.PNL, DataType.BALANCE)] == [2, 2, 2]
    bench.run_for(60)
    assert {kind: bench.pushed(4, kind) for kind in DataType} == {
        DataType.POSITIONS: 2, DataType.PNL: 2, DataType.BALANCE: 2, DataType.ORDERS: 1,
    }  # fmt: skip


def test_the_stamp_of_pnl_is_the_oldest_of_its_answers(bench: Bench) -> None:
    bench.watch(4, frozenset({DataType.PNL}))
    started_ms = bench.clock.wall_ms()
    bench.run_for(0.3)
    [(_, _, _, as_of_ms)] = bench.states.published
    assert as_of_ms == started_ms + 20, "the position list came first"


def test_nobody_listening_costs_no_request_and_ends_in_being_dropped(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(12)
    bench.states.listening.clear()
    asked = bench.exchange.count()
    bench.run_for(28)
    assert bench.schedule.depth() == 1
    bench.run_for(7)
    assert bench.exchange.count() == asked
    assert bench.schedule.depth() == 0


def test_R1_a_moment_in_which_nobody_seems_to_listen_costs_no_more_than_a_moment(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(12)
    # Redis was away for long, and the web workers come back a little later than the push workers.
    bench.states.listening.clear()
    bench.clock.advance(14)
    bench.run_for(0.6)
    pushes = bench.exchange.count()
    bench.states.listening[4] = ALL
    bench.run_for(1.1)
    assert bench.exchange.count() > pushes


def test_a_returning_phone_is_served_at_once_and_without_extra_requests(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(12)
    bench.states.listening.clear()
    bench.run_for(20)
    asked = bench.exchange.count()
    bench.watch(4)
    bench.run_for(0.3)
    assert bench.exchange.count() - asked == 3, "positions, wallet and orders are old; closed pnl is not"
    bench.watch(4)
    bench.run_for(1)
    assert bench.exchange.count() - asked == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ExchangeUnavailable("down"), "exchange_unavailable"),
        (AnswerMalformed("html"), "exchange_answer_malformed"),
        (ClockSkew("late"), "exchange_clock_skew"),
        (RequestRejected("10001"), "exchange_request_rejected"),
        (RateLimited("10006", retry_after_s=2.0), "exchange_rate_limited"),
    ],
)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_a_failing_endpoint_delays_its_types_tells_them_once_and_heals(
    bench: Bench, endpoint: str, error: ExchangeError, code: str
) -> None:
    needs = {
        "positions": {DataType.POSITIONS, DataType.PNL},
        "wallet": {DataType.BALANCE, DataType.PNL},
        "closed_pnl": {DataType.PNL},
        "orders": {DataType.ORDERS},
    }[endpoint]
    bench.exchange.always[endpoint] = error
    bench.watch(4)
    bench.run_for(40)
    assert types_told(bench, "delayed") == Counter(needs)
    assert {reason for _, _, told, reason, _ in bench.states.told} == {code}
    assert {kind for _, kind, *_ in bench.states.published} == ALL - needs
    assert {record.data_type for record in bench.records(FetchFailed)} == needs
    del bench.exchange.always[endpoint]
    bench.run_for(62)
    assert types_told(bench, "live") == Counter(needs)
    assert {kind for _, kind, *_ in bench.states.published} == ALL


def test_phones_are_told_of_an_outage_within_interval_and_two_seconds(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(30.4)
    down_s = bench.clock.monotonic_s()
    for endpoint in ENDPOINTS:
        bench.exchange.always[endpoint] = ExchangeUnavailable("down")
    told_after: dict[DataType, float] = {}
    while len(told_after) < 4 and bench.clock.monotonic_s() - down_s < 30:
        bench.run_for(0.1)
        for _, kind, state, *_ in bench.states.told:
            if state == "delayed":
                told_after.setdefault(kind, bench.clock.monotonic_s() - down_s)
    assert told_after[DataType.POSITIONS] <= 7 and told_after[DataType.PNL] <= 7
    assert told_after[DataType.BALANCE] <= 12 and told_after[DataType.ORDERS] <= 17


def test_one_failed_request_that_heals_at_once_is_not_told(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(12)
    bench.exchange.faults["positions"].append(RateLimited("10006", retry_after_s=0.5))
    bench.run_for(30)
    assert bench.states.told == []


def test_a_rate_limited_endpoint_rests_until_the_hint_while_others_go_on(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(3)
    bench.exchange.faults["positions"].append(RateLimited("10006", retry_after_s=20.0))
    bench.run_for(3)
    refused_s = next(at for at, _, endpoint in reversed(bench.exchange.requests) if endpoint == "positions")
    bench.run_for(40)
    times = [at for at, _, endpoint in bench.exchange.requests if endpoint == "positions" and at > refused_s]
    assert 20 <= times[0] - refused_s <= 21
    assert sum(1 for at, _, endpoint in bench.exchange.requests if refused_s < at < times[0] and endpoint == "wallet")


def test_a_dead_exchange_is_asked_ever_more_rarely(bench: Bench) -> None:
    for endpoint in ENDPOINTS:
        bench.exchange.always[endpoint] = ExchangeUnavailable("down")
    bench.watch(4)
    bench.run_for(300)
    early = bench.exchange.count()
    bench.run_for(300)
    assert bench.exchange.count() - early < 75


def test_a_blank_figure_fails_its_type_alone_and_is_no_zero(bench: Bench) -> None:
    bench.exchange.accounts["key-4"].available = ""
    bench.watch(4)
    bench.run_for(30)
    assert {kind for _, kind, *_ in bench.states.published} == {DataType.POSITIONS, DataType.PNL, DataType.ORDERS}
    assert types_told(bench, "delayed") == Counter([DataType.BALANCE])
    bench.exchange.accounts["key-4"].available = "800"
    bench.run_for(60)
    assert bench.pushed(4, DataType.BALANCE) == 1


def test_rows_that_crash_a_mapper_take_no_other_type_along(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(rows: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.tools.figures, "orders", crash)
    bench.watch(4)
    bench.run_for(30)
    assert {kind for _, kind, *_ in bench.states.published} == ALL - {DataType.ORDERS}
    assert bench.exchange.count("orders") <= 3


def test_an_answer_stamped_ahead_of_our_time_is_a_failed_fetch(bench: Bench) -> None:
    bench.exchange.stamp_offset_ms = 6_000
    bench.watch(4)
    bench.run_for(1)
    assert bench.states.published == []
    bench.exchange.stamp_offset_ms = 0
    bench.run_for(20)
    assert {kind for _, kind, *_ in bench.states.published} == ALL


def test_an_answer_older_than_the_stored_state_is_counted_and_changes_nothing(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(1)
    bench.exchange.stamp_offset_ms = -30_000
    bench.exchange.accounts["key-4"].equity = "5"
    bench.run_for(8)
    assert "stale" in {record.result for record in bench.records(StateCommitted)}
    assert all(bench.pushed(4, kind) == 1 for kind in DataType)


# --- keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["key_invalid", "key_expired", "key_permission", "account_blocked"])
def test_a_refused_key_stops_the_user_until_another_is_stored(bench: Bench, code: str) -> None:
    bench.watch(4)
    bench.run_for(12)
    bench.exchange.always["positions"] = KeyRefused(code=code)
    bench.run_for(6)
    assert types_told(bench, "stopped") == Counter(ALL)
    assert {reason for *_, reason, _ in bench.states.told} == {code}
    asked = bench.exchange.count()
    bench.run_for(600)
    assert bench.exchange.count() == asked
    assert len(bench.states.told) == 4, "a status that has not changed is not repeated"
    del bench.exchange.always["positions"]
    bench.keys.versions[4] = 2
    bench.run_for(CHECK_S + 2)
    assert types_told(bench, "live") == Counter(ALL)


def test_a_signalled_key_resumes_the_user_at_once(bench: Bench) -> None:
    bench.exchange.faults["positions"].append(KeyRefused())
    bench.watch(4)
    bench.run_for(3)
    bench.keys.versions[4] = 2
    bench.credentials.forget(4)
    bench.schedule.wake([4])
    bench.run_for(0.5)
    assert {kind for _, kind, *_ in bench.states.published} == ALL


def test_a_user_without_a_key_is_stopped_and_served_when_one_is_stored(bench: Bench) -> None:
    bench.keys.versions[4] = None
    bench.watch(4)
    bench.run_for(60)
    assert bench.exchange.count() == 0
    assert {reason for *_, reason, _ in bench.states.told} == {"key_missing"}
    bench.keys.versions[4] = 1
    bench.run_for(30)
    assert types_told(bench, "live") == Counter(ALL)


def test_an_unreadable_key_stops_the_user(bench: Bench) -> None:
    bench.keys.errors[4] = CredentialsUnreadable()
    bench.watch(4)
    bench.run_for(30)
    assert bench.exchange.count() == 0
    assert {(state, reason) for _, _, state, reason, _ in bench.states.told} == {("stopped", "key_unreadable")}
    del bench.keys.errors[4]
    bench.run_for(30)
    assert types_told(bench, "live") == Counter(ALL)


def test_a_type_subscribed_while_stopped_is_told_too(bench: Bench) -> None:
    bench.keys.versions[4] = None
    bench.watch(4, frozenset({DataType.ORDERS}))
    bench.run_for(1)
    bench.watch(4)
    bench.run_for(1)
    assert types_told(bench, "stopped") == Counter(ALL)


def test_answers_to_a_key_replaced_under_way_are_dropped(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(12)
    bench.exchange.accounts["key-4"].equity = "77"
    published = len(bench.states.published)

    def replace() -> None:
        bench.keys.versions[4] = 2
        bench.credentials.forget(4)
        bench.exchange.accounts["key-4"].equity = "1000"

    bench.exchange.faults["wallet"].append(replace)
    bench.run_for(10)
    assert bench.exchange.faults["wallet"] == []
    assert any(ending.code == "key_changed" for ending in bench.endings)
    assert len(bench.states.published) == published


def test_another_key_starts_with_no_memory_of_the_old_account(bench: Bench) -> None:
    bench.exchange.accounts["key-4"].realized = "50"
    bench.watch(4)
    bench.run_for(12)
    bench.keys.versions[4] = 2
    bench.credentials.forget(4)
    bench.exchange.accounts["key-4"].realized = "7"
    asked = bench.exchange.count()
    bench.schedule.wake([4])
    bench.run_for(0.3)
    assert bench.exchange.count() - asked == 4, "everything is read anew, and once"


def test_a_database_that_is_away_for_minutes_is_not_noticed_by_known_users(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(12)
    bench.keys.errors[4] = StoreUnavailable()
    asked = bench.exchange.count()
    bench.run_for(540)
    assert bench.exchange.count() - asked > 180
    assert bench.states.told == []


def test_a_database_that_is_away_from_the_start_is_told_and_heals(bench: Bench) -> None:
    bench.keys.errors[4] = StoreUnavailable()
    bench.watch(4)
    bench.run_for(60)
    assert types_told(bench, "delayed") == Counter(ALL)
    del bench.keys.errors[4]
    bench.run_for(62)
    assert types_told(bench, "live") == Counter(ALL)


def test_a_hint_that_came_while_the_database_was_away_is_not_lost(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(2)
    asked = bench.exchange.count("orders")
    bench.keys.errors[4] = StoreUnavailable()
    bench.credentials.forget(4)
    bench.schedule.wake([4], hints=ORDERS)
    serve_at_home(bench, 1)
    del bench.keys.errors[4]
    serve_at_home(bench, 20)
    assert bench.exchange.count("orders") == asked + 1


def serve_at_home(bench: Bench, seconds: float) -> None:
    """As run_for, for users whose home keeps everything fresh."""
    for _ in range(round(seconds / 0.1)):
        for claim in bench.schedule.claim(1, 12.0, "bench"):
            bench.serve(dataclasses.replace(claim, live=7))
        bench.clock.advance(0.1)


# --- the address ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("urgent", ["hint", "new watcher"])
def test_who_is_urgent_and_got_nothing_in_a_crowd_stays_in_front(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, urgent: str
) -> None:
    monkeypatch.setattr(paying, "URGENT_PATIENCE_S", 0.05)
    bench.watch(5)
    if urgent == "hint":
        bench.watch(4)
    bench.run_for(2)
    if urgent == "hint":
        bench.schedule.wake([4], head_start_s=HINT_HEAD_START_S, hints=ORDERS)
    else:
        bench.watch(4)
    bench.budget.grants = [0] * 1000
    [claim] = bench.schedule.claim(1, 12.0, "bench")
    assert claim.user_id == 4
    asked = bench.exchange.count()
    bench.serve(claim)
    assert bench.exchange.count() == asked
    bench.budget.grants.clear()
    # The other one has been due for longer.
    bench.clock.advance(30)
    [again] = bench.schedule.claim(1, 12.0, "bench")
    assert (again.user_id, again.hints) == (4, claim.hints)
    bench.serve(again)
    assert bench.exchange.count() > asked


@pytest.mark.parametrize("head_start_s", [HINT_HEAD_START_S, BUSY_HEAD_START_S])
def test_who_was_asked_for_in_part_in_a_crowd_keeps_its_place_and_what_is_left_of_its_hints(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, head_start_s: float
) -> None:
    monkeypatch.setattr(paying, "URGENT_PATIENCE_S", 0.05)
    bench.watch(4)
    bench.run_for(2)
    bench.schedule.wake([4], head_start_s=head_start_s, hints=POSITIONS | CLOSED_PNL)
    bench.exchange.accounts["key-4"].open_position("BTCUSDT", "1", "5")
    bench.budget.grants = [1] + [0] * 1000
    [claim] = bench.schedule.claim(1, 12.0, "bench")
    bench.serve(claim)
    bench.budget.grants.clear()
    [again] = bench.schedule.claim(1, 12.0, "bench")
    assert again.user_id == 4
    assert again.hints & CLOSED_PNL and not again.hints & POSITIONS
    assert again.head_start_s == head_start_s, "and no other"
    counted = bench.exchange.count("closed_pnl")
    bench.serve(again)
    assert bench.exchange.count("closed_pnl") > counted


def test_a_ban_silences_everybody_until_one_probe_succeeds(bench: Bench) -> None:
    users = range(1, 21)
    for user_id in users:
        bench.watch(user_id)
    bench.run_for(20)
    bench.exchange.faults["positions"].append(AddressBanned(exchange_code=403))
    bench.exchange.faults["server_time"].append(AddressBanned(exchange_code=403))
    bench.run_for(6)
    banned = bench.records(AddressPaused)
    assert [record.seconds for record in banned] == [600.0]
    asked = bench.exchange.count()
    bench.run_for(590)
    assert bench.exchange.count() == asked
    until = {until_ms for *_, state, _, until_ms in bench.states.told if state == "delayed"}
    assert len(until) == 1, "everybody is told the same end"
    assert len(bench.states.told) == 4 * len(users)
    bench.run_for(15)
    assert bench.exchange.count("server_time") == 2
    assert bench.exchange.requests[asked][2] == "server_time"
    bench.run_for(15)
    assert types_told(bench, "live") == Counter({kind: len(users) for kind in DataType})


def test_a_probe_that_is_refused_begins_another_pause(bench: Bench) -> None:
    bench.watch(4)
    banned = AddressBanned(exchange_code=403, retry_after_s=60.0)
    bench.exchange.faults["positions"].append(banned)
    bench.exchange.faults["server_time"] += [banned, banned]
    bench.run_for(70)
    assert bench.exchange.counts() == {"orders": 1, "wallet": 1, "positions": 1, "server_time": 2}
    bench.run_for(65)
    assert bench.exchange.count("server_time") == 3
    assert {kind for _, kind, *_ in bench.states.published} == ALL


# --- lateness ------------------------------------------------------------------------------------------------


def test_an_exchange_that_takes_a_second_per_answer_makes_nothing_late(bench: Bench) -> None:
    bench.exchange.latency_s = 1.0
    bench.watch(4)
    bench.run_for(40)
    assert not bench.states.told
    bench.exchange.accounts["key-4"].open_position("BTCUSDT", "1", "5")
    changed_s = bench.clock.monotonic_s()
    while bench.pushed(4, DataType.POSITIONS) < 2:
        bench.run_for(0.1)
    assert bench.clock.monotonic_s() - changed_s <= 5 + 2.5
    bench.run_for(20)
    assert not bench.states.told


def test_a_hung_request_ends_with_the_rounds_deadline(bench: Bench) -> None:
    bench.exchange.faults["positions"].append(lambda: setattr(bench.exchange, "latency_s", 60.0))
    bench.watch(4)
    started_s = bench.clock.monotonic_s()
    claims = bench.schedule.claim(1, 12.0, "bench")
    bench.serve(claims[0])
    assert bench.clock.monotonic_s() - started_s == pytest.approx(8.0)


def test_a_worker_that_cannot_keep_up_says_so_and_takes_it_back(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(1)
    for _ in range(3):
        bench.clock.advance(9)
        bench.run_for(0.2)
    assert {reason for _, _, state, reason, _ in bench.states.told if state == "delayed"} == {"server_busy"}
    bench.run_for(20)
    assert all(bench.status(4, kind) == "live" for kind in DataType)


def test_a_status_that_another_worker_overwrote_is_put_right(bench: Bench) -> None:
    bench.watch(4)
    bench.run_for(12)
    bench.states.statuses[4, DataType.PNL] = ("delayed", "exchange_unavailable", None)
    bench.run_for(7)
    assert bench.states.told == [(4, DataType.PNL, "live", "", None)]


def test_every_change_of_freshness_is_reported(bench: Bench) -> None:
    bench.keys.versions[4] = None
    bench.watch(4)
    bench.run_for(1)
    assert {record.data_type for record in bench.records(FreshnessChanged)} == ALL


def test_a_missing_permission_stops_only_what_needs_it_until_another_key_comes(bench: Bench) -> None:
    bench.exchange.always["orders"] = PermissionMissing(exchange_code=10005)
    bench.watch(4)
    bench.run_for(40)
    assert bench.exchange.count("orders") == 1
    assert bench.states.told == [(4, DataType.ORDERS, "stopped", "key_permission", None)]
    assert bench.exchange.count("positions") >= 7
    del bench.exchange.always["orders"]
    bench.keys.versions[4] = 2
    bench.credentials.forget(4)
    bench.run_for(10)
    assert bench.status(4, DataType.ORDERS) == "live"


def test_an_endpoint_that_takes_no_more_of_a_user_rests_as_long_as_it_says(bench: Bench) -> None:
    answer = bench.exchange.positions
    spent = [True]
    bench.exchange.positions = lambda *given: dataclasses.replace(  # type: ignore[method-assign]
        answer(*given), remaining=0 if spent else None, resets_in_s=20.0 if spent else 0.0
    )
    bench.watch(4)
    bench.run_for(15)
    assert bench.exchange.count("positions") == 1
    assert bench.exchange.count("wallet") >= 2
    spent.clear()
    bench.run_for(10)
    assert bench.exchange.count("positions") == 2


# --- many users ----------------------------------------------------------------------------------------------


def test_a_thousand_users_are_spread_over_the_first_seconds() -> None:
    bench = Bench()
    bench.exchange.latency_s = 0.0
    for user_id in range(1, 1001):
        bench.states.listening[user_id] = ALL
    bench.schedule.ensure(range(1, 1001))
    started_s = bench.clock.monotonic_s()
    bench.run_for(3.2)
    seconds = Counter(int((at_s - started_s) / 0.5) for at_s, _, asked in bench.exchange.requests if asked == "wallet")
    assert sum(seconds.values()) == 1000
    assert max(seconds.values()) <= 250


def test_faults_of_one_user_leave_the_requests_of_another_as_they_are() -> None:
    calm, mixed = Bench(), Bench()
    calm.watch(1)
    calm.run_for(60)
    mixed.watch(1)
    mixed.watch(2)
    mixed.keys.errors[2] = CredentialsUnreadable()
    mixed.run_for(60)
    assert mixed.exchange.count() == pytest.approx(calm.exchange.count(), abs=1)
