"""What is wrong with how a Redis is reached, for those who run it: told at start-up and by ``check``, never refused.

Whoever reads along on the way to Redis reads every account; whoever can write there can show phones any figure.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from pushserver.model import Secret


def redis_exposures(url: Secret) -> list[str]:
    """One line per weakness of the address in ``REDIS_URL``; a Redis on this machine has none. Quotes no part of it."""
    raw = url.reveal()
    if raw.startswith("unix:"):
        return []
    parts = urlsplit(raw.replace("redis+", ""))
    login, _, nodes = parts.netloc.rpartition("@")
    hosts = [node.rpartition(":")[0] or node for node in nodes.split(",")]
    if all(_is_this_machine(host) for host in hosts):
        return []
    exposures = []
    if not login.partition(":")[2]:
        exposures.append("Redis is on another machine and REDIS_URL has no password")
    if not raw.startswith("rediss://"):
        exposures.append("Redis is on another machine and REDIS_URL has no TLS (rediss://)")
    if any(_is_public(host) for host in hosts):
        exposures.append("Redis is at a public address")
    return exposures


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host in ("", "localhost") if address is None else address.is_loopback


def _is_public(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_global


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
