"""What is known of each user's exchange key, for the phones: stored when it was asked, announced when it changed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pushserver.bus import keys, scripts, signals
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.bus.key_counts import KeyCounts
from pushserver.bus.signals import Signal, SignalKind
from pushserver.events import utc_instant
from pushserver.feeds.key_health import AccountHealth, HealthState

logger = logging.getLogger(__name__)

#: Every watched key is checked daily; what was not checked for so long says nothing any more.
HEALTH_TTL_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class StoredHealth:
    """``digest`` is equal as long as there is nothing new to tell; ``payload`` is that of ``account_health``."""

    key_version: int
    digest: str
    checked_ms: int
    payload: dict[str, Any]

    @property
    def is_ok(self) -> bool:
        return bool(self.payload["state"] == HealthState.OK.value)


class HealthStore:
    """All methods raise StoreUnavailable when Redis does not answer in time."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._store = scripts.load(client, "health")
        self._counts = KeyCounts(client)

    def record(self, user_id: int, key_version: int, health: AccountHealth, checked_ms: int) -> bool:
        """Keep the newest judgement on a user's key; True when it was news, which every process is told then.

        One on a key that was replaced meanwhile changes nothing. ``checked_ms`` is the wall clock's.
        """
        payload = _payload(user_id, health)
        arguments = [key_version, _digest(health), orjson.dumps(payload), checked_ms, HEALTH_TTL_S]
        try:
            news = int(self._store([keys.health(user_id)], arguments))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        if news >= 0:
            self._counts.count(user_id, health)
        if news > 0:
            signals.publish(self._client, Signal(SignalKind.HEALTH_CHANGED, user_id))
        return news > 0

    def forget(self, user_id: int) -> None:
        """The user has no key any more."""
        try:
            known = self._client.delete(keys.health(user_id))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        self._counts.forget(user_id)
        if known:
            signals.publish(self._client, Signal(SignalKind.HEALTH_CHANGED, user_id))

    def read(self, user_ids: Sequence[int]) -> list[StoredHealth | None]:
        """In the order asked, None where nothing is known; one round trip."""
        try:
            pipeline = self._client.pipeline(transaction=False)
            for user_id in user_ids:
                pipeline.hmget(keys.health(user_id), "version", "digest", "checked", "body")
            return [_stored(row) for row in pipeline.execute()]
        except REDIS_FAILURES as error:
            raise unavailable(error) from error


def nothing_known(user_id: int) -> dict[str, Any]:
    """The payload for a user whose key is gone: what was told of it holds no more."""
    return _payload(user_id, AccountHealth(HealthState.OK)) | {"checked_at": None}


def _payload(user_id: int, health: AccountHealth) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "state": health.state.value,
        "problems": [
            {"code": problem.code, "message": problem.message, "until": _instant(problem.until_s)}
            for problem in health.problems
        ],
        "expires_at": _instant(health.expires_s),
        "days_left": health.days_left,
        "read_only": health.read_only,
        "ip_bound": health.ip_bound,
    }


def _instant(unix_s: int | None) -> str | None:
    return None if unix_s is None else utc_instant(unix_s * 1000)


def _digest(health: AccountHealth) -> str:
    """Of what a person would call news: not of the days that pass while there are plenty."""
    codes = [(problem.code, problem.message) for problem in health.problems]
    news = [health.state.value, codes, health.expires_s, health.read_only, health.ip_bound]
    return hashlib.blake2b(orjson.dumps(news), digest_size=16).hexdigest()


def _stored(row: list[bytes | None]) -> StoredHealth | None:
    version, digest, checked, body = row
    if version is None or digest is None or checked is None or body is None:
        return None
    try:
        checked_ms = int(checked)
        payload = orjson.loads(body) | {"checked_at": utc_instant(checked_ms)}
        return StoredHealth(int(version), digest.decode(), checked_ms, payload)
    except (ValueError, TypeError, OverflowError, OSError):
        # One damaged row must not keep the others from being read; the next check puts it right.
        logger.warning("a stored key health is damaged and counts as missing")
        return None
