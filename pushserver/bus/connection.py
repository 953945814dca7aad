"""Opens the Redis named by ``REDIS_URL``: standalone, TLS, unix socket or Sentinel.

Timeouts are short and retries few on purpose: a caller that waits for a lost Redis holds a greenlet and a phone.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from pushserver.errors import StoreUnavailable
from pushserver.model import Secret

#: How long any single command may take before the store counts as unavailable.
COMMAND_TIMEOUT_S = 2.0

#: What a caller catches around a group of commands, to turn it into ``StoreUnavailable``.
REDIS_FAILURES = (RedisError, OSError)


def connect(url: Secret, *, timeout_s: float = COMMAND_TIMEOUT_S, max_connections: int = 200) -> Any:
    """A client for commands; nothing is sent before the first of them.

    Returns a ``redis.Redis`` that gives bytes, with one retry on a connection that was
    closed while idle.
    """
    raw = url.reveal()
    scheme = raw.split("://", 1)[0]
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 15,
        "retry": Retry(NoBackoff(), 1),
        "max_connections": max_connections,
        "protocol": 2,
    }
    if scheme == "redis+sentinel":
        return _sentinel_master(raw, options)
    return redis.Redis.from_url(raw, **options)


def listening_connection(url: Secret, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
    """One bare connection for pub/sub, not yet connected.

    Nothing on it retries or reconnects by itself: redis-py would do so without a word, and every message that
    was published in between would be lost unnoticed. Call ``connect()`` again after ``disconnect()``.
    """
    client = connect(url, timeout_s=timeout_s, max_connections=2)
    pool = client.connection_pool
    pool.connection_kwargs.update(health_check_interval=0, retry=Retry(NoBackoff(), 0))
    return pool.make_connection()


def unavailable(error: Exception) -> StoreUnavailable:
    """The store's failure in our words; the original text may name hosts, so it stays in ``__cause__``."""
    return StoreUnavailable(f"Redis did not answer ({type(error).__name__})")


def _nodes(raw: str) -> list[tuple[str, int]]:
    hosts = urlsplit(raw).netloc.rpartition("@")[2].split(",")
    return [(host.rpartition(":")[0], int(host.rpartition(":")[2])) for host in hosts]


def _login(raw: str) -> dict[str, Any]:
    name, _, password = urlsplit(raw).netloc.rpartition("@")[0].partition(":")
    return {"username": unquote(name) or None, "password": unquote(password) or None}


def _sentinel_master(raw: str, options: dict[str, Any]) -> Any:
    database, name = urlsplit(raw).path.strip("/").split("/")
    sentinel = Sentinel(_nodes(raw), sentinel_kwargs={"socket_timeout": options["socket_timeout"]})
    return sentinel.master_for(name, db=int(database), **_login(raw), **options)
