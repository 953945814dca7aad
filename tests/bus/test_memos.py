"""What rounds leave for the next one of their user."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver.bus.connection import connect
from pushserver.bus.memos import Memos
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.model import Secret


@pytest.fixture
def client(redis_url: str) -> Any:
    return connect(Secret(redis_url))


def test_memos_are_read_in_the_order_asked_and_expire(client: Any) -> None:
    memos = Memos(client)
    memos.write(4, b"four")
    memos.write(6, b"six")
    assert memos.read([6, 5, 4]) == {6: b"six", 5: None, 4: b"four"}
    assert 0 < client.ttl("push:{4}:memo") <= 86_400


def test_only_the_newest_round_of_a_user_leaves_a_memo(client: Any) -> None:
    memos, states = Memos(client), States(client, SystemClock())
    states.open_rounds({4: "older"})
    states.open_rounds({4: "newest"})
    assert memos.write(4, b"newest", "newest")
    assert not memos.write(4, b"older", "older")
    assert memos.read([4]) == {4: b"newest"}


def test_R3_a_round_from_before_redis_lost_its_memory_leaves_none(client: Any) -> None:
    memos, states = Memos(client), States(client, SystemClock())
    states.open_rounds({4: "fence"})
    client.flushall()
    assert not memos.write(4, b"times of another clock", "fence")
    assert memos.read([4]) == {4: None}
