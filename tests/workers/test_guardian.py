"""The guardian asks about each watched key once a day, with the patience of routine work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.health import HealthStore, StoredHealth
from pushserver.bus.key_checks import KeyChecks
from pushserver.bus.key_counts import KeyCounts
from pushserver.bus.memos import Memos
from pushserver.clock import ManualClock
from pushserver.errors import CredentialsUnreadable, ExchangeUnavailable, KeyRefused
from pushserver.model import Credentials, DataType, Secret
from pushserver.observers import KeyChecked, KeysCounted, KeysTooMighty, RecordingObserver
from pushserver.workers.asking import Silenced, Urgency
from pushserver.workers.guardian import AGAIN_S, FIRST_WITHIN_S, Guardian, Shelves
from pushserver.workers.memo import Memo, Stop

READ_ONLY = {"readOnly": 1, "permissions": {}, "ips": ["1.2.3.4"]}
MIGHTY = {"readOnly": 0, "permissions": {"Wallet": ["Withdraw"]}, "ips": ["*"]}
DAY_S = 86_400


class World:
    """One worker's guardian over a real Redis; users 1 and 2 have keys of version 7 and are watched."""

    def __init__(self, redis_url: str) -> None:
        self.redis = connect(Secret(redis_url))
        self.clock = ManualClock()
        self.observer = RecordingObserver()
        self.health = HealthStore(self.redis)
        self.memos = Memos(self.redis)
        self.keys: dict[int, Any] = {user: Credentials("k", Secret("s"), 7) for user in (1, 2)}
        self.watched_users = {1, 2}
        self.answer: Any = READ_ONLY
        self.payment: Any = None
        self.asked: list[tuple[str, int]] = []
        self.short = False
        self.guardian = self.new_guardian()

    def new_guardian(self) -> Guardian:
        shelves = Shelves(self.health, KeyChecks(self.redis), KeyCounts(self.redis), self.memos)
        return Guardian(
            lambda user_id: Desk(self, user_id), self, self, shelves, self.clock, self.observer, lambda: self.short
        )

    def versions(self) -> dict[int, int]:
        return {user: key.version for user, key in self.keys.items() if isinstance(key, Credentials)}

    def get(self, user_id: int) -> Credentials | None:
        key = self.keys.get(user_id)
        if isinstance(key, Exception):
            raise key
        return key

    def watched(self, user_ids: Sequence[int]) -> dict[int, frozenset[DataType]]:
        return {user: frozenset(DataType if user in self.watched_users else ()) for user in user_ids}

    def due_in_s(self, member: str) -> float | None:
        score = self.redis.zscore(keys.health_due(int(member.split(":")[0]) % 4), member)
        seconds, micros = self.redis.time()
        return None if score is None else score / 1000 - seconds - micros / 1e6

    def fall_due(self) -> None:
        for shard in range(4):
            for member in self.redis.zrange(keys.health_due(shard), 0, -1):
                self.redis.zadd(keys.health_due(shard), {member: 0})

    def look(self) -> None:
        """Place what is new, then check everything there is."""
        self.guardian.look()
        self.fall_due()
        self.guardian.look()

    def known(self, user_id: int) -> StoredHealth | None:
        return self.health.read([user_id])[0]

    def state(self, user_id: int) -> str | None:
        stored = self.known(user_id)
        return None if stored is None else stored.payload["state"]


class Desk:
    def __init__(self, world: World, user_id: int) -> None:
        self._world = world
        self._user_id = user_id

    def pay(self, count: int, urgency: Urgency) -> None:
        self._world.asked.append((f"{count} {urgency.name}", self._user_id))
        if self._world.payment is not None:
            raise self._world.payment

    def key_information(self, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        self._world.asked.append(("key", self._user_id))
        assert 0 < deadline_s - self._world.clock.monotonic_s() <= 10
        if isinstance(self._world.answer, Exception):
            raise self._world.answer
        return self._world.answer


@pytest.fixture
def world(redis_url: str) -> Iterator[World]:
    world = World(redis_url)
    yield world
    world.redis.close()


def test_new_keys_are_placed_within_minutes_each_at_a_time_of_its_own(world: World) -> None:
    world.guardian.look()
    first, second = world.due_in_s("1:7"), world.due_in_s("2:7")
    assert first is not None and second is not None and abs(first - second) > 30
    assert 0 < second < first <= FIRST_WITHIN_S
    assert world.asked == []


def test_a_key_is_paid_for_asked_about_once_and_then_left_alone_for_a_day(world: World) -> None:
    world.look()
    world.fall_due()
    world.guardian.look()
    world.new_guardian().look()
    assert sorted(world.asked) == [("1 ROUTINE", 1), ("1 ROUTINE", 2), ("key", 1), ("key", 2)]
    assert world.due_in_s("1:7") == pytest.approx(DAY_S, abs=20)
    assert (world.state(1), world.state(2)) == ("ok", "ok")
    world.clock.advance(DAY_S)
    world.fall_due()
    world.guardian.look()
    assert world.asked.count(("key", 1)) == 2


def test_a_replaced_key_is_checked_anew_and_the_old_one_forgotten(world: World) -> None:
    world.answer = MIGHTY
    world.look()
    assert world.state(1) == "critical"
    world.keys[1] = Credentials("n", Secret("s"), 8)
    world.answer = READ_ONLY
    world.look()
    stored = world.known(1)
    assert stored is not None and stored.is_ok and stored.key_version == 8
    assert world.due_in_s("1:7") is None and world.due_in_s("1:8") == pytest.approx(DAY_S, abs=20)


@pytest.mark.parametrize("key", [None, CredentialsUnreadable("damaged")])
def test_a_key_that_is_gone_is_not_asked_about(world: World, key: Any) -> None:
    world.guardian.look()
    world.keys[1] = key
    world.fall_due()
    world.guardian.look()
    assert ("key", 1) not in world.asked and world.due_in_s("1:7") is None


def test_nobodys_key_is_not_asked_about_until_somebody_watches_again(world: World) -> None:
    world.watched_users = {2}
    world.look()
    assert ("key", 1) not in world.asked and world.due_in_s("1:7") is None
    world.watched_users = {1, 2}
    world.look()
    assert ("key", 1) in world.asked


def test_a_key_that_the_rounds_know_to_be_refused_costs_no_request(world: World) -> None:
    memo = Memo(stop=Stop("key_expired", 7, 0))
    world.memos.write(1, memo.to_bytes())
    world.look()
    assert ("key", 1) not in world.asked and ("key", 2) in world.asked
    stored = world.known(1)
    assert stored is not None and stored.payload["state"] == "critical"
    assert [problem["code"] for problem in stored.payload["problems"]] == ["key_expired"]


def test_a_refusal_met_here_is_told(world: World) -> None:
    world.answer = KeyRefused("not known", code="key_invalid")
    world.look()
    stored = world.known(1)
    assert stored is not None and stored.payload["problems"][0]["code"] == "key_invalid"
    assert world.due_in_s("1:7") == pytest.approx(DAY_S, abs=20)


@pytest.mark.parametrize("answer", [ExchangeUnavailable("down"), {"readOnly": "yes"}])
def test_no_answer_is_no_judgement_and_is_asked_again_in_an_hour(world: World, answer: Any) -> None:
    world.answer = answer
    world.look()
    assert world.known(1) is None
    assert world.due_in_s("1:7") == pytest.approx(AGAIN_S, abs=20)
    assert world.observer.records.count(KeyChecked("failed")) == 2


def test_while_the_address_is_silenced_nothing_is_asked(world: World) -> None:
    world.payment = Silenced(600.0, 0, "exchange_address_banned")
    world.look()
    assert not [what for what, _ in world.asked if what == "key"]
    due_in_s = world.due_in_s("1:7")
    assert due_in_s is not None and 570 < due_in_s <= 600 + FIRST_WITHIN_S


def test_while_the_budget_is_short_no_key_is_checked(world: World) -> None:
    world.short = True
    world.look()
    assert world.asked == []
    world.short = False
    world.guardian.look()
    assert ("key", 1) in world.asked


def test_keys_are_placed_again_where_redis_lost_them(world: World) -> None:
    world.guardian.look()
    world.redis.flushall()
    world.guardian.look()
    assert world.due_in_s("1:7") is None
    world.clock.advance(601)
    world.guardian.look()
    assert world.due_in_s("1:7") is not None


def test_all_workers_show_the_same_count(world: World) -> None:
    world.answer = MIGHTY
    world.look()
    for _ in range(2):
        world.observer.records.clear()
        world.new_guardian().look()
        assert KeysCounted("never", 2) in world.observer.records
        assert KeysTooMighty("withdraw", 2) in world.observer.records
    world.observer.records.clear()
    world.guardian.look()
    assert world.observer.records == [], "it was counted a moment ago"
