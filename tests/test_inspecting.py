"""What support is told of one user."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pushserver.accounts.records import User
from pushserver.bus.health import StoredHealth
from pushserver.bus.homes import Live
from pushserver.bus.states import NOTHING_STORED, StoredState
from pushserver.bus.user_traces import PauseTrace, UserTrace
from pushserver.inspecting import Seen, as_text, report
from pushserver.model import DataType, Freshness
from pushserver.settings import DEFAULT_INTERVALS
from pushserver.workers.memo import Memo, Resource, Stop
from pushserver.workers.timing import Timing

NOW_MS = 1_767_268_800_000
BALANCE, ORDERS = DataType.BALANCE, DataType.ORDERS


def stored(age_s: float, state: Freshness = Freshness.LIVE, reason: str = "") -> StoredState:
    at_ms = NOW_MS - round(age_s * 1000)
    return StoredState(42, at_ms, at_ms, b"frame", state, reason, None)


def seen(**changes: Any) -> Seen:
    """A user whose every type is watched, was confirmed 3 s ago and is kept by a home."""
    memo = Memo(heard_ms=NOW_MS - 3_000, today="1", today_date="2026-01-01", realized="5")
    for resource in memo.resources.values():
        resource.fetched_ms = NOW_MS - 3_000
    for row in memo.types.values():
        row.good_ms = row.watched_ms = NOW_MS - 3_000
    trace = UserTrace(
        NOW_MS, NOW_MS + 2_000, "", None, "host/7/ab", NOW_MS + 6_000, Live.STREAM | Live.MARKS,
        dict.fromkeys(DataType, 2),
    )  # fmt: skip
    user = User(4, "alice", False, 0, 0, "abc***")
    return replace(Seen(user, trace, [stored(3.0)] * 4, memo, None, "host", None), **changes)


def of(found: Seen) -> dict[str, Any]:
    told = report(found, Timing(DEFAULT_INTERVALS, 60.0))
    json.dumps(told)
    return told


def test_a_user_for_whom_all_is_well() -> None:
    told = of(seen())
    assert told["watched"] == ["balance", "positions", "pnl", "orders"]
    assert told["types"]["orders"] == {
        "web_workers": 2, "seq": 42, "age_s": 3.0, "state": "live", "reason": None, "next_fetch_in_s": 57.0,
        "last_error": None, "failures": 0, "retry_in_s": None,
    }  # fmt: skip
    assert told["types"]["balance"]["next_fetch_in_s"] == 7.0, "without mark prices it is polled"
    assert told["schedule"]["due_in_s"] == 2.0
    assert told["home"] == {
        "worker": "host/7/ab", "lease_left_s": 6.0, "ended_ago_s": None,
        "stream_live": True, "marks_live": True, "balance_live": False,
    }  # fmt: skip
    text = as_text(told)
    assert "user 4 alice: enabled, exchange key abc***" in text
    assert "live: stream, marks" in text


def test_a_failing_endpoint_is_named_with_what_comes_next() -> None:
    found = seen()
    row = found.memo.resources[Resource.ORDERS]
    row.code, row.failures, row.retry_ms = "exchange_timeout", 3, NOW_MS + 8_000
    found = replace(found, states=[*found.states[:3], stored(30.0, Freshness.DELAYED, "exchange_timeout")])
    told = of(found)["types"]["orders"]
    assert (told["last_error"], told["failures"], told["retry_in_s"]) == ("exchange_timeout", 3, 8.0)
    assert "exchange_timeout, 3 in a row, again in 8.0 s" in as_text(of(found))
    assert of(found)["types"]["balance"]["last_error"] is None


def test_a_stopped_user_is_said_first() -> None:
    found = seen()
    found.memo.stop = Stop("key_expired", 3, NOW_MS - 600_000)
    found = replace(found, states=[stored(600.0, Freshness.STOPPED, "key_expired")] * 4)
    assert as_text(of(found)).splitlines()[1] == (
        "STOPPED: key_expired since 10 min; nothing is asked until the key changes"
    )


def test_a_user_nobody_watches_and_redis_knows_nothing_of() -> None:
    nobody = UserTrace(NOW_MS, None, "", None, "", None, 0, dict.fromkeys(DataType, 0))
    told = of(seen(trace=nobody, states=[NOTHING_STORED] * 4, memo=Memo()))
    assert told["watched"] == []
    assert told["types"]["pnl"]["age_s"] is None
    assert told["types"]["pnl"]["next_fetch_in_s"] is None
    text = as_text(told)
    assert "nothing: no phone has subscribed" in text
    assert "not scheduled" in text
    assert "none: the user is polled" in text


@pytest.mark.parametrize(
    ("left_ms", "expected"), [(90_000, "PAUSED for 90.0 s: exchange_address_banned"), (-1, "may ask")]
)
def test_a_pause_of_the_address_is_told_while_it_lasts(left_ms: int, expected: str) -> None:
    pause = PauseTrace(NOW_MS + left_ms, "exchange_address_banned")
    assert f"address host: {expected}" in as_text(of(seen(pause=pause)))


def test_being_served_woken_crashed_and_the_state_of_the_key() -> None:
    found = seen(
        health=StoredHealth(
            3, "d", NOW_MS - 7_200_000, {"state": "warning", "days_left": 5, "problems": [{"code": "can_withdraw"}]}
        )
    )
    found.memo.crashes = 2
    trace = replace(found.trace, served_by="host/9/cd", woken_ms=NOW_MS - 400)
    text = as_text(of(replace(found, trace=trace)))
    assert "being served by host/9/cd, woken 0.4 s ago, its last 2 rounds crashed" in text
    assert "key: warning (can_withdraw), 5 days left, checked 2 h ago" in text


def test_users_whom_nobody_serves_any_more() -> None:
    """Every push worker was killed: leases that nobody ended are over."""
    found = seen()
    dead = replace(found.trace, served_by="host/9/cd", due_ms=NOW_MS - 25_000, home_ends_ms=NOW_MS - 30_000)
    told = of(replace(found, trace=dead))
    assert told["home"]["stream_live"] is False
    text = as_text(told)
    assert "host/9/cd died serving it; waiting for another worker since 25.0 s" in text
    assert "home: host/7/ab was, until 30.0 s ago: the user is polled" in text
    late = as_text(of(replace(found, trace=replace(found.trace, due_ms=NOW_MS - 300_000))))
    assert "overdue by 5 min" in late
