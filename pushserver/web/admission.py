"""Whether one more WebSocket is taken, asked before its upgrade is answered.

Before the 101, because a client whose upgraded connection ends without a word waits out its own long timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Protocol

from pushserver.clock import Clock
from pushserver.limits import Limits
from pushserver.model import TrustedPeer
from pushserver.web.client_address import client_address
from pushserver.web.http_request import RequestRefused
from pushserver.web.pace import Bucket

#: Addresses whose last connections are remembered; beyond it those that have their whole burst again are forgotten.
MANY_ADDRESSES = 10_000


class AddressTally(Protocol):
    """Counts connections per address over all workers of the host."""

    def enter_address(self, address: str, most: int) -> bool: ...

    def leave_address(self, address: str) -> None: ...


class Admission:
    """``accepting()`` is false while the worker leaves. Each ``enter`` needs its ``leave``, however the socket ends."""

    def __init__(
        self,
        limits: Limits,
        tally: AddressTally,
        trusted: Sequence[TrustedPeer],
        clock: Clock,
        accepting: Callable[[], bool],
    ) -> None:
        self._limits = limits
        self._tally = tally
        self._trusted = trusted
        self._clock = clock
        self._accepting = accepting
        self._connects = Bucket(limits.connect_burst_per_process, limits.connect_rate_per_process, clock.monotonic_s())
        self._connects_of: dict[str, Bucket] = {}
        #: WebSockets of this worker, signed in or not.
        self.open = 0

    def enter(self, environ: dict[str, Any]) -> str:
        """Count a WebSocket in; the address that ``leave`` needs, "" when none is counted.

        Raises:
            RequestRefused: 503 server_busy or 429 too_many_connections.
        """
        if not self._accepting() or self.open >= self._limits.max_connections_per_process:
            raise _busy()
        address = counted_address(
            client_address(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), self._trusted)
        )
        now_s = self._clock.monotonic_s()
        if address and not self._bucket_of(address, now_s).take(now_s):
            raise _too_many("this address connects too often")
        if not self._connects.take(now_s):
            raise _busy()
        if address and not self._tally.enter_address(address, self._limits.max_connections_per_address):
            raise _too_many("this address has too many open connections")
        self.open += 1
        return address

    def leave(self, address: str) -> None:
        """The WebSocket that was let in is gone."""
        self.open -= 1
        if address:
            self._tally.leave_address(address)

    def _bucket_of(self, address: str, now_s: float) -> Bucket:
        bucket = self._connects_of.get(address)
        if bucket is None:
            if len(self._connects_of) >= MANY_ADDRESSES:
                self._connects_of = {known: of for known, of in self._connects_of.items() if not of.full(now_s)}
            if len(self._connects_of) >= MANY_ADDRESSES:
                # So many at once come from no crowd of people; the limits of the process hold all the same.
                self._connects_of.clear()
            bucket = Bucket(self._limits.connect_burst_per_address, self._limits.connect_rate_per_address, now_s)
            self._connects_of[address] = bucket
        return bucket


def counted_address(address: str) -> str:
    """Under which name a client's connections are counted: its address, an IPv6 client's /64; "" if not at all.

    This machine's own address is nobody's: behind it stands a proxy that nobody told us to trust, with all its clients,
    or whoever measures us.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if str(parsed) in ("127.0.0.1", "::1"):
        return ""
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else str(parsed)


def _busy() -> RequestRefused:
    return RequestRefused("503 Service Unavailable", "server_busy", "this worker takes no more connections now")


def _too_many(message: str) -> RequestRefused:
    return RequestRefused("429 Too Many Requests", "too_many_connections", message)
