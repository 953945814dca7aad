"""What others write into Redis, and what stands in it after a day's work (section G of the threat table)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from bench.publish import changed_state
from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.events import encode_update
from pushserver.model import DataType, Secret
from tests.system.harness import Stack, wait_until
from tests.system.probes import metric
from tests.system.raw_client import RawClient

pytestmark = pytest.mark.system

USER, OTHER = 1, 2
NO_SIGNALS = (b"", b"5", b"not json", b'{"kind":"explode","user_id":1}', b'{"kind":"user_disabled","user_id":"1"}')
#: Keys that something else deletes than a time to live, by their last word: the schedule's, and the access rules.
OWNED = {"due", "leases", "wakes", "homes", "home-tokens", "home-live", "birth", "last-seen", "access"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("bus"), users=2, web_workers=1, push_workers=1).start()
    yield stack
    stack.stop()


@pytest.fixture
def client(stack: Stack) -> Iterator[RawClient]:
    client = RawClient(stack.url)
    assert client.connect({"token": stack.token(USER)}).startswith("40")
    client.call("subscribe_trading", {"types": ["pnl", "balance"]})
    client.event("pnl_update", 20)
    client.event("balance_update", 20)
    client.events.clear()
    yield client
    client.close()


def frame(name: str, user_id: int, seq: int) -> bytes:
    """An update as an injector would write it, with figures that nobody may see."""
    body = {"type": name, "data": {"total_balance": 666.0}, "timestamp": "2026-01-01T00:00:00", "user_id": user_id}
    return b"42" + json.dumps([name, {**body, "seq": seq, "as_of": seq}], separators=(",", ":")).encode()


def injected_into_a_users_channel() -> list[bytes]:
    now_ms = SystemClock().wall_ms()
    ours = frame("pnl_update", USER, now_ms)
    return [
        b"", b"5", b"not json", b"\x80\x04\x95pickle", b"null", b"x" * (2 << 20),
        b"u %d %d\nhello" % (now_ms, now_ms),
        b"u x %d\n" % now_ms + ours,
        b"z %d %d\n" % (now_ms, now_ms) + ours,
        b"u %d %d\n" % (now_ms + 120_000, now_ms) + frame("pnl_update", USER, now_ms + 120_000),
        b"u %d %d\n" % (2**70, now_ms) + ours,
        b"u %d %d\n" % (now_ms, now_ms) + frame("pnl_update", OTHER, now_ms),
        b"u %d %d\n" % (now_ms, now_ms) + frame("balance_update", USER, now_ms),
        b"s cheerful reason\n" + ours,
    ]  # fmt: skip


def injected_into_the_emitters_channel(sid: str) -> list[bytes]:
    emit = {"method": "emit", "event": "pnl_update", "data": [{"forged": 1}], "namespace": "/", "room": "pnl_1"}
    messages: list[Any] = [
        5, None, [], "text", {}, {"method": "explode"},
        {**emit, "room": None}, {**emit, "room": "everybody"}, {**emit, "room": ["pnl_1"]}, {**emit, "room": sid},
        {**emit, "namespace": "/admin"}, {**emit, "event": 5}, {**emit, "callback": ["a", "/", 1]},
        {"method": "disconnect", "sid": sid, "namespace": "/"},
        {"method": "close_room", "room": "pnl_1", "namespace": "/"},
        {"method": "enter_room", "sid": sid, "room": "pnl_2", "namespace": "/"},
        {"method": "leave_room", "sid": sid, "room": "pnl_1", "namespace": "/"},
        {"method": "callback", "host_id": "x", "sid": sid, "namespace": "/", "id": 1, "args": []},
    ]  # fmt: skip
    return [b"not json", b"\x80\x04pickle", b"[" * 100_000, *(json.dumps(message).encode() for message in messages)]


def test_G02_what_is_injected_is_dropped_and_counted_and_the_truth_still_arrives(stack, client):
    sid = client.call("whoami") and client.opening["sid"]
    bus = redis.Redis.from_url(stack.redis_url)
    before = metric(stack, "push_bus_messages_dropped_total")
    worker = stack.web.children()
    foreign = injected_into_a_users_channel()
    for message in foreign:
        bus.execute_command("SPUBLISH", keys.update_channel(USER, DataType.PNL), message)
    queued = injected_into_the_emitters_channel(sid)
    for message in queued:
        bus.publish(keys.EMITTER_CHANNEL, message)
    for signal in NO_SIGNALS:
        bus.publish(keys.SIGNALS_CHANNEL, signal)
    wait_until(
        lambda: metric(stack, "push_bus_messages_dropped_total") >= before + len(foreign) + len(queued), 15, "the count"
    )
    assert client.call("whoami")["types"] == ["balance", "pnl"]
    assert "666" not in json.dumps(client.events) and "forged" not in json.dumps(client.events)
    # Redis itself cuts off a subscriber that so large a message is waiting for: it comes back and reads again.
    bus.execute_command("SPUBLISH", keys.update_channel(USER, DataType.PNL), b"u 5 5\n" + b"x" * (50 << 20))
    clock = SystemClock()
    update = encode_update(DataType.PNL, USER, changed_state(DataType.PNL, 1, 0), clock.wall_ms(), clock.wall_ms())
    States(connect(Secret(stack.redis_url)), clock).commit(USER, DataType.PNL, update, clock.wall_ms())
    assert client.event("pnl_update")["user_id"] == USER
    assert stack.web.children() == worker
    assert "Traceback" not in stack.web.log()
    bus.close()


def test_G08_no_key_stays_for_ever_and_none_is_ever_looked_for(stack, client):
    client.send("42" + json.dumps(["subscribe_trading", {"types": ["pnl:{7}", "*", "../../x"], "user_id": "9}:*"}]))
    assert client.event("error")["code"] == "unknown_type"
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as bus:
        commands = bus.info("commandstats")
        searches = {
            name for name in commands if name.split("_")[1].split("|")[0] in ("keys", "scan", "flushall", "sort")
        }
        assert searches == set()
        names = bus.keys("*")
        assert {"push:{1}:pnl:state", "push:{1}:memo"} <= set(names)
        for_ever = [name for name in names if bus.ttl(name) == -1 and name.rpartition(":")[2] not in OWNED]
        assert for_ever == []
        assert [name for name in names if not name.startswith("push:")] == []
