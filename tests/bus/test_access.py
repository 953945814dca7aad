"""Row A08: what a token's own words cannot say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pushserver.bus import keys
from pushserver.bus.access import AccessList
from pushserver.bus.connection import connect
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable, TokenRefused
from pushserver.model import AccessRules, Secret, hashed_token_id
from pushserver.tokens import Claims

CLAIMS = Claims(user_id=4, token_id="two", issued_at_s=1000, expires_at_s=2000, family_id="one")


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    client = connect(Secret(redis_url))
    yield client
    client.close()


@pytest.fixture
def access(client: Any) -> AccessList:
    return AccessList(client, ManualClock())


def code(access: AccessList, claims: Claims = CLAIMS) -> str | None:
    try:
        access.check(claims)
    except TokenRefused as refusal:
        return refusal.code
    return None


def test_A08_a_token_nobody_revoked_counts(access: AccessList) -> None:
    assert code(access) is None


def test_A08_a_disabled_user_is_refused_until_enabled(access: AccessList) -> None:
    access.disable(4)
    access.disable(5)
    assert code(access) == "user_disabled"
    access.enable(4)
    assert code(access) is None


@pytest.mark.parametrize("token_id", ["one", "two"])
def test_A08_a_revoked_token_or_family_is_refused(access: AccessList, token_id: str) -> None:
    access.revoke_token(hashed_token_id(token_id), 2**40)
    assert code(access) == "token_revoked"
    assert code(access, Claims(4, "three", 1000, 2000, "three")) is None


def test_A08_tokens_issued_before_revoke_all_are_refused(access: AccessList) -> None:
    access.revoke_tokens(4, 1001)
    assert code(access) == "token_revoked"
    assert code(access, Claims(4, "x", 1001, 2000)) is None
    assert code(access, Claims(5, "x", 0, 2000)) is None


def test_A08_a_token_that_does_not_say_when_it_was_issued_falls_with_the_others(access: AccessList) -> None:
    access.revoke_tokens(4, 1001)
    assert code(access, Claims(4, "x", 0, 2000)) == "token_revoked"


def test_A08_without_redis_nobody_new_is_let_in() -> None:
    access = AccessList(connect(Secret("redis://127.0.0.1:1/0")), ManualClock())
    assert code(access) == "server_busy"
    access.refresh(AccessRules(disabled_users=frozenset({4})))
    assert code(access) == "user_disabled", "what is known is said"


def test_A08_a_value_nobody_of_ours_wrote_lets_nobody_in(access: AccessList, client: Any) -> None:
    client.hset(keys.access(4), "tokens_not_before", "soon")
    assert code(access) == "server_busy"
    client.set(keys.access(5), "no hash")
    assert code(access, Claims(5, "x", 1000, 2000)) == "server_busy"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (AccessRules(disabled_users=frozenset({4})), "user_disabled"),
        (AccessRules(tokens_not_before_s={4: 1001}), "token_revoked"),
        (AccessRules(revoked_tokens=frozenset({hashed_token_id("one")})), "token_revoked"),
        (AccessRules(revoked_tokens=frozenset({hashed_token_id("two")})), "token_revoked"),
        (AccessRules(frozenset({5}), {4: 1000, 5: 9999}, frozenset({hashed_token_id("x")})), None),
    ],
)
def test_A08_an_emptied_redis_reopens_nothing(
    access: AccessList, client: Any, rules: AccessRules, expected: str | None
) -> None:
    access.refresh(rules)
    client.flushall()
    assert code(access) == expected
    try:
        access.check_memory(CLAIMS)
        remembered = None
    except TokenRefused as refusal:
        remembered = refusal.code
    assert remembered == expected
    access.refresh(AccessRules())
    assert code(access) is None, "the newest rules replace the older ones"


def test_a_revocation_ends_with_the_token_and_shows_no_id(client: Any) -> None:
    clock = ManualClock()
    access = AccessList(client, clock)
    access.revoke_token(hashed_token_id("canary"), clock.wall_ms() // 1000 + 60)
    [key] = client.keys("*")
    assert 50 < client.ttl(key) <= 60
    assert b"canary" not in key


def test_a_check_is_one_round_trip(access: AccessList, client: Any) -> None:
    before = client.info("commandstats")
    access.check(CLAIMS)
    after = client.info("commandstats")
    calls = {
        name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"]
        for name in after
        if after[name]["calls"] != before.get(name, {"calls": 0})["calls"] and name != "cmdstat_info"
    }
    assert calls == {"cmdstat_hmget": 1, "cmdstat_exists": 2}


def test_writing_without_redis_says_so() -> None:
    access = AccessList(connect(Secret("redis://127.0.0.1:1/0")), ManualClock())
    for write in (
        lambda: access.disable(4),
        lambda: access.enable(4),
        lambda: access.revoke_tokens(4, 5),
        lambda: access.revoke_token("aa", 5),
    ):
        with pytest.raises(StoreUnavailable):
            write()
