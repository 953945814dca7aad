"""One user's place in Redis, looked up without changing anything."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.homes import Homes, Live
from pushserver.bus.pauses import Pauses
from pushserver.bus.schedule import Schedule
from pushserver.bus.user_traces import UserTraces
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType, Secret


@pytest.fixture
def client(redis_url: str) -> Any:
    return connect(Secret(redis_url))


def test_a_scheduled_a_served_and_a_woken_user(client: Any) -> None:
    schedule, traces = Schedule(client), UserTraces(client)
    schedule.ensure([5])
    waiting = traces.of_user(5)
    assert waiting.due_ms is not None and waiting.served_by == ""
    schedule.wake([5])
    woken_ms = traces.of_user(5).woken_ms
    assert woken_ms is not None and 0 <= traces.of_user(5).now_ms - woken_ms < 1_000
    [claim] = schedule.claim(1, 12.0, "host/9/cd")
    served = traces.of_user(5)
    assert (served.served_by, served.woken_ms) == ("host/9/cd", None)
    schedule.complete(claim, 30.0)
    assert traces.of_user(5).served_by == ""


def test_home_and_listeners(client: Any) -> None:
    Schedule(client).wake([5])
    homes, traces = Homes(client), UserTraces(client)
    homes.take([5], "host/7/ab", 8.0)
    homes.keep({5: Live.STREAM}, "host/7/ab", 8.0)
    ear = client.pubsub()
    ear.ssubscribe(keys.update_channel(5, DataType.PNL))
    ear.get_sharded_message(timeout=2)
    found = traces.of_user(5)
    assert (found.home, found.live) == ("host/7/ab", 1)
    assert found.home_ends_ms is not None and 0 < found.home_ends_ms - found.now_ms <= 8_000
    assert found.listeners == dict.fromkeys(DataType, 0) | {DataType.PNL: 1}
    ear.close()


def test_looking_leaves_nothing_behind(client: Any) -> None:
    traces = UserTraces(client)
    nobody = traces.of_user(99)
    assert (nobody.due_ms, nobody.served_by, nobody.home, nobody.live) == (None, "", "", 0)
    assert traces.pause_of("here") is None
    assert client.keys("*") == []


def test_the_pause_of_an_address(client: Any) -> None:
    Pauses(client, "here").pause(600, "exchange_address_banned")
    found = UserTraces(client).pause_of("here")
    assert found is not None and found.code == "exchange_address_banned"


def test_without_redis_nothing_is_known() -> None:
    traces = UserTraces(connect(Secret("redis://127.0.0.1:1/0")))
    with pytest.raises(StoreUnavailable):
        traces.of_user(1)
    with pytest.raises(StoreUnavailable):
        traces.pause_of("here")
