"""Contract setting CORS_ORIGINS: which pages of other origins may call the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.web.api_world import World

LISTED = "https://app.example"
LOGIN = "/api/auth/login"


@pytest.fixture
def world(redis_url: str, tmp_path: Path) -> Iterator[World]:
    world = World(redis_url, tmp_path)
    yield world
    world.redis.close()
    world.accounts.close()


@pytest.fixture
def client(world: World) -> FlaskClient:
    return world.serve(cors_origins=(LISTED, "http://b.example:8080"))


def allowed(answer: TestResponse) -> dict[str, str]:
    return {name: value for name, value in answer.headers if name.startswith("Access-Control-")}


def preflight(client: FlaskClient, path: str, origin: str = LISTED) -> TestResponse:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.open(path, method="OPTIONS", headers=headers)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", LOGIN, {"username": "alice", "password": "pw"}, 200),
        ("POST", LOGIN, {"username": "alice", "password": "wrong"}, 401),
        ("POST", LOGIN, {"username": 5}, 400),
        ("GET", "/api/exchange-key", None, 401),
        ("GET", LOGIN, None, 405),
        ("GET", "/api/nowhere", None, 404),
        ("POST", LOGIN, {"username": "a", "password": "p" * 70_000}, 413),
    ],
)
def test_a_listed_origin_may_read_every_answer(
    client: FlaskClient, method: str, path: str, body: object, status: int
) -> None:
    for origin in (LISTED, "http://b.example:8080"):
        answer = client.open(path, method=method, json=body, headers={"Origin": origin})
        assert answer.status_code == status
        assert allowed(answer)["Access-Control-Allow-Origin"] == origin
        assert allowed(answer)["Access-Control-Expose-Headers"] == "Retry-After"
        assert "Access-Control-Allow-Credentials" not in allowed(answer)
        assert "Origin" in answer.vary


@pytest.mark.parametrize("path", [LOGIN, "/api/exchange-key", "/api/nowhere"])
def test_a_browser_that_asks_ahead_is_answered_without_a_body(client: FlaskClient, path: str) -> None:
    answer = preflight(client, path)
    assert (answer.status_code, answer.data, answer.headers.get("Content-Type")) == (204, b"", None)
    assert allowed(answer)["Access-Control-Allow-Origin"] == LISTED
    assert allowed(answer)["Access-Control-Allow-Headers"] == "Authorization, Content-Type"
    assert allowed(answer)["Access-Control-Allow-Methods"] == "GET, POST, PUT, DELETE"


@pytest.mark.parametrize(
    "origin",
    ["https://app.example.evil", "http://app.example", "https://APP.example", "https://app.example/", "null", "*"],
)
def test_another_origin_is_allowed_nothing(client: FlaskClient, origin: str) -> None:
    for answer in (client.get("/api/exchange-key", headers={"Origin": origin}), preflight(client, LOGIN, origin)):
        assert allowed(answer) == {}
        assert "Origin" in answer.vary, "a cache must not show this answer to an origin that is listed"


def test_a_call_without_an_origin_is_answered_as_ever(client: FlaskClient) -> None:
    answer = client.post(LOGIN, json={"username": "alice", "password": "pw"})
    assert (answer.status_code, allowed(answer)) == (200, {})


def test_a_star_that_is_listed_allows_every_origin_by_name(world: World) -> None:
    client = world.serve(cors_origins=("*",))
    answer = client.get("/api/exchange-key", headers={"Origin": "https://any.example"})
    assert allowed(answer)["Access-Control-Allow-Origin"] == "https://any.example"


def test_without_the_setting_no_other_origin_is_allowed(world: World) -> None:
    for answer in (world.client.get("/api/exchange-key", headers={"Origin": LISTED}), preflight(world.client, LOGIN)):
        assert allowed(answer) == {}


def test_what_is_not_the_api_stays_closed(client: FlaskClient) -> None:
    for answer in (client.get("/broken", headers={"Origin": LISTED}), preflight(client, "/apiary")):
        assert allowed(answer) == {}
