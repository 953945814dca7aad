from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.signals import Signal, SignalKind, parse, publish
from pushserver.errors import StoreUnavailable
from pushserver.model import MAX_USER_ID, Secret, hashed_token_id

HASH = hashed_token_id("a token")


@pytest.mark.parametrize(
    "signal",
    [Signal(kind, 4) for kind in SignalKind if kind is not SignalKind.TOKEN_REVOKED]
    + [Signal(SignalKind.TOKEN_REVOKED, MAX_USER_ID, HASH)],
)  # fmt: skip
def test_what_is_published_is_what_is_parsed(redis_url: str, signal: Signal) -> None:
    client = connect(Secret(redis_url))
    heard = client.pubsub(ignore_subscribe_messages=True)
    heard.subscribe(keys.SIGNALS_CHANNEL)
    heard.get_message(timeout=1)
    publish(client, signal)
    message = None
    while message is None:
        message = heard.get_message(timeout=1)
    assert parse(message["data"]) == signal
    heard.close()
    client.close()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"x",
        b"5",
        b"null",
        b"[]",
        b'"key_changed"',
        b"{}",
        b'{"kind":"key_changed"}',
        b'{"kind":"disconnect","user_id":4}',
        b'{"kind":["key_changed"],"user_id":4}',
        b'{"kind":"key_changed","user_id":"4"}',
        b'{"kind":"key_changed","user_id":true}',
        b'{"kind":"key_changed","user_id":4.0}',
        b'{"kind":"key_changed","user_id":0}',
        b'{"kind":"key_changed","user_id":9223372036854775808}',
        b'{"kind":"key_changed","user_id":4,"token_id":"' + HASH.encode() + b'"}',
        b'{"kind":"token_revoked","user_id":4}',
        b'{"kind":"token_revoked","user_id":4,"token_id":5}',
        b'{"kind":"token_revoked","user_id":4,"token_id":"../x"}',
        b'{"kind":"key_changed","user_id":4,"x":"' + b"y" * 600 + b'"}',
        b"[" * 500,
        b"\xff\xfe",
    ],
)
def test_G02_what_is_no_signal_is_none(message: bytes) -> None:
    assert parse(message) is None


@given(st.binary(max_size=600))
def test_G02_no_message_raises(message: bytes) -> None:
    assert parse(message) is None


def test_without_redis_publishing_says_so() -> None:
    with pytest.raises(StoreUnavailable):
        publish(connect(Secret("redis://127.0.0.1:1/0")), Signal(SignalKind.KEY_CHANGED, 4))
