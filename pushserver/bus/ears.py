"""Opens the listener that fits ``REDIS_URL``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from pushserver.bus import keys
from pushserver.bus.cluster_client import ClusterClient
from pushserver.bus.cluster_listener import ClusterListener
from pushserver.bus.connection import listening_connection
from pushserver.bus.listener import Listener
from pushserver.bus.sentinel_listener import SentinelListener
from pushserver.clock import Clock
from pushserver.model import Secret
from pushserver.observers import Observer


class Ears(Protocol):
    """What every kind of listener offers; see ``Listener`` for the guarantees."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    @property
    def hears(self) -> bool: ...

    @property
    def canary_age_s(self) -> float | None: ...

    def subscribe(self, channels: Iterable[bytes], timeout_s: float) -> bool: ...

    def unsubscribe(self, channels: Iterable[bytes]) -> None: ...


def open_ears(
    url: Secret,
    client: Any,
    clock: Clock,
    observer: Observer,
    on_message: Callable[[bytes, bytes], None],
    on_restored: Callable[[], None],
    plain_channels: Sequence[str] = (keys.EMITTER_CHANNEL, keys.SIGNALS_CHANNEL),
) -> Ears:
    """A listener to the Redis at ``url``, not yet started; ``client`` is what ``connect(url)`` gave."""
    if isinstance(client, ClusterClient):
        return ClusterListener(client, clock, observer, on_message, on_restored, plain_channels)
    kind = SentinelListener if url.reveal().startswith("redis+sentinel://") else Listener
    return kind(listening_connection(url), client, clock, observer, on_message, on_restored, plain_channels)
