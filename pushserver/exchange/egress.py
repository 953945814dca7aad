"""The addresses that requests leave from, and which of them a user's requests take; pure.

Each has a budget and pauses of its own at the exchange. A user always leaves by the same one, whichever process asks:
keys may be bound to an address, and a user spread over several would be several users to the exchange's protection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pushserver.model import Proxy


@dataclass(frozen=True, slots=True)
class Egress:
    """``name`` is what its budget and pauses are called in Redis; ``proxy`` None: directly from this host."""

    name: str
    proxy: Proxy | None = None


def egresses_of(egress_id: str, proxies: Sequence[Proxy | None]) -> tuple[Egress, ...]:
    """``proxies`` as configured, None standing for the direct way; without any there is the direct way alone.

    A proxy's address is the same from every host, so its name is its own and not this host's.
    """
    return tuple(
        Egress(egress_id) if proxy is None else Egress(f"proxy-{proxy.host}:{proxy.port}", proxy)
        for proxy in (proxies or (None,))
    )


def egress_of(user_id: int, egresses: Sequence[Egress]) -> int:
    """The index of the user's egress: evenly spread, and when one is added or removed only its users move."""
    if len(egresses) == 1:
        return 0
    return max(range(len(egresses)), key=lambda index: _affinity(user_id, egresses[index].name))


def _affinity(user_id: int, name: str) -> bytes:
    """Rendezvous hashing (Thaler and Ravishankar, 1998)."""
    return hashlib.blake2b(f"{user_id} {name}".encode(), digest_size=8).digest()
