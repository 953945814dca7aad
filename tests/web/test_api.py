"""Contract section 3: login, refresh, logout, and the shape of every error."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from pushserver.bus.access import AccessList
from pushserver.bus.connection import connect
from pushserver.bus.login_limits import ADDRESS, NAME
from pushserver.bus.signals import Signal, SignalKind
from pushserver.errors import OverCapacity
from pushserver.model import Secret, hashed_token_id
from pushserver.observers import LoginAttempted
from pushserver.token_keys import SharedSecrets
from pushserver.tokens import Tokens
from tests.accounts.conftest import open_store
from tests.web.api_world import NO_REDIS, SIGNING, World, code, heard


@pytest.fixture
def world(redis_url: str, tmp_path: Path) -> Iterator[World]:
    world = World(redis_url, tmp_path)
    yield world
    world.redis.close()
    world.accounts.close()


# --- login -----------------------------------------------------------------------------------------------------


def test_login_answers_with_a_token_as_the_contract_says(world: World) -> None:
    answer = world.login()
    body = answer.get_json()
    assert answer.status_code == 200
    assert {name: body[name] for name in body if name != "token"} == {
        "token_type": "Bearer", "expires_in": 3600, "user_id": 4,
    }  # fmt: skip
    assert world.tokens.verify(body["token"]).user_id == 4
    assert [record.result for record in world.observer.records if isinstance(record, LoginAttempted)] == ["ok"]


def test_A14_wrong_password_unknown_name_and_disabled_user_are_answered_alike(world: World) -> None:
    world.accounts.add_user("bob", Secret("pw"))
    world.accounts.disable(5)
    answers = [world.login("alice", "wrong"), world.login("nobody", "pw"), world.login("bob", "pw")]
    answers.append(world.login("' OR 1=1 --\0", "pw"))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.data for answer in answers}) == 1
    assert len({str(answer.headers) for answer in answers}) == 1
    assert code(answers[0]) == "invalid_credentials"


def test_A15_repeated_failures_are_429_also_for_the_right_password(world: World) -> None:
    statuses = [world.login(password="wrong").status_code for _ in range(NAME.free_failures + 5)]
    assert statuses[: NAME.free_failures] == [401] * NAME.free_failures
    assert set(statuses[NAME.free_failures :]) == {429}
    answer = world.login()
    assert (answer.status_code, code(answer)) == (429, "rate_limited")
    assert int(answer.headers["Retry-After"]) >= 1
    assert world.observer.records[-1].result == "rate_limited"  # type: ignore[attr-defined]


def test_A15_one_password_over_many_names_is_429_for_that_address_only(world: World) -> None:
    for number in range(ADDRESS.free_failures):
        assert world.login(f"user{number}", "pw").status_code == 401
    assert world.login().status_code == 429
    assert world.login(environ_base={"REMOTE_ADDR": "192.0.2.9"}).status_code == 200


def test_A15_right_logins_are_never_counted(world: World) -> None:
    statuses = [world.login().status_code for _ in range(ADDRESS.free_failures + 10)]
    assert set(statuses) == {200}


def test_A15_a_locked_name_does_not_touch_living_tokens(world: World) -> None:
    token = world.login().get_json()["token"]
    for _ in range(NAME.free_failures + 2):
        world.login(password="wrong")
    assert world.client.post("/api/auth/refresh", headers=world.bearer(token)).status_code == 200


def test_A16_a_full_hashing_queue_is_429_and_counts_against_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OverCapacity("too many password hashing calls are waiting")

    with monkeypatch.context() as patched:
        patched.setattr(world.accounts, "authenticate", full)
        for _ in range(NAME.free_failures + 5):
            answer = world.login()
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
    assert world.login().status_code == 200


def test_A16_a_burst_of_logins_is_served_or_told_to_come_back(world: World) -> None:
    for number in range(12):
        world.accounts.add_user(f"user{number}", Secret("pw"))
    jobs = [gevent.spawn(world.login, f"user{number}") for number in range(12)]
    gevent.joinall(jobs, raise_error=True)
    assert [job.value.status_code for job in jobs] == [200] * 12


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"null",
        b"5",
        b'"x"',
        b"{}",
        b'{"username":"alice"}',
        b'{"username":"alice","password":null}',
        b'{"username":"alice","password":5}',
        b'{"username":"alice","password":["pw"]}',
        b'{"username":{"$ne":1},"password":"pw"}',
        b'{"username":"","password":"pw"}',
        b'{"username":"alice","password":""}',
        b'{"username":"alice","password":"pw","password":"pw"}',
        b'{"username":"alice","username":"alice","password":"pw"}',
        b'{"username":"alice","password":"pw","x":{"a":1,"a":2}}',
        b'{"username":"alice","password":"pw","x":NaN}',
        b'{"username":"alice","password":"pw","x":Infinity}',
        b'{"username":"alice","password":"\\ud800"}',
        b'{"username":"alice","password":"\xff"}',
        b'\xef\xbb\xbf{"username":"alice","password":"pw"}',
        b'{"username":"alice","password":"' + b"x" * 1025 + b'"}',
        b'{"username":"alice","password":"pw"} trailing',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"username":"alice","password":"pw","x":' + b"9" * 5000 + b"}",
    ],
)
def test_A17_a_body_that_is_no_login_is_400_and_counts_against_nobody(world: World, body: bytes) -> None:
    for _ in range(NAME.free_failures + 2):
        answer = world.client.post("/api/auth/login", data=body, content_type="application/json")
        assert (answer.status_code, code(answer)) == (400, "invalid_request")
    assert world.login().status_code == 200


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_A17_another_content_type_is_400(world: World, content_type: str) -> None:
    body = json.dumps({"username": "alice", "password": "pw"})
    answer = world.client.post("/api/auth/login", data=body, content_type=content_type)
    assert (answer.status_code, code(answer)) == (400, "invalid_request")


def test_a_charset_beside_the_content_type_is_fine(world: World) -> None:
    body = json.dumps({"username": "alice", "password": "pw"})
    answer = world.client.post("/api/auth/login", data=body, content_type="application/json; charset=utf-8")
    assert answer.status_code == 200


def test_B08_a_compressed_body_is_refused(world: World) -> None:
    body = gzip.compress(json.dumps({"username": "alice", "password": "pw"}).encode())
    headers = {"Content-Encoding": "gzip"}
    answer = world.client.post("/api/auth/login", data=body, content_type="application/json", headers=headers)
    assert answer.status_code == 400


def test_a_body_of_more_than_64_kib_is_413(world: World) -> None:
    for path, headers in (("/api/auth/login", {}), ("/api/exchange-key", world.bearer())):
        method = "POST" if "login" in path else "PUT"
        answer = world.client.open(
            path, method=method, data=b" " * 65_537, content_type="application/json", headers=headers
        )
        assert (answer.status_code, code(answer)) == (413, "body_too_large")


def test_A17_the_same_characters_are_the_same_password(world: World) -> None:
    world.accounts.add_user("zoe", Secret("caf\u00e9"))
    assert world.login("zoe", "cafe\u0301").status_code == 200


def test_I04_login_is_503_while_the_database_is_away_and_counts_against_nobody(world: World) -> None:
    away = open_store(Secret("sqlite:////no/such/place.db"), world.clock)
    client = world.serve(accounts=away)
    for _ in range(NAME.free_failures + 2):
        answer = client.post("/api/auth/login", json={"username": "alice", "password": "pw"})
        assert (answer.status_code, code(answer)) == (503, "server_busy")
        assert "Retry-After" in answer.headers
    assert world.login().status_code == 200


def test_login_is_503_while_redis_is_away(world: World) -> None:
    client = world.serve(redis=connect(NO_REDIS))
    answer = client.post("/api/auth/login", json={"username": "alice", "password": "pw"})
    assert (answer.status_code, code(answer)) == (503, "server_busy")


def test_login_is_501_where_tokens_are_issued_elsewhere(world: World) -> None:
    client = world.serve(tokens=Tokens(SharedSecrets([SIGNING]), world.clock))
    answer = client.post("/api/auth/login", json={"username": "alice", "password": "pw"})
    assert (answer.status_code, code(answer)) == (501, "tokens_issued_elsewhere")


# --- refresh and logout ----------------------------------------------------------------------------------------


def test_a_refreshed_token_lives_longer_than_the_old_one(world: World) -> None:
    first = world.login().get_json()["token"]
    world.clock.advance(100)
    answer = world.client.post("/api/auth/refresh", headers=world.bearer(first))
    second = answer.get_json()
    assert answer.status_code == 200
    assert set(second) == {"token", "token_type", "expires_in", "user_id"}
    assert world.tokens.verify(second["token"]).expires_at_s == world.tokens.verify(first).expires_at_s + 100


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "token_missing"),
        ({"Authorization": "Basic YTpi"}, "token_missing"),
        ({"Authorization": "Bearer"}, "token_missing"),
        ({"Authorization": "Bearer x.y.z"}, "token_invalid"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/auth/refresh"),
        ("POST", "/api/auth/logout"),
        ("GET", "/api/exchange-key"),
        ("PUT", "/api/exchange-key"),
        ("DELETE", "/api/exchange-key"),
    ],
)
def test_without_a_token_that_counts_nothing_is_answered(
    world: World, method: str, path: str, headers: dict[str, str], expected: str
) -> None:
    answer = world.client.open(path, method=method, headers=headers)
    assert (answer.status_code, code(answer)) == (401, expected)
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_A18_an_expired_token_is_not_refreshed(world: World) -> None:
    token = world.login().get_json()["token"]
    world.clock.advance(3611)
    answer = world.client.post("/api/auth/refresh", headers=world.bearer(token))
    assert (answer.status_code, code(answer)) == (401, "token_expired")


def test_A18_after_logout_nothing_descended_from_the_login_works(world: World) -> None:
    first = world.login().get_json()["token"]
    second = world.client.post("/api/auth/refresh", headers=world.bearer(first)).get_json()["token"]
    third = world.client.post("/api/auth/refresh", headers=world.bearer(second)).get_json()["token"]
    other = world.login().get_json()["token"]
    assert world.client.post("/api/auth/logout", headers=world.bearer(second)).status_code == 204
    for token in (first, second, third):
        answer = world.client.post("/api/auth/refresh", headers=world.bearer(token))
        assert (answer.status_code, code(answer)) == (401, "token_revoked")
    assert world.client.post("/api/auth/refresh", headers=world.bearer(other)).status_code == 200


def test_A18_a_refresh_that_raced_the_logout_wins_nothing(world: World) -> None:
    first = world.login().get_json()["token"]
    claims = world.tokens.verify(first)
    world.client.post("/api/auth/logout", headers=world.bearer(first))
    # The refresh had been judged before the logout, and mints after it.
    late = world.tokens.mint(4, family_id=claims.family_id)
    answer = world.client.post("/api/auth/refresh", headers=world.bearer(late))
    assert code(answer) == "token_revoked"


def test_A09_logout_is_told_to_every_process_and_kept_in_the_database(world: World) -> None:
    token = world.login().get_json()["token"]
    family = world.tokens.verify(token).family_id
    with heard(world) as found:
        world.client.post("/api/auth/logout", headers=world.bearer(token))
    assert found == [Signal(SignalKind.TOKEN_REVOKED, 4, hashed_token_id(family or ""))]
    assert world.accounts.access_rules().revoked_tokens == {hashed_token_id(family or "")}


def test_a_logout_needs_only_one_of_its_two_places(world: World) -> None:
    away = open_store(Secret("sqlite:////no/such/place.db"), world.clock)
    client = world.serve(accounts=away)
    token = world.login().get_json()["token"]
    assert client.post("/api/auth/logout", headers=world.bearer(token)).status_code == 204
    assert code(world.client.post("/api/auth/refresh", headers=world.bearer(token))) == "token_revoked"


@pytest.mark.parametrize("change", ["disable", "revoke_tokens"])
def test_A08_a_token_that_was_shut_out_is_401(world: World, change: str) -> None:
    token = world.login().get_json()["token"]
    access = AccessList(world.redis, world.clock)
    if change == "disable":
        access.disable(4)
    else:
        access.revoke_tokens(4, world.accounts.revoke_tokens(4))
    answer = world.client.post("/api/auth/refresh", headers=world.bearer(token))
    assert (answer.status_code, code(answer)) == (
        401,
        "user_disabled" if change == "disable" else "token_revoked",
    )


def test_a_login_in_the_very_second_of_a_revoke_all_counts(world: World) -> None:
    AccessList(world.redis, world.clock).revoke_tokens(4, world.accounts.revoke_tokens(4))
    token = world.login().get_json()["token"]
    assert world.client.post("/api/auth/refresh", headers=world.bearer(token)).status_code == 200


def test_A08_what_cannot_be_checked_is_503(world: World) -> None:
    client = world.serve(redis=connect(NO_REDIS))
    answer = client.get("/api/exchange-key", headers=world.bearer())
    assert (answer.status_code, code(answer)) == (503, "server_busy")


# --- everything else -------------------------------------------------------------------------------------------


def test_every_status_has_the_same_shape_of_body(world: World) -> None:
    for method, path, status, expected in (
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/api/auth/login", 405, "method_not_allowed"),
        ("DELETE", "/api/auth/refresh", 405, "method_not_allowed"),
        ("GET", "/broken", 500, "internal_error"),
    ):
        answer = world.client.open(path, method=method)
        assert (answer.status_code, code(answer)) == (status, expected)
        assert "canary" not in answer.text
    assert "POST" in world.client.get("/api/auth/login").headers["Allow"]


def test_F01_no_password_or_token_is_in_a_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    token = world.login(password="pw").get_json()["token"]
    world.login(password="canary-password")
    world.client.put(
        "/api/exchange-key", headers=world.bearer(token), json={"api_key": "k", "api_secret": "canary-secret"}
    )
    away = open_store(Secret("sqlite:////no/such/place.db"), world.clock)
    world.serve(accounts=away).post("/api/auth/login", json={"username": "alice", "password": "canary-password"})
    assert "canary" not in caplog.text and token not in caplog.text
