"""Mark prices as the public ticker sends them: first a snapshot, then what changed; pure.

Nothing that arrives can make this raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from pushserver.exchange.bybit_errors import cleaned

PREFIX = "tickers."


@dataclass(frozen=True, slots=True)
class Price:
    """A symbol was told of. ``mark`` None: it did not change. ``as_of_ms`` is the exchange's stamp."""

    symbol: str
    is_snapshot: bool
    mark: Decimal | None
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Some subscription was refused."""

    text: str


def read(raw: bytes) -> Price | Refusal | None:
    """None for whatever else there is: pongs, confirmations, nonsense."""
    try:
        fields = orjson.loads(raw)
    except ValueError:
        return None
    if not isinstance(fields, dict):
        return None
    topic = fields.get("topic")
    if isinstance(topic, str):
        return _price(topic, fields)
    if fields.get("success") is False:
        return Refusal(cleaned(fields.get("ret_msg")))
    return None


def _price(topic: str, fields: dict[str, Any]) -> Price | None:
    data, stamp = fields.get("data"), fields.get("ts")
    if not topic.startswith(PREFIX) or not isinstance(data, dict) or type(stamp) is not int or stamp <= 0:
        return None
    mark: Decimal | None = None
    if "markPrice" in data:
        mark = _decimal(data["markPrice"])
        if mark is None:
            return None
    return Price(topic.removeprefix(PREFIX), fields.get("type") == "snapshot", mark, stamp)


def _decimal(value: object) -> Decimal | None:
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None
