"""A phone hears of its user's exchange key when something is wrong with it, and when that is over; else nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from pushserver.bus.health import StoredHealth, nothing_known
from pushserver.bus.signals import Signal, SignalKind
from pushserver.errors import StoreUnavailable
from pushserver.tokens import Claims
from pushserver.web import account_health as module
from pushserver.web.account_health import AccountHealthNews
from pushserver.web.phones import Phone


def health(state: str, digest: str = "") -> StoredHealth:
    return StoredHealth(7, digest or state, 0, {"user_id": 4, "state": state})


class Device(Phone):
    def emit(self, event: str, payload: object) -> None:
        self.connection.heard.append((event, payload))

    @property
    def states(self) -> list[str]:
        assert all(event == "account_health" for event, _ in self.connection.heard)
        return [payload["state"] for _, payload in self.connection.heard]


def device(user_id: int) -> Any:
    connection: Any = SimpleNamespace(closed=False, heard=[])
    return Device(f"{user_id}", connection, Claims(user_id, "t", 0, 4_000_000_000), 0.0, None)  # type: ignore[arg-type]


class World:
    def __init__(self, *users: int) -> None:
        self.stored: dict[int, StoredHealth | None] = {}
        self.phones = [device(user_id) for user_id in users]
        self.readings: list[list[int]] = []
        self.away = False
        self.waiting: list[Callable[[], object]] = []
        self.news = AccountHealthNews(self, self.by_user, lambda _, call: self.waiting.append(call))

    def by_user(self) -> dict[int, list[Any]]:
        users = {phone.user_id for phone in self.phones}
        return {user: [phone for phone in self.phones if phone.user_id == user] for user in users}

    def read(self, user_ids: Sequence[int]) -> list[StoredHealth | None]:
        self.readings.append(sorted(user_ids))
        if self.away:
            raise StoreUnavailable("away")
        return [self.stored.get(user_id) for user_id in user_ids]

    def pass_time(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()

    def changes(self, stored: StoredHealth | None, user_id: int = 4) -> None:
        self.stored[user_id] = stored
        self.news.on_signal(Signal(SignalKind.HEALTH_CHANGED, user_id))
        self.pass_time()


def test_while_all_is_well_nothing_is_sent() -> None:
    world = World(4)
    for stored in (None, health("ok"), health("ok", "another")):
        world.news.greet(world.phones[0])
        world.pass_time()
        world.changes(stored)
        world.news.reread()
        world.pass_time()
    assert world.phones[0].states == []


def test_a_phone_that_connects_is_told_what_is_wrong_once() -> None:
    world = World(4)
    world.stored[4] = health("warning")
    for _ in range(3):
        world.news.greet(world.phones[0])
        world.news.reread()
        world.pass_time()
    assert world.phones[0].states == ["warning"]


def test_all_phones_of_the_user_hear_of_a_change_and_of_its_end() -> None:
    world = World(4, 4, 5)
    world.changes(health("warning"))
    world.changes(health("critical"))
    world.changes(health("ok"))
    world.changes(health("ok", "another"))
    assert [phone.states for phone in world.phones] == [["warning", "critical", "ok"]] * 2 + [[]]


def test_a_deleted_key_takes_its_warnings_along_and_a_redis_without_memory_does_not() -> None:
    world = World(4)
    world.changes(health("critical"))
    world.stored[4] = None
    world.news.reread()
    world.pass_time()
    assert world.phones[0].states == ["critical"]
    world.changes(None)
    assert world.phones[0].connection.heard[-1] == ("account_health", nothing_known(4))


def test_a_crowd_is_answered_with_few_readings_and_strangers_with_none() -> None:
    world = World(*range(1, 1_200))
    for phone in world.phones:
        world.news.greet(phone)
    assert world.readings == []
    world.pass_time()
    assert [len(users) for users in world.readings] == [500, 500, 199]
    world.changes(health("critical"), user_id=5_000)
    world.news.on_signal(Signal(SignalKind.KEY_CHANGED, 4))
    assert len(world.readings) == 3 and world.waiting == []


def test_a_phone_that_left_is_told_nothing() -> None:
    world = World(4)
    world.phones[0].kicked = True
    world.changes(health("critical"))
    assert world.phones[0].states == []


def test_what_redis_could_not_say_is_told_when_it_is_back(monkeypatch: Any) -> None:
    world = World(4)
    monkeypatch.setattr(module.Retry, "ask", lambda retry: world.waiting.append(retry._attempt))
    world.away = True
    world.changes(health("critical"))
    world.pass_time()
    world.away = False
    world.news.greet(world.phones[0])
    world.pass_time()
    assert world.phones[0].states == ["critical"]
