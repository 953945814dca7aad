"""What every process is told about accounts and tokens: a few lines of JSON on one channel.

A signal may be lost; each is backed by a second path (the web workers' own re-check, the push workers' cache
times), so it only makes things quick.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from pushserver.bus import keys
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.model import MAX_USER_ID

#: Nothing longer is one of ours.
MAX_SIGNAL_BYTES = 512

TOKEN_HASH_PATTERN = re.compile(r"[0-9a-f]{32}")


class SignalKind(StrEnum):
    KEY_CHANGED = "key_changed"
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a code, not a password
    TOKENS_REVOKED = "tokens_revoked"
    USER_DISABLED = "user_disabled"
    USER_ENABLED = "user_enabled"
    HEALTH_CHANGED = "health_changed"


@dataclass(frozen=True, slots=True)
class Signal:
    """``token_id`` is the hashed id (``hashed_token_id``) of a revoked token or token family, else None."""

    kind: SignalKind
    user_id: int
    token_id: str | None = None


def publish(client: Any, signal: Signal) -> None:
    """Tell every process that listens now. Raises StoreUnavailable."""
    message = orjson.dumps({"kind": signal.kind.value, "user_id": signal.user_id, "token_id": signal.token_id})
    try:
        client.publish(keys.SIGNALS_CHANNEL, message)
    except REDIS_FAILURES as error:
        raise unavailable(error) from error


def parse(message: bytes) -> Signal | None:
    """The signal in a message, or None: anybody who reaches Redis can publish anything."""
    if len(message) > MAX_SIGNAL_BYTES:
        return None
    try:
        fields = orjson.loads(message)
        kind = SignalKind(fields["kind"])
        user_id, token_id = fields["user_id"], fields.get("token_id")
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if type(user_id) is not int or not 1 <= user_id <= MAX_USER_ID:
        return None
    if token_id is not None and not (isinstance(token_id, str) and TOKEN_HASH_PATTERN.fullmatch(token_id)):
        return None
    if (token_id is not None) != (kind is SignalKind.TOKEN_REVOKED):
        return None
    return Signal(kind, user_id, token_id)
