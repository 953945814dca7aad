"""G01: a Redis that others can read or write is named as such, without quoting its address."""

from __future__ import annotations

import pytest

from pushserver.model import Secret
from pushserver.redis_exposure import redis_exposures


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:6379/0", []),
        ("redis://localhost/0", []),
        ("redis://[::1]:6379/0", []),
        ("unix:///run/redis.sock", []),
        ("redis://valkey:6379/0", ["password", "TLS"]),
        ("redis://web:canary@valkey:6379/0", ["TLS"]),
        ("redis://:canary@10.0.0.5:6379/0", ["TLS"]),
        ("rediss://valkey:6379/0", ["password"]),
        ("rediss://web:canary@valkey:6379/0", []),
        ("redis://8.8.8.8:6379/0", ["password", "TLS", "public"]),
        ("rediss://web:canary@8.8.8.8:6379/0", ["public"]),
        ("redis+sentinel://web:canary@10.0.0.5:26379,10.0.0.6:26379/0/main", ["TLS"]),
        ("redis+sentinel://127.0.0.1:26379,127.0.0.1:26380/0/main", []),
        ("redis+cluster://127.0.0.1:7000,10.0.0.6:7000", ["password", "TLS"]),
        ("redis://web@valkey:6379/0", ["password", "TLS"]),
    ],
)
def test_G01_each_weakness_of_the_way_to_redis_is_named(url: str, words: list[str]) -> None:
    found = redis_exposures(Secret(url))
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))
    assert "canary" not in "".join(found)
