"""The environment, read once and checked whole: every problem is reported at the same time.

Only composition roots import this; the parts receive the few values they need.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from cryptography.fernet import Fernet

from pushserver.errors import SettingsError
from pushserver.model import DataType, Market, Secret

T = TypeVar("T")

JWT_ALGORITHMS = ("HS256", "RS256", "ES256")
MARKET_CATEGORIES = ("linear", "inverse", "spot", "option")
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


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of contract section 2 (field ``redis_url`` is ``REDIS_URL`` and so on)."""

    redis_url: Secret
    database_url: Secret
    jwt_secrets: tuple[Secret, ...]
    jwt_algorithm: str
    jwt_jwks_url: str | None
    jwt_public_key_file: Path | None
    jwt_issuer: str | None
    jwt_audience: str | None
    jwt_ttl_s: int
    credentials_keys: tuple[Secret, ...]
    bybit_rest_url: str
    bybit_stream_url: str
    bybit_ticker_url: str
    bybit_markets: tuple[Market, ...]
    push_intervals: Mapping[DataType, float]
    bybit_ip_requests_per_5s: int
    egress_id: str
    worker_concurrency: int
    web_concurrency: int
    bind: Address
    web_metrics_bind: Address
    worker_metrics_bind: Address
    cors_origins: tuple[str, ...] | None
    log_format: str
    log_level: str
    console: bool

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check everything.

        Raises:
            SettingsError: with one line per problem.
        """
        reader = _Reader(os.environ if environ is None else environ)
        algorithm = reader.choice("JWT_ALGORITHM", "HS256", JWT_ALGORITHMS)
        jwks_url = reader.read("JWT_JWKS_URL", "", _web_url) or None
        public_key = reader.read("JWT_PUBLIC_KEY_FILE", "", _readable_file)
        if algorithm != "HS256" and not jwks_url and not public_key:
            reader.problem(f"JWT_ALGORITHM={algorithm} needs JWT_JWKS_URL or JWT_PUBLIC_KEY_FILE")
        settings = cls(
            redis_url=reader.read("REDIS_URL", "redis://127.0.0.1:6379/0", _redis_url),
            database_url=reader.read("DATABASE_URL", "sqlite:///pushserver.db", _database_url),
            jwt_secrets=reader.read("JWT_SECRETS", None, _jwt_secrets),
            jwt_algorithm=algorithm,
            jwt_jwks_url=jwks_url,
            jwt_public_key_file=public_key,
            jwt_issuer=reader.text("JWT_ISSUER"),
            jwt_audience=reader.text("JWT_AUDIENCE"),
            jwt_ttl_s=reader.integer("JWT_TTL_S", 3600, 1, 86_400),
            credentials_keys=reader.read("CREDENTIALS_KEYS", None, _fernet_keys),
            bybit_rest_url=reader.read("BYBIT_REST_URL", "https://api.bybit.com", _web_url).rstrip("/"),
            bybit_stream_url=reader.read(
                "BYBIT_STREAM_URL", "wss://stream.bybit.com/v5/private", _stream_url, empty_is_off=True
            ),
            bybit_ticker_url=reader.read(
                "BYBIT_TICKER_URL", "wss://stream.bybit.com/v5/public/linear", _stream_url, empty_is_off=True
            ),
            bybit_markets=reader.read("BYBIT_MARKETS", "linear:USDT", _markets),
            push_intervals=reader.read("PUSH_INTERVALS", "", _intervals),
            bybit_ip_requests_per_5s=reader.integer("BYBIT_IP_REQUESTS_PER_5S", 480, 1, 600),
            egress_id=reader.read("EGRESS_ID", socket.gethostname(), _identifier),
            worker_concurrency=reader.integer("WORKER_CONCURRENCY", 100, 1, 10_000),
            web_concurrency=reader.integer("WEB_CONCURRENCY", 2, 1, 512),
            bind=reader.read("BIND", "0.0.0.0:5000", _address),
            web_metrics_bind=reader.read("WEB_METRICS_BIND", "127.0.0.1:9101", _address),
            worker_metrics_bind=reader.read("WORKER_METRICS_BIND", "127.0.0.1:9102", _address),
            cors_origins=reader.read("CORS_ORIGINS", "", _origins),
            log_format=reader.choice("LOG_FORMAT", "text", ("text", "json")),
            log_level=reader.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            console=reader.choice("CONSOLE", "1", ("0", "1")) == "1",
        )
        if reader.problems:
            raise SettingsError(reader.problems)
        return settings

    def printable(self) -> list[tuple[str, str]]:
        """Name and value of every setting, secrets masked."""
        return [(field.name.upper(), _shown(field.name, getattr(self, field.name))) for field in fields(self)]


class _Reader:
    """Collects problems instead of stopping at the first."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def read(self, name: str, default: str | None, parse: Callable[[str], T], *, empty_is_off: bool = False) -> T:
        """An unset or blank variable means the default, unless a blank one is a value of its own."""
        raw: str | None = self._environ.get(name, "").strip()
        if not raw and not (empty_is_off and name in self._environ):
            raw = default
        if raw is None:
            self.problem(f"{name} is required and not set")
            return None  # type: ignore[return-value]  # the problem stops the process before anyone looks
        try:
            return parse(raw)
        except ValueError as error:
            self.problem(f"{name}: {error}")
            return parse(default) if default else None  # type: ignore[return-value]

    def text(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        def parse(raw: str) -> str:
            for value in allowed:
                if raw.lower() == value.lower():
                    return value
            raise ValueError(f"{raw!r} is not one of {', '.join(allowed)}")

        return self.read(name, default, parse)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        def parse(raw: str) -> int:
            if not re.fullmatch(r"[0-9]{1,12}", raw) or not low <= int(raw) <= high:
                raise ValueError(f"{raw!r} is not a whole number from {low} to {high}")
            return int(raw)

        return self.read(name, str(default), parse)


def _redis_url(raw: str) -> Secret:
    scheme = raw.split("://", 1)[0] if "://" in raw else ""
    if scheme not in REDIS_SCHEMES:
        raise ValueError(f"must start with one of {', '.join(name + '://' for name in REDIS_SCHEMES)}")
    if scheme == "unix":
        return Secret(raw)
    if not urlsplit(raw).netloc:
        raise ValueError("names no host")
    if scheme == "redis+sentinel" and not re.search(r"/\d+/[\w.-]+$", urlsplit(raw).path):
        raise ValueError("must end in /DATABASE/NAME, as in redis+sentinel://h1:26379,h2:26379/0/mymaster")
    return Secret(raw)


def _database_url(raw: str) -> Secret:
    if "://" not in raw:
        raise ValueError("is not a SQLAlchemy URL, such as sqlite:///pushserver.db or postgresql+psycopg://…")
    return Secret(raw)


def _jwt_secrets(raw: str) -> tuple[Secret, ...]:
    secrets = _list(raw)
    for number, secret in enumerate(secrets, 1):
        if len(secret.encode()) < 32:
            raise ValueError(f"secret {number} has fewer than 32 bytes")
        if any(example in secret.lower() for example in COMMITTED_EXAMPLES):
            raise ValueError(f"secret {number} is an example value; make one with `openssl rand -hex 32`")
    return tuple(Secret(secret) for secret in secrets)


def _fernet_keys(raw: str) -> tuple[Secret, ...]:
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


def _web_url(raw: str) -> str:
    return _url(raw, "https", "http") if raw else ""


def _stream_url(raw: str) -> str:
    return _url(raw, "wss", "ws") if raw else ""


def _readable_file(raw: str) -> Path | None:
    if not raw:
        return None
    path = Path(raw)
    if not path.is_file():
        raise ValueError(f"{raw} is not a file")
    return path


def _markets(raw: str) -> tuple[Market, ...]:
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


def _intervals(raw: str) -> Mapping[DataType, float]:
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


def _identifier(raw: str) -> str:
    if not re.fullmatch(r"[\w.:-]{1,64}", raw):
        raise ValueError("takes letters, digits, . : _ - and at most 64 of them")
    return raw


def _address(raw: str) -> Address:
    host, separator, port = raw.rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError(f"{raw!r} is not HOST:PORT")
    return Address(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - an empty host means all addresses


def _origins(raw: str) -> tuple[str, ...] | None:
    """None = same origin. Never an empty tuple: Socket.IO reads an empty list as "check nothing"."""
    origins = tuple(item.strip().rstrip("/") for item in raw.split(",") if item.strip())
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[\w.\-\[\]:]+", origin):
            raise ValueError(f"{origin!r} is not an origin such as https://app.example.com")
    return origins or None


def _shown(name: str, value: object) -> str:
    if name in ("redis_url", "database_url") and isinstance(value, Secret):
        # Whatever stands before the last @ or behind the ? may be a password.
        return re.sub(r"\?.*", "?***", re.sub(r"//.*@", "//***@", value.reveal()))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={seconds:g}" for key, seconds in value.items())
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value)
