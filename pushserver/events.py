"""The wire form of what the server sends (contract section 4).

An update is encoded once by the push worker that commits it. Its ``seq`` is only known inside the commit script,
so an encoded update comes in two halves and the script puts the number between them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import orjson

from pushserver.model import AccountData, DataType, Freshness

#: Names of the events a client may send; anything else is answered with ``unknown_event``.
CLIENT_EVENTS = frozenset({"subscribe_trading", "unsubscribe_trading", "authenticate", "resync", "whoami"})


@dataclass(frozen=True, slots=True)
class EncodedUpdate:
    """One state of one type, ready but for its ``seq``.

    ``head + str(seq) + tail`` is a complete Engine.IO text message holding a Socket.IO event packet; the commit puts a
    later ``as_of`` into ``tail`` where phones have seen one already.
    ``digest`` covers the data alone, so equal data at another time has an equal digest.
    """

    digest: str
    head: bytes
    tail: bytes


def json_number(value: object) -> float:
    """Decimal to a JSON number; the one place where money leaves Decimal."""
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError("only finite numbers go on the wire")
        return float(value)
    raise TypeError(f"{type(value).__name__} has no wire form")


def utc_seconds(wall_ms: int) -> str:
    """``2025-11-10T09:00:00``: UTC, whole seconds, no suffix."""
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def utc_instant(wall_ms: int) -> str:
    """ISO 8601 with a ``Z``, for expiry times and ``until``."""
    return utc_seconds(wall_ms) + "Z"


def encode_data(data: AccountData) -> bytes:
    """The ``data`` field as canonical JSON: field order of the contract, rows in the order given."""
    return orjson.dumps(data, default=json_number)


def encode_update(data_type: DataType, user_id: int, data: AccountData, as_of_ms: int, now_ms: int) -> EncodedUpdate:
    """An update event in the two halves around its ``seq``."""
    body = encode_data(data)
    name = f"{data_type.value}_update"
    head = (
        b'42["' + name.encode() + b'",{"type":"' + name.encode() + b'","data":' + body
        + b',"timestamp":"' + utc_seconds(now_ms).encode() + b'","user_id":' + str(user_id).encode() + b',"seq":'
    )  # fmt: skip
    tail = b',"as_of":' + str(as_of_ms).encode() + b"}]"
    return EncodedUpdate(hashlib.blake2b(body, digest_size=16).hexdigest(), head, tail)


def encode_event(name: str, payload: object) -> bytes:
    """Any other event as a complete Engine.IO text message."""
    return b"42" + orjson.dumps([name, payload], default=json_number)


def encode_status(
    data_type: DataType, state: Freshness, reason: str, message: str, until_ms: int | None = None
) -> bytes:
    """A ``status_update`` message; ``reason`` is a stable code, ``message`` is for the person."""
    payload = {
        "type": data_type.value,
        "state": state.value,
        "reason": reason,
        "message": message,
        "until": None if until_ms is None else utc_instant(until_ms),
    }
    return encode_event("status_update", payload)


def error_payload(code: str, message: str, retryable: bool = False, **more: object) -> dict[str, object]:
    """The body of an ``error`` event."""
    return {"code": code, "message": message, "retryable": retryable, **more}
