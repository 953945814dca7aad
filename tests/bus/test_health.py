"""What is known of keys in Redis: news are announced once, checks fall due once, each user is counted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pushserver.bus import keys, signals
from pushserver.bus.connection import connect
from pushserver.bus.health import HealthStore, nothing_known
from pushserver.bus.key_checks import KeyCheck, KeyChecks
from pushserver.bus.key_counts import CLASSES, KeyCounts
from pushserver.bus.signals import Signal, SignalKind
from pushserver.clock import SystemClock
from pushserver.errors import StoreUnavailable
from pushserver.feeds.key_health import DAY_S, AccountHealth, HealthState, health_of, refused
from pushserver.metrics_catalogue.catalogue import DAYS_LEFT
from pushserver.model import Secret
from tests.system.harness import wait_until

NOW_MS = 1_767_225_600_000
WELL = AccountHealth(HealthState.OK, read_only=True, ip_bound=True)
MIGHTY = health_of({"readOnly": 0, "permissions": {"Wallet": ["Withdraw"]}, "ips": ["*"]}, NOW_MS // 1000)


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    client = connect(Secret(redis_url))
    yield client
    client.close()


class Ear:
    def __init__(self, client: Any) -> None:
        self._heard = client.pubsub(ignore_subscribe_messages=True)
        self._heard.subscribe(keys.SIGNALS_CHANNEL)
        assert self._heard.get_message(timeout=1) is None

    def heard(self) -> list[Signal | None]:
        found = []
        while (message := self._heard.get_message(timeout=0.1)) is not None:
            found.append(signals.parse(message["data"]))
        return found


def test_what_is_recorded_is_read_as_the_event_and_shows_no_key(client: Any) -> None:
    store = HealthStore(client)
    assert store.record(4, 7, replace(MIGHTY, expires_s=NOW_MS // 1000 + DAY_S, days_left=1), NOW_MS)
    [stored, missing] = store.read([4, 5])
    assert missing is None and stored is not None and not stored.is_ok
    assert stored.payload == {
        "user_id": 4,
        "state": "critical",
        "problems": [
            {"code": problem.code, "message": problem.message, "until": None} for problem in MIGHTY.problems
        ],
        "expires_at": "2026-01-02T00:00:00Z",
        "days_left": 1,
        "read_only": False,
        "ip_bound": False,
        "checked_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert set(nothing_known(4)) == set(stored.payload)
    assert 0 < client.ttl(keys.health(4)) <= 7 * DAY_S


def test_only_news_are_announced(client: Any) -> None:
    ear, store = Ear(client), HealthStore(client)
    assert store.record(4, 7, MIGHTY, NOW_MS)
    assert not store.record(4, 7, MIGHTY, NOW_MS + 86_400_000)
    [stored] = store.read([4])
    assert stored is not None and stored.checked_ms == NOW_MS + 86_400_000
    assert store.record(4, 8, WELL, NOW_MS)
    assert not store.record(4, 8, replace(WELL, days_left=3), NOW_MS), "a day that passes is no news"
    store.forget(4)
    store.forget(4)
    assert ear.heard() == [Signal(SignalKind.HEALTH_CHANGED, 4)] * 3
    assert store.read([4]) == [None]


def test_a_late_answer_about_a_replaced_key_changes_nothing(client: Any) -> None:
    store = HealthStore(client)
    store.record(4, 8, WELL, NOW_MS)
    before = store.read([4])
    assert not store.record(4, 7, MIGHTY, NOW_MS)
    assert store.read([4]) == before
    assert KeyCounts(client).totals().can_withdraw == 0


def test_a_damaged_row_counts_as_missing_and_hides_no_other(client: Any) -> None:
    store = HealthStore(client)
    for user_id in (4, 5, 6, 7):
        store.record(user_id, 7, WELL, NOW_MS)
    client.hset(keys.health(4), "body", "no JSON")
    client.hset(keys.health(5), "checked", "9" * 30)
    client.hdel(keys.health(6), "digest")
    assert [stored is None for stored in store.read([4, 5, 6, 7])] == [True, True, True, False]


def test_each_key_has_one_place_and_one_checker(client: Any) -> None:
    checks = KeyChecks(client)
    mine, other, later = KeyCheck(4, 7), KeyCheck(4, 8), KeyCheck(5, 1)
    checks.add({mine: 0.0, other: 0.0, later: 500.0})
    checks.add({later: 0.0})
    assert set(KeyChecks(client).claim(10, 60.0)) == {mine, other}
    assert checks.claim(10, 60.0) == [], "held"
    checks.again(mine, 0.0)
    checks.remove(other)
    checks.again(other, 0.0)
    assert checks.claim(10, 60.0) == [mine]


def test_whoever_dies_with_a_check_loses_it(client: Any) -> None:
    checks = KeyChecks(client)
    checks.add({KeyCheck(4, 7): 0.0})
    assert checks.claim(1, 0.05) == [KeyCheck(4, 7)]
    wait_until(lambda: checks.claim(1, 60.0) == [KeyCheck(4, 7)], 5, "the end of the lease")


def test_users_are_counted_once_by_what_is_known_last(client: Any) -> None:
    counts, now_s = KeyCounts(client), SystemClock().wall_ms() // 1000
    ends = {
        1: -60, 2: DAY_S - 60, 3: DAY_S + 60, 4: 7 * DAY_S - 60, 5: 20 * DAY_S, 6: 80 * DAY_S, 7: 91 * DAY_S,
        8: 3_000 * DAY_S,
    }  # fmt: skip
    for _ in range(2):
        for user_id, left_s in ends.items():
            counts.count(user_id, replace(WELL, expires_s=now_s + left_s))
    counts.count(9, MIGHTY)
    counts.count(10, refused("key_expired", ""))
    counts.count(11, MIGHTY)
    counts.count(11, refused("key_invalid", ""))
    counts.count(12, MIGHTY)
    counts.forget(12)
    totals = KeyCounts(client).totals()
    assert dict(totals.by_days_left) == dict(zip(CLASSES, (2, 1, 2, 1, 1, 2, 1), strict=True))
    assert (totals.can_trade, totals.can_withdraw) == (1, 1)


def test_users_who_were_not_checked_for_a_week_leave_the_count(client: Any) -> None:
    counts = KeyCounts(client)
    counts.count(4, MIGHTY)
    counts.count(8, WELL)
    client.zadd(keys.health_index(0, "checked"), {"4": SystemClock().wall_ms() // 1000 - 8 * DAY_S})
    totals = counts.totals()
    assert (totals.by_days_left["never"], totals.can_trade, totals.can_withdraw) == (1, 0, 0)


def test_the_classes_are_the_labels_of_the_metric() -> None:
    assert CLASSES == DAYS_LEFT


def test_without_redis_every_question_says_so() -> None:
    client = connect(Secret("redis://127.0.0.1:1/0"))
    store, checks, counts = HealthStore(client), KeyChecks(client), KeyCounts(client)
    check = KeyCheck(4, 7)
    for question in (
        lambda: store.record(4, 7, WELL, NOW_MS), lambda: store.read([4]), lambda: store.forget(4),
        lambda: checks.add({check: 1.0}), lambda: checks.claim(1, 1.0), lambda: checks.again(check, 1.0),
        lambda: checks.remove(check), counts.totals, lambda: counts.forget(4),
    ):  # fmt: skip
        with pytest.raises(StoreUnavailable):
            question()
