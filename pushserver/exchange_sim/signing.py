"""Who is asking: the signature headers, checked as Bybit checks them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from pushserver.exchange_sim import refusals
from pushserver.exchange_sim.accounts import ApiKey
from pushserver.exchange_sim.refusals import Refusal, Unauthorized

DEFAULT_RECV_WINDOW_MS = 5000

#: How far ahead of the server's clock a timestamp may be; a larger receive window does not help there.
EARLY_TOLERANCE_MS = 1000


def signature(secret: str, timestamp: str, api_key: str, recv_window: str, query: str) -> str:
    """Lower-case hex HMAC-SHA256 over timestamp + key + window + the bytes after ``?`` exactly as sent."""
    return hmac.new(
        secret.encode(), f"{timestamp}{api_key}{recv_window}{query}".encode("latin-1"), hashlib.sha256
    ).hexdigest()


def authenticate(
    headers: Mapping[str, str], query: str, address: str, keys: Mapping[str, ApiKey], now_ms: int
) -> ApiKey:
    """The key that signed the request; header names in lower case.

    Raises Unauthorized without the headers, else Refusal 10003 (key), 10002 (time), 10004 (signature), 33004 (expired)
    or 10010 (address).
    """
    api_key = headers.get("x-bapi-api-key", "")
    timestamp = headers.get("x-bapi-timestamp", "")
    signed = headers.get("x-bapi-sign", "")
    recv_window = headers.get("x-bapi-recv-window", "")
    if not (api_key and timestamp and signed):
        raise Unauthorized
    key = keys.get(api_key)
    if key is None:
        raise Refusal(refusals.UNKNOWN_KEY)
    check_time(timestamp, recv_window, now_ms)
    expected = signature(key.secret, timestamp, api_key, recv_window, query)
    if not hmac.compare_digest(expected.encode(), signed.encode("latin-1")):
        origin = f"{timestamp}{api_key}{recv_window}{query}"
        raise Refusal(refusals.BAD_SIGNATURE, f"error sign! origin_string[{origin}]")
    if key.expires_ms is not None and now_ms >= key.expires_ms:
        raise Refusal(refusals.KEY_EXPIRED)
    if key.ips and address not in key.ips:
        raise Refusal(refusals.ADDRESS_NOT_ALLOWED)
    return key


def check_time(timestamp: str, recv_window: str, now_ms: int) -> None:
    window = recv_window or str(DEFAULT_RECV_WINDOW_MS)
    digits = timestamp.isascii() and timestamp.isdigit() and window.isascii() and window.isdigit()
    if not digits or not now_ms - int(window) <= int(timestamp) < now_ms + EARLY_TOLERANCE_MS:
        text = refusals.MESSAGES[refusals.BAD_TIMESTAMP]
        raise Refusal(
            refusals.BAD_TIMESTAMP,
            f"{text}. req_timestamp[{timestamp}],server_timestamp[{now_ms}],recv_window[{window}]",
        )
