"""Bases on their way from a round's commit to the user's home, against a real Valkey."""

from __future__ import annotations

import pytest

from pushserver.bus import keys
from pushserver.bus.bases import Bases, channel, parse_message
from pushserver.bus.connection import connect
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType, Secret


def test_what_is_stored_is_read_for_many_users_at_once(redis_url):
    client = connect(Secret(redis_url))
    client.hset(keys.bases(4), mapping={"pnl": b"p", "balance": b"b", "of another version": b"x"})
    assert Bases(client).read([4, 5]) == {4: {DataType.PNL: b"p", DataType.BALANCE: b"b"}, 5: {}}


def test_a_lost_redis_is_said():
    with pytest.raises(StoreUnavailable):
        Bases(connect(Secret("redis://127.0.0.1:1/0"))).read([4])


def test_a_message_names_user_and_type():
    assert parse_message(channel(4), b"positions\n[1]\n") == (4, DataType.POSITIONS, b"[1]\n")


@pytest.mark.parametrize(
    ("heard_on", "payload"),
    [
        (b"push:{4}:positions", b"positions\n[1]"),
        (b"push:{four}:bases", b"positions\n[1]"),
        (channel(4), b"fees\n[1]"),
        (channel(4), b""),
        (b"push:signals", b"{}"),
    ],
)
def test_other_messages_are_passed_over(heard_on, payload):
    assert parse_message(heard_on, payload) is None
