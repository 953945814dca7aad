"""The environment, read once and checked whole: every problem is reported at the same time.

Only composition roots import this; the parts receive the few values they need.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TypeVar

from pushserver import setting_values as values
from pushserver.errors import SettingsError
from pushserver.limits import Limits
from pushserver.model import DataType, Market, Proxy, Secret, TrustedPeer
from pushserver.redis_exposure import redis_exposures
from pushserver.setting_values import DEFAULT_INTERVALS, Address

__all__ = ["DEFAULT_INTERVALS", "Address", "Settings"]

T = TypeVar("T")

JWT_ALGORITHMS = ("HS256", "RS256", "ES256")


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of contract section 2 (field ``redis_url`` is ``REDIS_URL`` and so on), and the limits."""

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
    bybit_stream_connects_per_5min: int
    max_streams_per_worker: int
    reconcile_s: int
    egress_id: str
    egress_proxies: tuple[Proxy | None, ...]
    worker_concurrency: int
    web_concurrency: int
    drain_s: int
    bind: Address
    web_metrics_bind: Address
    worker_metrics_bind: Address
    cors_origins: tuple[str, ...] | None
    trusted_proxies: tuple[TrustedPeer, ...]
    log_format: str
    log_level: str
    console: bool
    #: The production profile: what is unwise ends the process at start, as what is wrong does.
    strict: bool
    limits: Limits

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read and check everything.

        Raises:
            SettingsError: with one line per problem.
        """
        reader = _Reader(os.environ if environ is None else environ)
        algorithm = reader.choice("JWT_ALGORITHM", "HS256", JWT_ALGORITHMS)
        jwks_url = reader.read("JWT_JWKS_URL", "", values.web_url) or None
        public_key = reader.read("JWT_PUBLIC_KEY_FILE", "", partial(values.public_key_file, algorithm=algorithm))
        if algorithm != "HS256" and not reader.text("JWT_JWKS_URL") and not reader.text("JWT_PUBLIC_KEY_FILE"):
            reader.problem(f"JWT_ALGORITHM={algorithm} needs JWT_JWKS_URL or JWT_PUBLIC_KEY_FILE")
        settings = cls(
            redis_url=reader.read("REDIS_URL", "redis://127.0.0.1:6379/0", values.redis_url),
            database_url=reader.read("DATABASE_URL", "sqlite:///pushserver.db", values.database_url),
            jwt_secrets=reader.read("JWT_SECRETS", None, values.jwt_secrets),
            jwt_algorithm=algorithm,
            jwt_jwks_url=jwks_url,
            jwt_public_key_file=public_key,
            jwt_issuer=reader.text("JWT_ISSUER"),
            jwt_audience=reader.text("JWT_AUDIENCE"),
            jwt_ttl_s=reader.integer("JWT_TTL_S", 3600, 1, 86_400),
            credentials_keys=reader.read("CREDENTIALS_KEYS", None, values.fernet_keys),
            bybit_rest_url=reader.read("BYBIT_REST_URL", "https://api.bybit.com", values.web_url).rstrip("/"),
            bybit_stream_url=reader.read(
                "BYBIT_STREAM_URL", "wss://stream.bybit.com/v5/private", values.stream_url, empty_is_off=True
            ),
            bybit_ticker_url=reader.read(
                "BYBIT_TICKER_URL", "wss://stream.bybit.com/v5/public/linear", values.stream_url, empty_is_off=True
            ),
            bybit_markets=reader.read("BYBIT_MARKETS", "linear:USDT", values.markets),
            push_intervals=reader.read("PUSH_INTERVALS", "", values.intervals),
            bybit_ip_requests_per_5s=reader.integer("BYBIT_IP_REQUESTS_PER_5S", 480, 10, 600),
            bybit_stream_connects_per_5min=reader.integer("BYBIT_STREAM_CONNECTS_PER_5MIN", 400, 10, 500),
            max_streams_per_worker=reader.integer("MAX_STREAMS_PER_WORKER", 1_000, 0, 20_000),
            reconcile_s=reader.integer("RECONCILE_S", 60, 5, 600),
            egress_id=reader.read("EGRESS_ID", socket.gethostname(), values.identifier),
            egress_proxies=reader.read("EGRESS_PROXIES", "", values.proxies),
            worker_concurrency=reader.integer("WORKER_CONCURRENCY", 100, 1, 10_000),
            web_concurrency=reader.integer("WEB_CONCURRENCY", 2, 1, 512),
            drain_s=reader.integer("DRAIN_S", 10, 0, 600),
            bind=reader.read("BIND", "0.0.0.0:5000", values.address),
            web_metrics_bind=reader.read("WEB_METRICS_BIND", "127.0.0.1:9101", values.address),
            worker_metrics_bind=reader.read("WORKER_METRICS_BIND", "127.0.0.1:9102", values.address),
            cors_origins=reader.read("CORS_ORIGINS", "", values.origins),
            trusted_proxies=reader.read("TRUSTED_PROXIES", "", values.trusted_peers),
            log_format=reader.choice("LOG_FORMAT", "text", ("text", "json")),
            log_level=reader.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
            console=reader.choice("CONSOLE", "1", ("0", "1")) == "1",
            strict=reader.choice("STRICT", "0", ("0", "1")) == "1",
            limits=_limits(reader),
        )
        if reader.problems:
            raise SettingsError(reader.problems)
        if settings.strict and settings.warnings():
            raise SettingsError([f"{warning} (refused because of STRICT=1)" for warning in settings.warnings()])
        return settings

    def warnings(self) -> list[str]:
        """What is allowed and still unwise, one line each; said at start-up and by ``check``."""
        found = redis_exposures(self.redis_url)
        if "*" in (self.cors_origins or ()):
            found.append("CORS_ORIGINS is *: a page of any site may connect")
        return found

    def printable(self) -> list[tuple[str, str]]:
        """Name and value of every setting, secrets masked."""
        own = [(field.name, getattr(self, field.name)) for field in fields(self) if field.name != "limits"]
        limits = [(field.name, getattr(self.limits, field.name)) for field in fields(Limits)]
        return [(name.upper(), _shown(name, value)) for name, value in own + limits]


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


def _limits(reader: _Reader) -> Limits:
    """Each limit is a setting of its own."""
    return Limits(
        **{
            field.name: reader.integer(
                field.name.upper(), int(str(field.default)), field.metadata["low"], field.metadata["high"]
            )
            for field in fields(Limits)
        }
    )


def _shown(name: str, value: object) -> str:
    if name in ("redis_url", "database_url") and isinstance(value, Secret):
        # Whatever stands before the last @ or behind the ? may be a password.
        return re.sub(r"\?.*", "?***", re.sub(r"//.*@", "//***@", value.reveal()))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={seconds:g}" for key, seconds in value.items())
    if isinstance(value, tuple):
        return ",".join("direct" if item is None else str(item) for item in value)
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value)
