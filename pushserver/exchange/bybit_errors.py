"""How an answer is judged from its raw bytes; what each refusal means is in ``answers_table``.

Judged here and not by pybit, whose exceptions lose the code, the headers or the body on the way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pushserver.errors import AnswerMalformed, ExchangeError
from pushserver.exchange.answers_table import (
    BAN_S,
    BANNED,
    BUSY_FOR_ALL,
    KEY_NOT_ACCEPTED,
    MEANINGS,
    RATE_LIMITED,
    REDIRECT,
    REGION_BLOCKED,
    UNAVAILABLE,
    UNKNOWN,
    UNTOLD_PAUSE_S,
    UNUSABLE,
    WRONG_REQUEST,
    Meaning,
)
from pushserver.exchange.port import Endpoint

#: Bounds within which a hint of the exchange is believed.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 60.0
#: Docs of 2024 spoke of half an hour.
LONGEST_BAN_S = 3_600.0
LONGEST_TEXT = 120
RESET_HEADER = "x-bapi-limit-reset-timestamp"
REMAINING_HEADER = "x-bapi-limit-status"
PUBLIC = frozenset({Endpoint.SERVER_TIME, Endpoint.TICKERS})


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One HTTP answer; header names in lower case, ``body`` decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def envelope_of(endpoint: Endpoint, raw: RawAnswer, server_now_ms: int) -> Mapping[str, Any]:
    """The parsed envelope of a successful answer (``retCode`` 0); ``server_now_ms`` turns a reset stamp into a wait.

    Raises:
        ExchangeError: any other answer, as the class and code its raw bytes stand for.
    """
    if raw.status != 200:
        raise _by_status(endpoint, raw, server_now_ms)
    body = _parsed(raw.body)
    if not isinstance(body, dict):
        raise _malformed(endpoint, "the answer is no JSON object")
    code = ret_code_of(body)
    if code is None:
        raise _malformed(endpoint, "the answer holds no usable code")
    if code:
        raise _by_code(endpoint, code, body, raw.headers, server_now_ms)
    if type(body.get("retCode")) is not int:
        raise _malformed(endpoint, "the answer is not in the form of this API version")
    return body


def allowance_of(headers: Mapping[str, str], server_now_ms: int) -> tuple[int | None, float]:
    """How many more requests the user may make at the endpoint just asked (None: not said), and when again if none."""
    written = headers.get(REMAINING_HEADER, "").strip()
    remaining = int(written) if re.fullmatch(r"[0-9]{1,9}", written) else None
    return remaining, 0.0 if remaining != 0 else _reset_in_s(headers, server_now_ms)


def ret_code_of(body: Mapping[str, Any]) -> int | None:
    """The code whether it came as a number or as text, under today's name or the older one; None without one."""
    value = body.get("retCode", body.get("ret_code"))
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return int(value)
    return value if type(value) is int else None


def time_of(body: object) -> int | None:
    """The envelope's stamp in Unix ms where it is one."""
    value = body.get("time") if isinstance(body, Mapping) else None
    return value if type(value) is int and 0 < value < 10**14 else None


def cleaned(text: object) -> str:
    """The exchange's words made fit for a log line and a phone: short, printable, without anything like a key."""
    if not isinstance(text, str):
        return ""
    printable = "".join(character if character.isprintable() else " " for character in text[: 10 * LONGEST_TEXT])
    # Refused signatures come back with the string to sign in brackets, API key and query included.
    shown = re.sub(r"\[[^\]]*(?:\]|$)|[0-9A-Za-z+/=_-]{18,}", "…", printable)
    return " ".join(shown.split())[:LONGEST_TEXT]


def _by_status(endpoint: Endpoint, raw: RawAnswer, server_now_ms: int) -> ExchangeError:
    status = raw.status
    if status == 403:
        return _failure(_meaning_of_403(raw), endpoint, status, _ban_s(raw.headers))
    if status == 401 and endpoint not in PUBLIC:
        return _failure(KEY_NOT_ACCEPTED, endpoint, status)
    if status == 429:
        return _failure(BUSY_FOR_ALL, endpoint, status, retry_after_s=_retry_after_s(raw.headers))
    if 300 <= status < 400:
        return _failure(REDIRECT, endpoint, status)
    if 400 <= status < 500:
        body = _parsed(raw.body)
        code = ret_code_of(body) if isinstance(body, dict) else None
        if isinstance(body, dict) and code is not None and code in MEANINGS:
            return _by_code(endpoint, code, body, raw.headers, server_now_ms)
        return _failure(WRONG_REQUEST if endpoint not in PUBLIC else UNAVAILABLE, endpoint, status)
    if status >= 500:
        return _failure(UNAVAILABLE, endpoint, status, _retry_after_s(raw.headers))
    return _malformed(endpoint, "the answer has a status without meaning here", status)


def _meaning_of_403(raw: RawAnswer) -> Meaning:
    """Too many requests are answered with a line of text or JSON, a region that is not served with a page."""
    text = raw.body[:65_536].decode("utf-8", "replace").lower()
    is_page = "html" in raw.headers.get("content-type", "") or text.lstrip().startswith("<")
    return REGION_BLOCKED if is_page and "access too frequent" not in text else BANNED


def _by_code(
    endpoint: Endpoint, code: int, body: Mapping[str, Any], headers: Mapping[str, str], server_now_ms: int
) -> ExchangeError:  # fmt: skip
    meaning = MEANINGS.get(code, UNKNOWN)
    retry_after_s = _reset_in_s(headers, server_now_ms) if meaning is RATE_LIMITED else None
    return _failure(meaning, endpoint, code, retry_after_s, cleaned(body.get("retMsg", body.get("ret_msg"))))


def _failure(
    meaning: Meaning, endpoint: Endpoint, exchange_code: int, retry_after_s: float | None = None, quote: str = ""
) -> ExchangeError:  # fmt: skip
    message = f"{meaning.message} ({quote})" if meaning.quoted and quote else meaning.message
    return meaning.failure(
        message,
        code=meaning.code,
        endpoint=endpoint.value,
        exchange_code=exchange_code,
        retry_after_s=meaning.wait_s if retry_after_s is None else retry_after_s,
    )


def _malformed(endpoint: Endpoint, what: str, exchange_code: int | None = 200) -> AnswerMalformed:
    return AnswerMalformed(
        f"{UNUSABLE.message.rstrip('.')}: {what}.", endpoint=endpoint.value, exchange_code=exchange_code
    )


def _parsed(body: bytes) -> object:
    """The JSON value; None for what is no JSON, which NaN, Infinity and half documents are not."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _reset_in_s(headers: Mapping[str, str], server_now_ms: int) -> float:
    stamp = headers.get(RESET_HEADER, "").strip()
    if not re.fullmatch(r"[0-9]{1,16}", stamp):
        return UNTOLD_PAUSE_S
    return _within_bounds((int(stamp) - server_now_ms) / 1000)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    seconds = _retry_after(headers)
    return None if seconds is None else _within_bounds(seconds)


def _ban_s(headers: Mapping[str, str]) -> float:
    """A ban may be told to be longer than usual, never shorter."""
    return min(max(_retry_after(headers) or 0.0, BAN_S), LONGEST_BAN_S)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    seconds = headers.get("retry-after", "").strip()
    return float(seconds) if re.fullmatch(r"[0-9]{1,9}", seconds) else None


def _within_bounds(seconds: float) -> float:
    return min(max(seconds, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)
