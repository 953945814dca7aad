"""A request as it came in and an answer as it is to go out, with what may go wrong with it on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

JSON_TYPE = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Request:
    """``path`` and ``query`` are the bytes of the request line as text (latin-1), untouched; headers in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    address: str


@dataclass(slots=True)
class Answer:
    """``payload`` becomes JSON unless ``raw`` is set. The remaining fields tell how it is delivered."""

    status: int = 200
    payload: Any = None
    raw: bytes | None = None
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0  # wait before the first byte
    hang_s: float | None = None  # say nothing for so long, then close
    bytes_per_s: float | None = None  # drip the body
    send_only: int | None = None  # close after so many bytes of the body, whatever Content-Length says
    cut_at_once: bool = False  # reset the connection instead of answering

    def body(self) -> bytes:
        return orjson.dumps(self.payload) if self.raw is None else self.raw
