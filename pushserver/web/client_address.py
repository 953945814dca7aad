"""Whose request it is: the peer's address, unless a proxy that we trust says on whose behalf it asks.

Everything behind (limits by address, the same-origin check) sees the answer in the ordinary places, so that nobody
else needs to know of proxies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from pushserver.model import TrustedPeer

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class ForwardedHeaders:
    """The outermost WSGI application: sets ``REMOTE_ADDR``, and removes what only a trusted proxy may say."""

    def __init__(self, application: Application, trusted: Sequence[TrustedPeer]) -> None:
        self._application = application
        self._trusted = trusted

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        peer = environ.get("REMOTE_ADDR", "")
        forwarded_for = environ.get("HTTP_X_FORWARDED_FOR", "")
        environ["REMOTE_ADDR"] = client_address(peer, forwarded_for, self._trusted)
        if not is_trusted(peer, self._trusted):
            # Engine.IO computes a page's own origin from them.
            for name in [name for name in environ if name.startswith("HTTP_X_FORWARDED_") or name == "HTTP_FORWARDED"]:
                del environ[name]
        return self._application(environ, start_response)


def client_address(peer: str, forwarded_for: str, trusted: Sequence[TrustedPeer]) -> str:
    """Whom a request comes from: an address in its usual spelling, or "" for an untrusted unix socket.

    ``peer`` is the address at the other end of the connection, "" for a unix socket; ``forwarded_for`` the value of
    X-Forwarded-For. Each proxy appends whom it heard, so the right-most address that is no trusted proxy counts. What
    is left of it, or left of anything that is no address, may have been written by anybody and is not believed.
    """
    believed = _normal(peer)
    if not is_trusted(peer, trusted):
        return believed
    for entry in reversed(forwarded_for.split(",") if forwarded_for else []):
        address = _forwarded(entry.strip())
        if address is None:
            break
        believed = str(address)
        if not is_trusted(believed, trusted):
            break
    return believed


def is_trusted(peer: str, trusted: Sequence[TrustedPeer]) -> bool:
    """Whether ``peer`` ("" for a unix socket) is one of ours."""
    if not peer:
        return "unix" in trusted
    address = _parsed(peer)
    return address is not None and any(network != "unix" and address in network for network in trusted)


def _forwarded(entry: str) -> IPv4Address | IPv6Address | None:
    """An entry of the header; some proxies write the port, too."""
    if entry.startswith("["):
        entry = entry[1:].partition("]")[0]
    elif entry.count(":") == 1:
        entry = entry.partition(":")[0]
    # The zone of an address is free text, and means something on the proxy's own machine only.
    return None if "%" in entry else _parsed(entry)


def _normal(peer: str) -> str:
    address = _parsed(peer)
    return peer if address is None else str(address)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # A socket that serves both families calls an IPv4 peer ::ffff:192.0.2.1.
    return getattr(address, "ipv4_mapped", None) or address
