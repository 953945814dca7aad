"""What a web worker reads about homes."""

from __future__ import annotations

from typing import Any

import pytest

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.homes import Homes, Live
from pushserver.bus.schedule import Schedule
from pushserver.errors import StoreUnavailable
from pushserver.model import Secret


def test_only_homes_whose_lease_lasts_keep_anything_fresh(redis_url: str) -> None:
    client: Any = connect(Secret(redis_url))
    homes, users = Homes(client), range(1, 7)
    Schedule(client).wake(users)
    homes.take(users, "a", 30)
    homes.keep({1: Live.STREAM, 2: Live.STREAM | Live.MARKS, 3: Live.STREAM}, "a", 30)
    client.zadd(keys.homes(3), {"3": 1})
    assert homes.live_bits([*users, 99]) == {1: 1, 2: 3, 3: 0, 4: 0, 5: 0, 6: 0, 99: 0}
    assert homes.live_bits([]) == {}


def test_without_redis_nothing_is_known() -> None:
    with pytest.raises(StoreUnavailable):
        Homes(connect(Secret("redis://127.0.0.1:1/0"))).live_bits([1])
