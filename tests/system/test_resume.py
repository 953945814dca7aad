"""A device that comes back: what it subscribed to, what it holds, and whose token it has."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from bench.publish import changed_state
from pushserver.bus.connection import connect
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.events import encode_update
from pushserver.model import DataType, Freshness, Secret
from tests.system.harness import Stack, wait_until
from tests.system.phones import NodePhone
from tests.system.raw_client import RawClient

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("resume"), users=0, web_workers=2, push_workers=0).start()
    yield stack
    stack.stop()


class Account:
    """What the push workers would commit for one user."""

    def __init__(self, stack: Stack, user_id: int) -> None:
        self.user_id = user_id
        self.states = States(connect(Secret(stack.redis_url)), SystemClock())
        self._version = 0

    def change(self, data_type: DataType) -> int:
        """A new state; its ``seq``."""
        self._version += 1
        now_ms = SystemClock().wall_ms()
        data = changed_state(data_type, self._version, 2)
        update = encode_update(data_type, self.user_id, data, now_ms, now_ms)
        assert self.states.commit(self.user_id, data_type, update, now_ms).result == "published"
        [stored] = self.states.read([(self.user_id, data_type)])
        return stored.seq


def resumed(stack: Stack, user_id: int, **wish: object) -> RawClient:
    """A client whose CONNECT carries the wish; it sends nothing else."""
    client = RawClient(stack.url)
    client.send("40" + json.dumps({"token": stack.token(user_id), **wish}))
    assert client.packet().startswith("40")
    return client


def updates(client: RawClient) -> list[tuple[str, int]]:
    """All updates until now; the ack of ``whoami`` comes after what was sent before it."""
    client.call("whoami")
    return [(name, payload["seq"]) for name, payload in client.events if name.endswith("_update") and "seq" in payload]


def test_G5_what_the_auth_payload_names_is_subscribed_before_connected_and_its_states_follow(stack):
    account = Account(stack, 11)
    seqs = {name: account.change(name) for name in (DataType.POSITIONS, DataType.PNL, DataType.ORDERS)}
    client = resumed(stack, 11, subscribe=["positions", "pnl"])
    said = [json.loads(client.packet()[2:]) for _ in range(4)]
    assert [name for name, _ in said] == ["connected", "subscribed", "positions_update", "pnl_update"]
    assert said[0][1]["subscribed"] == said[1][1]["subscribed"] == ["positions", "pnl"]
    assert said[1][1]["intervals"]["positions"] == 1
    assert [payload["seq"] for _, payload in said[2:]] == [seqs[DataType.POSITIONS], seqs[DataType.PNL]]
    seq = account.change(DataType.PNL)
    assert client.event("pnl_update")["seq"] == seq
    client.close()


@pytest.mark.parametrize(
    ("held", "sent"), [(0, False), (-1, True), (-(10**9), True), (+1, True), (10**9, True), (None, True)]
)
def test_G5_a_state_that_the_device_holds_is_not_sent_and_any_other_once(stack, held, sent):
    account = Account(stack, 12)
    seq = account.change(DataType.PNL)
    since = {} if held is None else {"pnl": max(0, seq + held)}
    client = resumed(stack, 12, subscribe=["pnl"], since=since)
    assert client.event("connected")["subscribed"] == ["pnl"]
    assert updates(client) == ([("pnl_update", seq)] if sent else [])
    client.events.clear()
    assert [account.change(DataType.PNL)] == [client.event("pnl_update")["seq"]]
    client.close()


@pytest.mark.parametrize(
    ("wish", "codes", "subscribed"),
    [
        ({"subscribe": "pnl"}, ["invalid_payload"], []),
        ({"subscribe": None}, ["invalid_payload"], []),
        ({"subscribe": ["pnl"] * 17}, ["invalid_payload"], []),
        ({"subscribe": ["pnl"], "since": "yesterday"}, ["invalid_payload"], []),
        ({"subscribe": ["nonsense"]}, ["unknown_type"], []),
        ({"subscribe": ["pnl", "nonsense"]}, ["unknown_type"], ["pnl"]),
        ({"subscribe": ["pnl"], "since": {"pnl": "5", "balance_5": 1}}, ["invalid_payload"], ["pnl"]),
        ({"subscribe": []}, [], []),
        ({"since": {"pnl": 5}}, [], []),
    ],
)
def test_D09_a_wish_that_cannot_be_understood_is_answered_and_the_connection_stays(stack, wish, codes, subscribed):
    client = resumed(stack, 13, **wish)
    assert client.event("connected")["subscribed"] == subscribed
    assert client.call("whoami")["types"] == subscribed
    assert [payload["code"] for name, payload in client.events if name == "error"] == codes
    client.close()


def test_G5_the_official_client_returns_to_another_worker_and_misses_nothing(stack):
    account = Account(stack, 14)
    seq = account.change(DataType.POSITIONS)
    account.change(DataType.PNL)
    phone = NodePhone(stack.url, stack.token(14), "resume")
    phone.wait_for("connected")
    phone.remember("positions", "pnl")
    phone.call("subscribe_trading", {"types": ["positions", "pnl"]})
    phone.wait_for("positions_update")
    phone.wait_for("pnl_update")
    first_worker = phone.call("whoami", {})["worker_id"]
    os.kill(first_worker, signal.SIGKILL)
    missed = account.change(DataType.PNL)
    connected = phone.wait_for("connected", 2)
    assert connected["subscribed"] == ["positions", "pnl"]
    assert phone.wait_for("pnl_update", 2)["seq"] == missed
    assert phone.call("whoami", {})["worker_id"] != first_worker
    assert [update["seq"] for update in phone.updates("positions")] == [seq]
    assert len(phone.updates("pnl")) == 2
    later = account.change(DataType.POSITIONS)
    assert phone.wait_for("positions_update", 2)["seq"] == later
    assert phone.seqs_grow("positions") and phone.seqs_grow("pnl")
    phone.close()
    wait_until(lambda: len(stack.web.children()) == 2, 10, "the replacement of the killed worker")


def test_A10_A11_a_device_that_brings_a_new_token_in_time_stays_connected(stack):
    phone = NodePhone(stack.url, stack.token(15, ttl_s=3))
    expiring = phone.wait_for("token_expiring")
    assert 0 < expiring["expires_in"] <= 3
    assert phone.call("authenticate", {"token": stack.token(16)})["error"]["code"] == "token_mismatch"
    answer = phone.call("authenticate", {"token": stack.token(15, ttl_s=3600)})
    assert answer == phone.wait_for("connected", 2)
    assert answer["token_expires_at"] > expiring["token_expires_at"]
    other = NodePhone(stack.url, stack.token(15, ttl_s=3))
    other.wait_kind("disconnect", timeout_s=15)
    assert other.events("error")[-1]["code"] == "token_expired"
    assert phone.count("disconnect") == 0
    assert phone.call("whoami", {})["token_expires_at"] == answer["token_expires_at"]
    phone.close()
    other.close()


def test_whoami_tells_the_last_error_the_worker_and_the_age_of_each_type(stack):
    account = Account(stack, 17)
    seq = account.change(DataType.PNL)
    account.states.set_status(17, DataType.PNL, Freshness.STOPPED, "key_invalid", "The key was refused.")
    client = resumed(stack, 17, subscribe=["pnl", "orders"])
    answer = client.call("whoami")
    assert (answer["user_id"], answer["types"]) == (17, ["pnl", "orders"])
    pnl, orders = answer["states"]["pnl"], answer["states"]["orders"]
    assert (pnl["seq"], pnl["state"], pnl["last_error"]) == (seq, "stopped", "key_invalid")
    assert 0 <= pnl["age_s"] < 10
    assert pnl["next_fetch_at"] is not None
    assert (orders["seq"], orders["age_s"], orders["last_error"]) == (None, None, None)
    assert answer["worker_id"] in stack.web.children()
    assert answer["token_expires_at"].endswith("Z")
    client.close()
