"""Whose sockets are closed when access is withdrawn: at once by signal, and without one by looking again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gevent
import pytest

from pushserver.bus.signals import Signal, SignalKind
from pushserver.errors import OverCapacity, StoreUnavailable, TokenRefused
from pushserver.model import AccessRules
from pushserver.tokens import Claims
from pushserver.web import kicks as kicks_module
from pushserver.web.kicks import RECHECK_EVERY_S, Kicks
from pushserver.web.phones import Phone
from tests.system.harness import wait_until


def phone_of(user_id: int, token_id: str) -> Any:
    return Phone(f"{user_id}/{token_id}", None, Claims(user_id, token_id, 0, 4_000_000_000), 0.0, None)  # type: ignore[arg-type]


class FakeSockets:
    def __init__(self, *phones: Any) -> None:
        self.by_user: dict[int, set[Any]] = {}
        for phone in phones:
            self.by_user.setdefault(phone.user_id, set()).add(phone)
        self.kicked: list[tuple[str, str]] = []

    def kick(self, phone: Any, code: str) -> None:
        self.kicked.append((phone.sid, code))
        # As the real one: whoever is kicked leaves the table while it is gone through.
        self.by_user[phone.user_id].discard(phone)
        if not self.by_user[phone.user_id]:
            del self.by_user[phone.user_id]


class FakeAccess:
    """Refuses users that the rules disable."""

    def __init__(self) -> None:
        self.rules = AccessRules()

    def refresh(self, rules: AccessRules) -> None:
        self.rules = rules

    def check_memory(self, claims: Claims) -> None:
        if claims.user_id in self.rules.disabled_users:
            raise TokenRefused(code="user_disabled")
        if not claims.token_hashes().isdisjoint(self.rules.revoked_tokens):
            raise TokenRefused(code="token_revoked")


def disabling(*user_ids: int) -> AccessRules:
    return AccessRules(disabled_users=frozenset(user_ids))


@pytest.fixture
def sockets() -> FakeSockets:
    return FakeSockets(phone_of(4, "a"), phone_of(4, "b"), phone_of(5, "c"))


def kicks_over(sockets: FakeSockets, read_rules: Any = AccessRules) -> Kicks:
    return Kicks(sockets, FakeAccess(), read_rules)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "code"), [(SignalKind.USER_DISABLED, "user_disabled"), (SignalKind.TOKENS_REVOKED, "token_revoked")]
)
def test_A09_a_signal_about_a_user_closes_all_sockets_of_that_user_alone(
    sockets: FakeSockets, kind: SignalKind, code: str
) -> None:
    kicks_over(sockets).on_signal(Signal(kind, 4))
    assert sorted(sockets.kicked) == [("4/a", code), ("4/b", code)]


def test_A09_a_signal_about_one_token_closes_the_sockets_of_that_token_alone(sockets: FakeSockets) -> None:
    (token_hash,) = Claims(4, "b", 0, 4_000_000_000).token_hashes()
    kicks_over(sockets).on_signal(Signal(SignalKind.TOKEN_REVOKED, 4, token_hash))
    assert sockets.kicked == [("4/b", "token_revoked")]


def test_a_signal_about_what_concerns_no_socket_here_closes_nothing(sockets: FakeSockets) -> None:
    kicks = kicks_over(sockets)
    kicks.on_signal(Signal(SignalKind.USER_DISABLED, 6))
    kicks.on_signal(Signal(SignalKind.TOKEN_REVOKED, 4, "of another token"))
    kicks.on_signal(Signal(SignalKind.KEY_CHANGED, 4))
    kicks.on_signal(Signal(SignalKind.USER_ENABLED, 4))
    assert not sockets.kicked


def test_A09_without_a_signal_the_rules_of_the_database_close_the_sockets(sockets: FakeSockets) -> None:
    rules = [disabling(), disabling(4)]
    kicks = kicks_over(sockets, lambda: rules.pop(0))
    kicks.recheck()
    assert not sockets.kicked
    kicks.recheck()
    assert sorted(sockets.kicked) == [("4/a", "user_disabled"), ("4/b", "user_disabled")]


def test_A09_a_revoked_token_is_found_by_looking(sockets: FakeSockets) -> None:
    revoked = AccessRules(revoked_tokens=Claims(5, "c", 0, 4_000_000_000).token_hashes())
    kicks_over(sockets, lambda: revoked).recheck()
    assert sockets.kicked == [("5/c", "token_revoked")]


@pytest.mark.parametrize("error", [StoreUnavailable("the database is away"), OverCapacity("no thread is free")])
def test_without_a_database_nobody_is_closed_and_the_last_rules_stay(
    sockets: FakeSockets, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> AccessRules:
        raise error

    kicks = kicks_over(sockets, fail)
    kicks._access.refresh(disabling(9))
    kicks.recheck()
    assert not sockets.kicked
    assert kicks._access.rules == disabling(9)  # type: ignore[attr-defined]
    assert "the last ones stay" in caplog.text


def test_A09_the_rules_are_looked_at_again_well_within_30_seconds_even_after_a_look_that_failed(
    sockets: FakeSockets, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert RECHECK_EVERY_S <= 20
    slept: list[float] = []
    looks = 0

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise gevent.GreenletExit

    def read_rules() -> AccessRules:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise RuntimeError("unforeseen")
        return disabling(4)

    monkeypatch.setattr(kicks_module, "gevent", SimpleNamespace(sleep=sleep))
    greenlet = gevent.Greenlet(kicks_over(sockets, read_rules)._run, None)
    greenlet.start()
    greenlet.join(5)
    assert slept == [RECHECK_EVERY_S] * 3 and looks == 3
    assert len(sockets.kicked) == 2
    assert "the check of access rules failed" in caplog.text


def test_the_first_look_waits_for_the_database_but_not_long(
    sockets: FakeSockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, never = gevent.event.Event(), gevent.event.Event()
    order: list[str] = []

    def upgrade() -> None:
        ready.wait()
        order.append("upgraded")

    def read_rules() -> AccessRules:
        order.append("looked")
        return AccessRules()

    monkeypatch.setattr(kicks_module, "FIRST_LOOK_WITHIN_S", 5)
    kicks_over(sockets, read_rules).start(after=gevent.spawn(upgrade))
    gevent.sleep(0.05)
    assert order == []
    ready.set()
    wait_until(lambda: gevent.sleep(0.001) or "looked" in order, 5, "the first look")
    assert order == ["upgraded", "looked"]

    order.clear()
    monkeypatch.setattr(kicks_module, "FIRST_LOOK_WITHIN_S", 0.05)
    kicks_over(sockets, read_rules).start(after=gevent.spawn(never.wait))
    wait_until(lambda: gevent.sleep(0.001) or order, 5, "the first look without a database")
