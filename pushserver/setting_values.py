"""What a setting's text means: one function per kind of value, each raising ValueError with a reason.

A reason never quotes what may be a secret.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from pushserver.model import DataType, Market, Proxy, Secret, TrustedPeer

MARKET_CATEGORIES = ("linear", "inverse", "spot", "option")
DATABASE_DIALECTS = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")
#: Secrets that stand in documents or examples; a server that runs with one is open to everybody.
COMMITTED_EXAMPLES = ("change-me", "changeme", "example", "secret-key", "your-secret", "replace-me")


@dataclass(frozen=True, slots=True)
class Address:
    """``host:port``; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def redis_url(raw: str) -> Secret:
    scheme = raw.split("://", 1)[0] if "://" in raw else ""
    if scheme not in REDIS_SCHEMES:
        raise ValueError(f"must start with one of {', '.join(name + '://' for name in REDIS_SCHEMES)}")
    if scheme == "unix":
        return Secret(raw)
    try:
        parts = urlsplit(raw)
    except ValueError:
        # Its own words quote the address, password and all.
        raise ValueError("is not an address") from None
    nodes = parts.netloc.rpartition("@")[2]
    if not nodes:
        raise ValueError("names no host")
    several = scheme in ("redis+sentinel", "redis+cluster")
    for number, node in enumerate(nodes.split(",") if several else [nodes], 1):
        _check_node(number, node, port_needed=several)
    if scheme == "redis+sentinel" and not re.search(r"/\d+/[\w.-]+$", parts.path):
        raise ValueError("must end in /DATABASE/NAME, as in redis+sentinel://h1:26379,h2:26379/0/mymaster")
    if scheme == "redis+cluster" and parts.path.strip("/") not in ("", "0"):
        raise ValueError("names a database; a cluster has only one")
    return Secret(raw)


def _check_node(number: int, node: str, *, port_needed: bool) -> None:
    """Counts the hosts instead of quoting them: a password with a stray / in it would look like one."""
    found = re.fullmatch(r"(\[[^\[\]]*\]|[^:]*)(?::([0-9]{1,5}))?", node)
    if not found or (found[2] is None and port_needed) or not 1 <= int(found[2] or 1) <= 65_535:
        raise ValueError(f"host {number} has no port from 1 to 65535")
    if port_needed and not found[1]:
        raise ValueError(f"host {number} has no name")


def database_url(raw: str) -> Secret:
    if "://" not in raw:
        raise ValueError("is not a SQLAlchemy URL, such as sqlite:///pushserver.db or postgresql+psycopg://…")
    # The old name of PostgreSQL's is still what many hosting companies hand out.
    found = re.match(r"([a-z]+)(\+\w+)?://", raw)
    if not found or found[1] not in (*DATABASE_DIALECTS, "postgres"):
        raise ValueError(f"must start with {', '.join(DATABASE_DIALECTS)}, a +driver if you like, and ://")
    return Secret(raw)


def jwt_secrets(raw: str) -> tuple[Secret, ...]:
    secrets = _list(raw)
    for number, secret in enumerate(secrets, 1):
        if len(secret.encode()) < 32:
            raise ValueError(f"secret {number} has fewer than 32 bytes")
        if any(example in secret.lower() for example in COMMITTED_EXAMPLES):
            raise ValueError(f"secret {number} is an example value; make one with `openssl rand -hex 32`")
    return tuple(Secret(secret) for secret in secrets)


def fernet_keys(raw: str) -> tuple[Secret, ...]:
    keys = _list(raw)
    for number, key in enumerate(keys, 1):
        try:
            Fernet(key)
        except ValueError as error:
            raise ValueError(f"key {number} is not a Fernet key (32 url-safe base64 bytes)") from error
    return tuple(Secret(key) for key in keys)


def _list(raw: str) -> list[str]:
    items = [item.strip() for item in raw.split(",")]
    if not all(items):
        raise ValueError("has an empty entry")
    return items


def _url(raw: str, secure: str, plain: str) -> str:
    parts = urlsplit(raw)
    host = parts.hostname or ""
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password")
    # Asking for the port is what makes the library look at it.
    if parts.scheme not in (secure, plain) or not host or parts.port == 0:
        raise ValueError(f"{raw!r} is not a {secure}:// address")
    if parts.scheme == plain and not _is_this_machine(host):
        raise ValueError(f"plain {plain}:// is only allowed on this machine; use {secure}://")
    return raw


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def web_url(raw: str) -> str:
    return _url(raw, "https", "http") if raw else ""


def stream_url(raw: str) -> str:
    return _url(raw, "wss", "ws") if raw else ""


def proxies(raw: str) -> tuple[Proxy | None, ...]:
    """None stands for ``direct``."""
    found = tuple(_proxy(number, item) for number, item in enumerate(_list(raw), 1)) if raw else ()
    if len({str(proxy).rpartition("@")[2] for proxy in found}) != len(found):
        raise ValueError("names an address twice")
    return found


def _proxy(number: int, item: str) -> Proxy | None:
    """Counts instead of quoting: there may be a password in it."""
    if item == "direct":
        return None
    try:
        parts = urlsplit(item)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http" or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"proxy {number} is not like http://user:password@host:port, nor the word direct")
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else None
    return Proxy(host, port, None if login is None else Secret(login))


def public_key_file(raw: str, algorithm: str) -> Path | None:
    """A PEM file with a public key that can verify what ``algorithm`` signed; for HS256 it only has to be there."""
    if not raw:
        return None
    path = Path(raw)
    if not path.is_file():
        raise ValueError(f"{raw} is not a file")
    if algorithm != "HS256" and not _verifies(path, algorithm):
        raise ValueError(f"{raw} holds no public key for {algorithm}")
    return path


def _verifies(path: Path, algorithm: str) -> bool:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm):
        return False
    if algorithm == "RS256":
        return isinstance(key, rsa.RSAPublicKey)
    return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)


def markets(raw: str) -> tuple[Market, ...]:
    markets = []
    for item in _list(raw):
        category, _, coin = item.partition(":")
        if category not in MARKET_CATEGORIES:
            raise ValueError(f"{item!r}: the category is one of {', '.join(MARKET_CATEGORIES)}")
        if category == "linear" and not re.fullmatch(r"[A-Z]{2,10}", coin):
            raise ValueError(f"{item!r}: linear needs its settle coin, as in linear:USDT")
        if category != "linear" and coin:
            raise ValueError(f"{item!r}: only linear takes a settle coin")
        markets.append(Market(category, coin or None))
    if len(set(markets)) != len(markets):
        raise ValueError("names a market twice")
    return tuple(markets)


DEFAULT_INTERVALS = {DataType.BALANCE: 10.0, DataType.POSITIONS: 5.0, DataType.PNL: 5.0, DataType.ORDERS: 15.0}


def intervals(raw: str) -> Mapping[DataType, float]:
    intervals = dict(DEFAULT_INTERVALS)
    for item in _list(raw) if raw else []:
        name, _, seconds = item.partition("=")
        try:
            data_type, interval_s = DataType(name.strip()), float(seconds)
        except ValueError as error:
            raise ValueError(f"{item!r} is not TYPE=SECONDS, TYPE one of {', '.join(DataType)}") from error
        if not 1 <= interval_s <= 3600:
            raise ValueError(f"{item!r}: an interval is 1 to 3600 seconds")
        intervals[data_type] = interval_s
    return intervals


def identifier(raw: str) -> str:
    if not re.fullmatch(r"[\w.:-]{1,64}", raw):
        raise ValueError("takes letters, digits, . : _ - and at most 64 of them")
    return raw


def address(raw: str) -> Address:
    host, separator, port = raw.rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError(f"{raw!r} is not HOST:PORT")
    return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - an empty host means all addresses


def origins(raw: str) -> tuple[str, ...] | None:
    """None = same origin. Never an empty tuple: Socket.IO reads an empty list as "check nothing"."""
    origins = tuple(item.strip().rstrip("/") for item in raw.split(",") if item.strip())
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[\w.\-\[\]:]+", origin):
            raise ValueError(f"{origin!r} is not an origin such as https://app.example.com")
    return origins or None


def trusted_peers(raw: str) -> tuple[TrustedPeer, ...]:
    """Addresses and networks, and ``unix`` for whoever comes through a unix socket; an empty text trusts nobody."""
    return tuple(_trusted_peer(item) for item in _list(raw)) if raw else ()


def _trusted_peer(item: str) -> TrustedPeer:
    if item == "unix":
        return "unix"
    try:
        network = ipaddress.ip_network(item)
    except ValueError:
        raise ValueError(f"{item!r} is neither an address, nor a network such as 10.0.0.0/8, nor unix") from None
    if network.prefixlen == 0:
        raise ValueError(f"{item!r} is everybody: name the proxies' own addresses")
    return network
