"""What one client, one address or one process may take from the web side: the defaults of the settings of these names.

A breach is always told (an error, a refusal or a close reason) and counted; ``docs/limits.md`` says which is which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _limit(default: int, low: int, high: int) -> Any:
    return field(default=default, metadata={"low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit is a whole number; ``low`` and ``high`` of its field's metadata bound what a setting may say."""

    # --- connections ---
    #: Of one user, and from one address, over all web workers of this host.
    max_connections_per_user: int = _limit(20, 1, 10_000)
    max_connections_per_address: int = _limit(200, 1, 1_000_000)
    #: Phones of one web worker. A tenth more connections are taken than that, for health checks, pages and the API.
    max_connections_per_process: int = _limit(9_000, 10, 100_000)
    #: New connections from one address to one web worker: so many at once, then so many a second.
    connect_burst_per_address: int = _limit(400, 1, 1_000_000)
    connect_rate_per_address: int = _limit(50, 1, 100_000)
    #: New connections of one web worker; after a restart all clients return within a second.
    connect_burst_per_process: int = _limit(10_000, 1, 1_000_000)
    connect_rate_per_process: int = _limit(1_000, 1, 100_000)

    # --- what a client sends ---
    #: One message, its fragments or its binary attachments together.
    max_message_bytes: int = _limit(65_536, 1_024, 1_048_576)
    #: Events of one connection: so many at once, then so many a second.
    event_burst: int = _limit(20, 1, 10_000)
    event_rate: int = _limit(5, 1, 10_000)

    # --- what waits for a client ---
    max_waiting_bytes: int = _limit(262_144, 4_096, 16_777_216)

    # --- how long a client may take, in seconds ---
    #: For a request's head, from accept or from the first byte of a later request; then for its body.
    request_head_s: int = _limit(5, 1, 60)
    request_body_s: int = _limit(5, 1, 60)
    #: Between two requests of one connection.
    keep_alive_s: int = _limit(15, 1, 600)
    #: From the upgrade to the Socket.IO CONNECT.
    sign_in_s: int = _limit(10, 1, 60)
    #: For binary attachments that were announced.
    attachments_s: int = _limit(5, 1, 60)
    #: Without taking one byte while something waits.
    stuck_s: int = _limit(30, 1, 600)

    # --- how long we may take, in seconds ---
    #: To decide about a connection.
    connect_s: int = _limit(5, 1, 60)

    @property
    def worker_connections(self) -> int:
        """Connections of any kind of one web worker: the phones and a tenth of the whole beside them."""
        return -(-self.max_connections_per_process * 10 // 9)


DEFAULTS = Limits()
