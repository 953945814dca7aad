"""Opens the Redis named by ``REDIS_URL``: standalone, TLS, unix socket, Sentinel or Cluster.

Timeouts are short and retries few on purpose: a caller that waits for a lost Redis holds a greenlet and a phone.
"""

from __future__ import annotations

import random
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from pushserver.bus.cluster_client import ClusterClient
from pushserver.bus.topology import Node, Topology
from pushserver.clock import SystemClock
from pushserver.errors import StoreUnavailable
from pushserver.model import Secret

#: How long any single command may take before the store counts as unavailable.
COMMAND_TIMEOUT_S = 2.0

#: How long one Sentinel may take to name the master before the next one is asked.
SENTINEL_TIMEOUT_S = 0.5

#: What a caller catches around a group of commands, to turn it into ``StoreUnavailable``.
REDIS_FAILURES = (RedisError, OSError)


def connect(url: Secret, *, timeout_s: float = COMMAND_TIMEOUT_S, max_connections: int = 200) -> Any:
    """A client for commands; nothing is sent before the first of them.

    Returns a ``redis.Redis`` that gives bytes, with one retry on a connection that was closed while idle or leads to
    a server that is a replica by now; for a cluster a ClusterClient, which has the same methods.
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
    if scheme == "redis+cluster":
        return _cluster(raw, options)
    # When all connections are in use one is waited for: a crowd that returns at once is served, not refused.
    waiting = redis.BlockingConnectionPool.from_url(raw, timeout=timeout_s, retry_on_error=[ReadOnlyError], **options)
    return redis.Redis.from_pool(waiting)


def listening_connection(url: Secret, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Any:
    """One bare connection for pub/sub, not yet connected; not for a cluster, where each node needs one."""
    return connection_beside(connect(url, timeout_s=timeout_s))


def connection_beside(client: Any) -> Any:
    """One bare connection for pub/sub to where the ``redis.Redis`` given leads, not yet connected.

    Nothing on it retries or reconnects by itself: redis-py would do so without a word, and every message that
    was published in between would be lost unnoticed. Call ``connect()`` again after ``disconnect()``.
    """
    pool = client.connection_pool
    options = {**pool.connection_kwargs, "health_check_interval": 0, "retry": Retry(NoBackoff(), 0)}
    options.pop("retry_on_error", None)
    return pool.connection_class(**options)


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
    # Sentinels are asked one after the other: the library's own ten retries with growing pauses would turn one dead
    # Sentinel into a minute in which no master is found.
    asking = {
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    # The library has no pool of this kind that waits; so many connections are never needed at once.
    options["max_connections"] *= 10
    sentinel = Sentinel(_nodes(raw), sentinel_kwargs=asking)
    return sentinel.master_for(name, db=int(database), **_login(raw), **options)


def _cluster(raw: str, options: dict[str, Any]) -> ClusterClient:
    clock = SystemClock()
    # A node that timed out is not asked again: its slots may be another node's by now.
    options["retry"] = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    login = _login(raw)

    def new_client(node: Node) -> Any:
        waiting = redis.BlockingConnectionPool(
            host=node.host, port=node.port, timeout=options["socket_timeout"], **login, **options
        )
        return redis.Redis.from_pool(waiting)

    seeds = [Node(host.strip("[]"), port) for host, port in _nodes(raw)]
    rng = random.Random()  # noqa: S311 - only picks which node is asked first
    return ClusterClient(Topology(seeds, new_client, clock, rng), clock)
