"""What the exchange says on a private stream, read; pure. Nothing that arrives can make this raise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from pushserver.exchange.bybit_errors import cleaned

MAX_ROWS = 1_000


class Topic(StrEnum):
    POSITION = "position"
    ORDER = "order"
    WALLET = "wallet"
    EXECUTION = "execution"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something changed in the account. ``rows`` as sent; ``message_id`` blank when there was none."""

    topic: Topic
    message_id: str
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """To ``operation`` (``auth``, ``subscribe`` or blank when it does not say). ``text`` is the exchange's reason."""

    operation: str
    succeeded: bool
    text: str


@dataclass(frozen=True, slots=True)
class Pong:
    pass


class Oddity(StrEnum):
    """Input that means nothing to us; a label of metrics."""

    MALFORMED = "malformed"
    FOREIGN_TOPIC = "foreign_topic"
    EARLY = "early"
    DUPLICATE = "duplicate"


Message = Happening | Reply | Pong | Oddity


def read(raw: bytes) -> Message:
    try:
        fields = orjson.loads(raw)
    except ValueError:
        return Oddity.MALFORMED
    if not isinstance(fields, dict):
        return Oddity.MALFORMED
    if "topic" in fields:
        return _happening(fields)
    operation = fields.get("op", "")
    if operation in ("pong", "ping"):
        return Pong()
    succeeded = fields.get("success")
    if not isinstance(succeeded, bool) or not isinstance(operation, str):
        return Oddity.MALFORMED
    return Reply(operation, succeeded, cleaned(fields.get("ret_msg")))


def _happening(fields: dict[str, Any]) -> Happening | Oddity:
    topic, rows, message_id = fields["topic"], fields.get("data"), fields.get("id", "")
    if not isinstance(topic, str) or not isinstance(rows, list) or len(rows) > MAX_ROWS:
        return Oddity.MALFORMED
    if not all(isinstance(row, dict) for row in rows):
        return Oddity.MALFORMED
    try:
        # ``position.linear`` is ``position`` for one category.
        known = Topic(topic.partition(".")[0])
    except ValueError:
        return Oddity.FOREIGN_TOPIC
    return Happening(known, message_id[:100] if isinstance(message_id, str) else "", tuple(rows))
