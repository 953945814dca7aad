"""Every process meets a database without a schema at once, and none of them takes that for an outage."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from tests.system.harness import Stack, wait_until

pytestmark = pytest.mark.system


@pytest.fixture
def stack(tmp_path) -> Iterator[Stack]:
    stack = Stack(tmp_path, users=0, web_workers=2, push_workers=2).start()
    yield stack
    stack.stop()


def login(stack: Stack) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", stack.web_port, timeout=5)
    body = json.dumps({"username": "nobody", "password": "password"})
    connection.request("POST", "/api/auth/login", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())["error"]["code"]


def test_a_login_at_an_empty_database_is_wrong_and_not_unavailable(stack: Stack) -> None:
    wait_until(lambda: stack.logs().count("started") >= 4, what=stack.logs())
    wait_until(lambda: login(stack)[0] != 503, 5)
    assert {login(stack) for _ in range(4)} == {(401, "invalid_credentials")}
    lines = [line for process in stack.processes for line in process.log().splitlines()]
    assert not [line for line in lines if "database" in line or "access rules" in line or "alembic" in line]
