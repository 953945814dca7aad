"""Every way to connect, and every way to be refused, with the official client and with python-socketio."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import socketio
import websocket

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.model import DataType, Secret
from tests.system.harness import Stack, wait_until
from tests.system.phones import NodePhone, PythonPhone
from tests.system.raw_client import RawClient

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("connecting"), users=1, push_workers=0).start()
    yield stack
    stack.stop()


@pytest.mark.parametrize("kind", [NodePhone, PythonPhone])
@pytest.mark.parametrize("carrier", ["payload", "nested", "header", "url"])
def test_every_carrier_connects_and_gets_connected_after_the_connect_packet(stack, kind, carrier):
    phone = kind(stack.url, stack.token(4), carrier)
    connected = phone.wait_for("connected")
    assert connected["user_id"] == 4
    assert connected["types"] == ["balance", "positions", "pnl", "orders"]
    assert connected["subscribed"] == []
    assert isinstance(connected["message"], str)
    assert connected["token_expires_at"].endswith("Z")
    assert [told.kind for told in phone.told][:2] == ["connect", "event"]
    phone.close()


def test_A07_the_first_valid_token_wins_in_the_order_payload_header_url(stack):
    header = [f"Authorization: Bearer {stack.token(5)}"]
    client = RawClient(stack.url, query=f"&token={stack.token(6)}", header=header)
    client.send("40" + json.dumps({"token": stack.token(4)}))
    client.packet()
    assert client.event("connected")["user_id"] == 4
    client = RawClient(stack.url, query=f"&token={stack.token(6)}", header=header)
    client.send("40" + json.dumps({"token": "broken"}))
    client.packet()
    assert client.event("connected")["user_id"] == 5
    client = RawClient(stack.url, query=f"&token={stack.token(6)}", header=["Authorization: Bearer broken"])
    client.send("40" + json.dumps({"token": ["broken"]}))
    client.packet()
    assert client.event("connected")["user_id"] == 6


def refusal_of(client: RawClient, auth: object | None) -> dict:
    answer = client.connect(auth)
    assert answer.startswith("44"), answer
    return json.loads(answer[2:])


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        (None, "token_missing"),
        ({}, "token_missing"),
        ([], "token_missing"),
        ({"token": ""}, "token_invalid"),
        ({"token": None}, "token_invalid"),
        ({"token": 5}, "token_invalid"),
        ({"token": ["a"]}, "token_invalid"),
        ({"token": {"a": 1}}, "token_invalid"),
        ({"token": "a.b"}, "token_invalid"),
        ({"token": "a.b.c.d.e"}, "token_invalid"),
        ({"token": "é" * 20}, "token_invalid"),
        ({"token": "x" * 9_000}, "token_invalid"),
    ],
)
def test_A06_E06_a_refused_client_hears_why_and_its_transport_is_closed_within_a_second(stack, auth, code):
    client = RawClient(stack.url)
    refusal = refusal_of(client, auth)
    assert refusal["message"] == code
    assert refusal["data"]["code"] == code
    assert refusal["data"]["message"]
    assert client.closed_within(1.0)


def test_A03_an_expired_token_is_refused_as_expired(stack):
    client = RawClient(stack.url)
    assert refusal_of(client, {"token": stack.token(4, ttl_s=60, issued_ago_s=120)})["message"] == "token_expired"
    assert client.closed_within(1.0)


@pytest.mark.parametrize("kind", [NodePhone, PythonPhone])
def test_a_refusal_reaches_the_client_as_connect_error(stack, kind):
    phone = kind(stack.url, "broken")
    phone.wait_kind("connect_error")
    assert phone.count("connect") == 0
    phone.close()


def test_the_javascript_client_sees_code_and_data_of_a_refusal(stack):
    phone = NodePhone(stack.url, "broken")
    told = phone.wait_kind("connect_error")
    assert told.name == "token_invalid"
    assert told.payload["code"] == "token_invalid"
    phone.close()


def test_A08_a_disabled_user_and_a_revoked_token_are_refused(stack):
    token = stack.token(1)
    phone = PythonPhone(stack.url, token)
    phone.wait_for("connected")
    stack.command("users", "revoke-tokens", "user1")
    assert phone.wait_for("error")["code"] == "token_revoked"
    phone.wait_kind("disconnect", timeout_s=5)
    assert refusal_of(RawClient(stack.url), {"token": token})["message"] == "token_revoked"
    phone.close()
    wait_until(lambda: RawClient(stack.url).connect({"token": stack.token(1)}).startswith("40"), 10)
    stack.command("users", "disable", "user1")
    assert refusal_of(RawClient(stack.url), {"token": stack.token(1)})["message"] == "user_disabled"
    stack.command("users", "enable", "user1")


def test_C07_E06_a_removed_users_sockets_are_closed_and_nothing_is_kept(stack):
    stack.command("users", "add", "leaver", "--user-id", "88", "--password-stdin", given="password\n")
    redis = connect(Secret(stack.redis_url))
    redis.hset(keys.state(88, DataType.BALANCE), "seq", 1)
    clients = [RawClient(stack.url) for _ in range(4)]
    for client in clients:
        assert client.connect({"token": stack.token(88)}).startswith("40")
    stack.command("users", "remove", "leaver")
    for client in clients:
        assert client.event("error", 2)["code"] == "user_disabled"
        assert client.closed_within(1.0)
    assert redis.keys("push:{88}:*") == [keys.access(88).encode()]
    assert refusal_of(RawClient(stack.url), {"token": stack.token(88)})["message"] == "user_disabled"
    redis.close()


def test_A10_a_token_that_expires_is_announced_and_then_closes_the_connection(stack):
    client = RawClient(stack.url)
    client.connect({"token": stack.token(4, ttl_s=3)})
    expiring = client.event("token_expiring", 3)
    assert 0 < expiring["expires_in"] <= 3
    assert client.event("error", 15)["code"] == "token_expired"
    assert client.closed_within(1.0)


def test_authenticate_replaces_the_token_of_a_living_connection(stack):
    client = RawClient(stack.url)
    client.connect({"token": stack.token(4, ttl_s=3)})
    answer = client.call("authenticate", {"token": stack.token(4, ttl_s=3600)})
    assert client.event("connected")["token_expires_at"] == answer["token_expires_at"]
    with pytest.raises(websocket.WebSocketTimeoutException):
        client.event("error", 5)
    assert client.call("whoami")["user_id"] == 4


def test_A11_another_users_or_a_broken_token_changes_nothing(stack):
    client = RawClient(stack.url)
    client.connect({"token": stack.token(4)})
    before = client.call("whoami")["token_expires_at"]
    client.call("authenticate", {"token": stack.token(5, ttl_s=60)})
    assert client.event("error")["code"] == "token_mismatch"
    client.call("authenticate", {"token": "broken"})
    assert client.event("error")["code"] == "token_invalid"
    after = client.call("whoami")
    assert (after["user_id"], after["token_expires_at"]) == (4, before)


def test_another_emitter_on_the_shared_queue_reaches_a_room_and_no_other(stack):
    phone = NodePhone(stack.url, stack.token(4))
    other = NodePhone(stack.url, stack.token(5))
    for each in (phone, other):
        each.wait_for("connected")
        each.call("subscribe_trading", {"types": ["balance"]})
    emitter = socketio.RedisManager(stack.redis_url, channel="pushserver", write_only=True)
    emitter.emit("balance_update", {"hello": 4}, room="balance_4")
    assert phone.wait_for("balance_update") == {"hello": 4}
    emitter.emit("balance_update", {"hello": "all"})
    emitter.emit("balance_update", {"hello": 5}, room="balance_5")
    assert other.wait_for("balance_update") == {"hello": 5}
    assert phone.updates("balance") == [{"hello": 4}]
    phone.close()
    other.close()


def test_B11_no_token_appears_in_any_log(stack):
    token = stack.token(4)
    NodePhone(stack.url, token, "url").close()
    client = RawClient(stack.url, query=f"&token={token}")
    client.connect()
    client.close()
    connection = http.client.HTTPConnection("127.0.0.1", stack.web_port, timeout=5)
    connection.request("GET", f"/nothing?token={token}")
    assert connection.getresponse().status == 404
    logs = "".join(process.log() for process in stack.processes)
    assert token not in logs
    assert token.rsplit(".", 1)[1] not in logs


UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_the_event_loop_watches_no_descriptor_that_was_closed(stack):
    # One that stays makes the loop build its whole set anew, with thousands of phones in it.
    clients = [socket.create_connection(("127.0.0.1", stack.web_port)) for _ in range(6)]
    time.sleep(0.2)  # so that the loop waits for each of them
    for client in clients:
        client.sendall(UPGRADE)
    for client in clients:
        assert b" 101 " in client.recv(4096)
    for pid in stack.web.children():
        process = Path(f"/proc/{pid}")
        descriptors = {int(each.name): str(each.readlink()) for each in (process / "fd").iterdir()}
        loops = [number for number, target in descriptors.items() if "eventpoll" in target]
        assert loops
        for number in loops:
            watched = re.findall(r"^tfd:\s+(\d+)", (process / "fdinfo" / str(number)).read_text(), re.MULTILINE)
            assert {int(each) for each in watched} <= set(descriptors)
            assert len(watched) == len(set(watched))
    for client in clients:
        client.close()
