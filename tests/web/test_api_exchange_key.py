"""Contract section 3: a user's own exchange key, and row C04."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pushserver.accounts.records import KeySummary
from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.signals import Signal, SignalKind
from pushserver.bus.states import States
from pushserver.errors import AddressBanned, ClockSkew, ExchangeError, ExchangeUnavailable, KeyRefused, RateLimited
from pushserver.events import encode_update
from pushserver.model import Credentials, DataType, Freshness, KeyFacts, Pnl, Secret
from pushserver.web.api.exchange_key import _forget_states
from tests.accounts.conftest import open_store
from tests.web.api_world import READ_ONLY, World, code, heard

KEY = {"api_key": "abcdefghijklmnop", "api_secret": "canary-secret"}
PATH = "/api/exchange-key"
PNL = Pnl(Decimal(3), Decimal(1), Decimal(2), Decimal(1))


@pytest.fixture
def world(redis_url: str, tmp_path: Path) -> Iterator[World]:
    world = World(redis_url, tmp_path)
    yield world
    world.redis.close()
    world.accounts.close()


def put(world: World, body: Any = KEY) -> Any:
    return world.client.put(PATH, json=body, headers=world.bearer())


def test_a_key_is_verified_stored_and_shown_masked(world: World) -> None:
    assert code(world.client.get(PATH, headers=world.bearer())) == "no_exchange_key"
    answer = put(world)
    assert answer.status_code == 200
    assert world.exchange.asked[0].api_secret == Secret("canary-secret")
    assert world.exchange.time_left_s == pytest.approx(8.0)
    stored = world.accounts.credentials(4)
    assert stored is not None and stored.api_secret == Secret("canary-secret")
    shown = world.client.get(PATH, headers=world.bearer())
    assert shown.get_json() == answer.get_json()
    body = shown.get_json()
    assert (body["api_key"], body["read_only"], body["verified"]) == ("abcd…mnop", True, True)
    assert (body["permissions"], body["warnings"]) == (["Wallet:AccountTransfer"], [])
    assert body["expires_at"].endswith("Z")
    assert "canary" not in shown.text and "abcdefghijklmnop" not in shown.text


def test_a_change_is_told_to_every_process(world: World) -> None:
    with heard(world) as found:
        put(world)
        world.client.delete(PATH, headers=world.bearer())
        world.client.delete(PATH, headers=world.bearer())
    changed, health = Signal(SignalKind.KEY_CHANGED, 4), Signal(SignalKind.HEALTH_CHANGED, 4)
    assert found == [changed, health] * 2, "the second deletion changed nothing"


def test_a_deleted_key_is_gone(world: World) -> None:
    put(world)
    answer = world.client.delete(PATH, headers=world.bearer())
    assert (answer.status_code, answer.data, answer.headers.get("Content-Type")) == (204, b"", None)
    assert world.client.get(PATH, headers=world.bearer()).status_code == 404
    assert world.client.delete(PATH, headers=world.bearer()).status_code == 204
    assert world.accounts.credentials(4) is None


def test_C05_the_old_accounts_states_are_forgotten_and_with_a_new_key_a_stop_is_over(world: World) -> None:
    states, update = States(world.redis, world.clock), encode_update(DataType.PNL, 4, PNL, 5, 5)
    channel = world.redis.pubsub(ignore_subscribe_messages=True)
    channel.ssubscribe(keys.update_channel(4, DataType.PNL))
    channel.get_sharded_message(timeout=1)
    for change in (put, lambda world: world.client.delete(PATH, headers=world.bearer())):
        put(world)
        states.commit(4, DataType.PNL, update, 5)
        states.set_status(4, DataType.PNL, Freshness.STOPPED, "key_invalid", "The key was refused.")
        change(world)
        assert states.read([(4, DataType.PNL)])[0].frame is None
    told = []
    while (message := channel.get_sharded_message(timeout=0.2)) is not None:
        told += [word for word in ("stopped", "live") if f'"state":"{word}"' in message["data"].decode()]
    assert [state for state, _ in groupby(told)] == ["live", "stopped", "live", "stopped"]
    channel.close()


def test_without_redis_a_key_is_replaced_all_the_same(world: World) -> None:
    dead = connect(Secret("redis://127.0.0.1:1/0"))
    services = SimpleNamespace(states=States(dead, world.clock))
    _forget_states(services, 4, replaced=True)  # type: ignore[arg-type]


def test_each_user_sees_the_own_key_only(world: World) -> None:
    world.accounts.add_user("bob", Secret("pw"), 5)
    put(world)
    bob = world.bearer(world.tokens.mint(5))
    assert world.client.get(PATH, headers=bob).status_code == 404
    assert world.client.get(f"{PATH}?user_id=4", headers=bob).status_code == 404
    world.client.delete(PATH, headers=bob, json={"user_id": 4})
    assert world.accounts.credentials(4) is not None


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (KeyRefused("API key is invalid", code="key_invalid"), 422, "key_invalid"),
        (KeyRefused("expired", code="key_expired"), 422, "key_expired"),
        (KeyRefused("this address is not on its list", code="key_ip_not_allowed"), 422, "key_ip_not_allowed"),
        (RateLimited("slow down", retry_after_s=7.2), 503, "exchange_rate_limited"),
        (AddressBanned("banned", retry_after_s=600), 503, "exchange_address_banned"),
        (ExchangeUnavailable("down"), 503, "exchange_unavailable"),
        (ClockSkew("skew"), 502, "exchange_clock_skew"),
        (ExchangeError("odd"), 502, "exchange_error"),
    ],
)
def test_C04_a_key_the_exchange_does_not_confirm_is_not_stored(
    world: World, error: ExchangeError, status: int, expected: str
) -> None:
    put(world)
    before = world.accounts.credentials(4)
    world.exchange.answer = error
    answer = put(world, {"api_key": "another-key", "api_secret": "s"})
    assert (answer.status_code, code(answer)) == (status, expected)
    assert answer.get_json()["error"]["message"] == error.message
    assert world.accounts.credentials(4) == before
    if error.retry_after_s:
        assert int(answer.headers["Retry-After"]) >= error.retry_after_s


@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        ({"ContractTrade": ["Order", "Position"]}, ["key_can_trade"]),
        ({"Wallet": ["AccountTransfer", "Withdraw"]}, ["key_can_trade", "key_can_withdraw"]),
        ({}, ["key_can_trade"]),
    ],
)
def test_C04_more_than_read_rights_is_accepted_with_a_visible_warning(
    world: World, permissions: Any, expected: list[str]
) -> None:
    world.exchange.answer = {"readOnly": 0, "permissions": permissions, "deadlineDay": 80}
    answer = put(world)
    assert answer.status_code == 200
    for body in (answer.get_json(), world.client.get(PATH, headers=world.bearer()).get_json()):
        assert [warning["code"] for warning in body["warnings"]] == expected
        assert body["read_only"] is False


def test_C04_a_key_that_ends_within_a_day_is_refused_and_soon_is_a_warning(world: World) -> None:
    for expiry, status, codes in [
        ({"expiredAt": "2026-01-01T12:00:00Z"}, 422, None),
        ({"expiredAt": "2025-01-01T00:00:00Z"}, 422, None),
        ({"deadlineDay": 0}, 422, None),
        ({"expiredAt": "2026-01-08T00:00:00Z"}, 200, ["key_expires_soon"]),
        ({"expiredAt": "2026-03-01T00:00:00Z", "deadlineDay": 1}, 200, []),
        ({"expiredAt": "1970-01-01T00:00:00Z", "deadlineDay": -2}, 200, []),
        ({}, 200, []),
    ]:
        world.exchange.answer = {"readOnly": 1, "permissions": {}, **expiry}
        answer = put(world)
        assert answer.status_code == status, expiry
        if codes is None:
            assert code(answer) == "key_expired"
        else:
            assert [warning["code"] for warning in answer.get_json()["warnings"]] == codes
            assert (answer.get_json()["expires_at"] is None) == ("2026" not in str(expiry))


@pytest.mark.parametrize(
    "changed",
    [
        {"readOnly": None},
        {"readOnly": "1"},
        {"readOnly": True},
        {"readOnly": 2},
        {"permissions": None},
        {"permissions": []},
        {"expiredAt": "soon"},
    ],
)
def test_C04_when_it_is_not_clear_what_a_key_may_do_it_is_not_stored(world: World, changed: Any) -> None:
    world.exchange.answer = {**READ_ONLY, **changed}
    answer = put(world)
    assert (answer.status_code, code(answer)) == (502, "exchange_answer_malformed")
    assert world.accounts.credentials(4) is None


def test_odd_permissions_are_cut_to_what_can_be_shown(world: World) -> None:
    groups: dict[str, Any] = {f"Group{number}": ["Right"] for number in range(500)}
    world.exchange.answer = {"readOnly": 1, "permissions": {"A": [1, None, "x\n", "y" * 999], "B": "no list", **groups}}
    permissions = put(world).get_json()["permissions"]
    assert len(permissions) == 64
    assert max(len(permission) for permission in permissions) == 64
    assert all(permission.isprintable() for permission in permissions)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"api_key": "k"},
        {"api_key": "k", "api_secret": None},
        {"api_key": 5, "api_secret": "s"},
        {"api_key": "k k", "api_secret": "s"},
        {"api_key": "k\r\nX-Evil: 1", "api_secret": "s"},
        {"api_key": "k" * 129, "api_secret": "s"},
        {"api_key": "é", "api_secret": "s"},
    ],
)
def test_what_is_no_key_is_400_and_the_exchange_is_not_asked(world: World, body: Any) -> None:
    answer = put(world, body)
    assert (answer.status_code, code(answer)) == (400, "invalid_request")
    assert world.exchange.asked == []


def test_trying_many_keys_is_429_before_the_exchange_bans_our_address(world: World) -> None:
    world.exchange.answer = KeyRefused("API key is invalid")
    statuses = [put(world).status_code for _ in range(20)]
    assert statuses[:5] == [422] * 5 and set(statuses[5:]) == {429}
    assert len(world.exchange.asked) == 5


def test_an_exchange_that_is_down_does_not_lock_the_user_out(world: World) -> None:
    world.exchange.answer = ExchangeUnavailable("down")
    assert {put(world).status_code for _ in range(20)} == {503}
    world.exchange.answer = READ_ONLY
    assert put(world).status_code == 200


def test_a_user_that_exists_only_elsewhere_has_no_place_for_a_key(world: World) -> None:
    headers = world.bearer(world.tokens.mint(77))
    answer = world.client.put(PATH, json=KEY, headers=headers)
    assert (answer.status_code, code(answer)) == (404, "unknown_user")


def test_I04_without_the_database_it_is_503(world: World) -> None:
    client = world.serve(accounts=open_store(Secret("sqlite:////no/such/place.db"), world.clock))
    for method, body in (("GET", None), ("PUT", KEY), ("DELETE", None)):
        answer = client.open(PATH, method=method, json=body, headers=world.bearer())
        assert (answer.status_code, code(answer)) == (503, "server_busy")


def stored_by_the_operator(world: World) -> KeySummary:
    return world.accounts.set_key(4, KEY["api_key"], Secret(KEY["api_secret"]))


def shown(world: World) -> Any:
    answer = world.client.get(PATH, headers=world.bearer())
    assert answer.status_code == 200
    return answer.get_json()


def test_a_key_stored_from_the_command_line_is_asked_about_once(world: World) -> None:
    version = stored_by_the_operator(world).version
    with heard(world) as found:
        body = shown(world)
        assert world.exchange.time_left_s == pytest.approx(5.0)
        assert world.exchange.asked == [Credentials(KEY["api_key"], Secret("canary-secret"), version)]
        assert (body["verified"], body["read_only"], body["warnings"]) == (True, True, [])
        assert body["permissions"] == ["Wallet:AccountTransfer"] and body["expires_at"].endswith("Z")
        assert shown(world) == body
    assert len(world.exchange.asked) == 1, "what it said is stored"
    assert SignalKind.KEY_CHANGED not in [signal.kind for signal in found], "it is the same key, nobody need forget it"
    summary = world.accounts.key_summary(4)
    assert summary is not None and summary.version == version


@pytest.mark.parametrize(
    "answer",
    [
        ExchangeUnavailable("down"),
        RateLimited("slow down", retry_after_s=7.2),
        KeyRefused("API key is invalid", code="key_invalid"),
        {"readOnly": "?"},
    ],
)
def test_a_key_the_exchange_says_nothing_about_is_shown_as_unverified(world: World, answer: Any) -> None:
    stored_by_the_operator(world)
    world.exchange.answer = answer
    body = shown(world)
    assert (body["api_key"], body["verified"], body["read_only"]) == ("abcd…mnop", False, None)
    assert (body["permissions"], body["expires_at"]) == ([], None)
    assert [warning["code"] for warning in body["warnings"]] == ["key_unverified"]
    world.exchange.answer = READ_ONLY
    assert shown(world)["verified"] is True, "the next look asks again"


def test_a_stored_key_that_ends_within_a_day_is_shown_with_its_end(world: World) -> None:
    stored_by_the_operator(world)
    world.exchange.answer = {**READ_ONLY, "expiredAt": "2026-01-01T12:00:00Z"}
    body = shown(world)
    assert (body["verified"], body["expires_at"]) == (True, "2026-01-01T12:00:00Z")
    assert [warning["code"] for warning in body["warnings"]] == ["key_expires_soon"]


def test_looking_at_a_bad_key_again_and_again_neither_asks_every_time_nor_hinders_a_new_one(world: World) -> None:
    stored_by_the_operator(world)
    world.exchange.answer = KeyRefused("API key is invalid")
    assert {shown(world)["verified"] for _ in range(20)} == {False}
    assert len(world.exchange.asked) == 5
    world.exchange.answer = READ_ONLY
    assert put(world).status_code == 200
    assert shown(world)["verified"] is True


def test_a_key_that_was_replaced_while_the_exchange_was_asked_keeps_its_own_facts(world: World) -> None:
    version = stored_by_the_operator(world).version
    newer = world.accounts.set_key(4, "another-key-of-alice", Secret("s"))
    facts = KeyFacts(read_only=True, permissions=("A:B",))
    assert world.accounts.set_key_facts(4, version, facts) == newer
    assert world.accounts.key_summary(4) == newer
    world.accounts.delete_key(4)
    assert world.accounts.set_key_facts(4, newer.version, facts) is None
