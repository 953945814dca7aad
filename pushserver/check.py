"""``python -m pushserver check``: asks every dependency once and says what it found, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from pushserver.accounts.store import AccountStore
from pushserver.bus.connection import REDIS_FAILURES, connect
from pushserver.clock import Clock
from pushserver.errors import PushserverError
from pushserver.exchange.bybit import BybitExchange
from pushserver.model import Proxy
from pushserver.observers import Observer
from pushserver.settings import Settings

EXCHANGE_TIMEOUT_S = 5.0
#: The exchange refuses requests that are dated more than a second ahead.
MAX_CLOCK_OFFSET_S = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name}: {self.detail}"


def findings(settings: Settings, clock: Clock) -> Iterator[Finding]:
    """One finding per dependency, in the order in which a process needs them."""
    yield Finding("settings", True, "; WARNING: ".join(["all values are good", *settings.warnings()]))
    yield _examined("redis", lambda: _redis(settings))
    yield _examined("database", lambda: _database(settings, clock))
    for proxy in settings.egress_proxies or (None,):
        name = "exchange clock" if proxy is None else f"exchange clock through {proxy}"
        yield _examined(name, partial(_exchange_clock, settings, proxy, clock))


def _examined(name: str, examine: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, examine())
    except PushserverError as error:
        return Finding(name, False, error.message)
    except (OSError, ValueError, RecursionError) as error:
        return Finding(name, False, f"no usable answer ({type(error).__name__})")


def _redis(settings: Settings) -> str:
    client = connect(settings.redis_url)
    try:
        client.ping()
        version = client.info("server").get("redis_version", "unknown")
    except REDIS_FAILURES as error:
        raise PushserverError(f"does not answer ({type(error).__name__})") from None
    finally:
        client.close()
    if int(version.split(".")[0]) < 7:
        raise PushserverError(f"version {version} has no sharded channels; 7.0 or newer is needed")
    return f"answers, version {version}"


def _database(settings: Settings, clock: Clock) -> str:
    accounts = AccountStore.open(settings.database_url, settings.credentials_keys, clock)
    try:
        found, needed = accounts.revision()
        if found is None:
            return "answers, still empty: the first `users add` creates the schema"
        if found != needed:
            raise PushserverError(f"schema is at {found}, {needed} is needed: any `users add` upgrades it")
        return f"answers, schema {found}, {len(accounts.users())} users"
    finally:
        accounts.close()


def _exchange_clock(settings: Settings, proxy: Proxy | None, clock: Clock) -> str:
    exchange = BybitExchange(settings.bybit_rest_url, (), clock, Observer(), proxy=proxy)
    before_ms = clock.wall_ms()
    try:
        server_ms = exchange.server_time_ms(clock.monotonic_s() + EXCHANGE_TIMEOUT_S)
    finally:
        exchange.close()
    after_ms = clock.wall_ms()
    offset_s = (server_ms - (before_ms + after_ms) / 2) / 1000
    if abs(offset_s) > MAX_CLOCK_OFFSET_S:
        raise PushserverError(f"this machine's clock is {offset_s:+.1f} s off the exchange's")
    return f"answers in {after_ms - before_ms} ms, {offset_s:+.3f} s from this machine's clock"
