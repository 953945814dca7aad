"""The one table of what Bybit's refusals mean: whose problem, what we do, how long we wait, what the user is told.

Whose it is and what is done about it belong to the class of failure (``errors``); ``docs/exchange-answers.md`` shows
the table with both. Every refusal is counted, under its code and under whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pushserver.errors import (
    AddressBanned,
    AnswerMalformed,
    ClockSkew,
    ExchangeError,
    ExchangeUnavailable,
    KeyRefused,
    PermissionMissing,
    RateLimited,
    RequestRejected,
)

#: Bybit asks for ten minutes of silence after a ban.
BAN_S = 600.0
#: Limits are per rolling second: what to wait when the answer does not say.
UNTOLD_PAUSE_S = 1.0

BUSY = "The exchange is not answering properly at the moment."
REJECTED = "The exchange rejected our request."


@dataclass(frozen=True, slots=True)
class Meaning:
    """One line. ``signals``: Bybit's codes as numbers, anything else in words.

    ``message`` is for the user; ``quoted`` adds the exchange's own words, cleaned. ``wait_s``: for so long, unless the
    answer itself says (``hinted``); None leaves it to the back-off.
    """

    signals: tuple[int | str, ...]
    failure: type[ExchangeError]
    code: str
    message: str
    wait_s: float | None = None
    hinted: bool = False
    quoted: bool = False


CLOCK = Meaning((10002, -1), ClockSkew, "exchange_clock_skew", "The exchange refused the time of our request.")
RATE_LIMITED = Meaning(
    (10006,), RateLimited, "exchange_rate_limited", "Too many requests for this account; pausing briefly.",
    wait_s=UNTOLD_PAUSE_S, hinted=True,
)  # fmt: skip
WRONG_REQUEST = Meaning(
    (10001, 10014, 10017, "HTTP 400", "HTTP 404", "other HTTP 4xx"),
    RequestRejected, "exchange_request_rejected", REJECTED, quoted=True,
)  # fmt: skip
KEY_NOT_ACCEPTED = Meaning(
    ("HTTP 401, twice",), KeyRefused, "key_invalid", "The exchange did not accept the API key."
)  # fmt: skip
BANNED = Meaning(
    (10018, "HTTP 403, a line of text or JSON"),
    AddressBanned, "exchange_address_banned", "The exchange has paused requests from our address.", wait_s=BAN_S,
)  # fmt: skip
REGION_BLOCKED = Meaning(
    ("HTTP 403, a page",), AddressBanned, "exchange_region_blocked",
    "The exchange does not serve the region of our address.", wait_s=BAN_S,
)  # fmt: skip
BUSY_FOR_ALL = Meaning(
    (429, "HTTP 429"), ExchangeUnavailable, "exchange_unavailable", BUSY, hinted=True
)  # fmt: skip
UNAVAILABLE = Meaning(
    (10000, 10016, 10019, "HTTP 5xx", "no connection, or a cut one"), ExchangeUnavailable, "exchange_unavailable", BUSY
)  # fmt: skip
TIMEOUT = Meaning(
    ("no whole answer in time",), ExchangeUnavailable, "exchange_timeout", "The exchange did not answer in time."
)  # fmt: skip
REDIRECT = Meaning(
    ("HTTP 3xx",), ExchangeUnavailable, "exchange_redirect",
    "The exchange wanted to send us elsewhere, which we do not follow.",
)  # fmt: skip
UNUSABLE = Meaning(
    ("HTTP 200 without a usable envelope, row or figure", "any other HTTP status"),
    AnswerMalformed, "exchange_answer_malformed", "The exchange sent something unusable.",
)  # fmt: skip
AHEAD = Meaning(
    ("a stamp more than 5 s ahead of us",), AnswerMalformed, "exchange_time_ahead",
    "The exchange sent something unusable.",
)  # fmt: skip
UNKNOWN = Meaning(
    ("any other code",), ExchangeUnavailable, "exchange_unavailable",
    "The exchange answered with an unknown error.", quoted=True,
)  # fmt: skip


def _key(code: int, name: str, message: str, failure: type[KeyRefused] = KeyRefused) -> Meaning:
    return Meaning((code,), failure, name, message)


def _rejected(code: int, message: str) -> Meaning:
    return Meaning((code,), RequestRejected, "exchange_request_rejected", message, quoted=True)


EXPIRED = Meaning(
    (33004, -2015), KeyRefused, "key_expired", "The API key has expired. Renew it at the exchange."
)  # fmt: skip

#: In the order of Bybit's own list.
TABLE: tuple[Meaning, ...] = (
    CLOCK,
    _key(10003, "key_invalid", "The exchange does not know this API key. Enter a new one."),
    _key(10004, "key_signature", "The API secret does not match the API key. Enter both again."),
    _key(10005, "key_permission", "The API key lacks a permission to read this.", PermissionMissing),
    RATE_LIMITED,
    _key(10007, "key_invalid", "The exchange could not identify the user of this API key. Enter a new one."),
    _key(10008, "account_blocked", "The exchange has banned this account, or its mode does not allow reading it."),
    _key(10009, "account_blocked", "The exchange does not serve this account's region."),
    _key(10024, "account_blocked", "The exchange has closed this product to the account for compliance reasons."),
    _key(10027, "account_blocked", "The exchange has banned this account from trading."),
    _key(10010, "key_ip_not_allowed", "The API key does not allow our server's address. Add it at the exchange."),
    UNAVAILABLE,
    BANNED,
    REGION_BLOCKED,
    _rejected(10029, "The exchange does not allow this symbol for the API key."),
    WRONG_REQUEST,
    _rejected(10028, "The exchange answers this only for unified accounts. Upgrade the account there."),
    _rejected(10032, "The exchange does not answer this in demo trading."),
    _rejected(100028, "The exchange does not answer this for unified accounts."),
    EXPIRED,
    KEY_NOT_ACCEPTED,
    BUSY_FOR_ALL,
    TIMEOUT,
    REDIRECT,
    UNUSABLE,
    AHEAD,
    UNKNOWN,
)

#: The line of each code; a code without one is ``UNKNOWN``.
MEANINGS: Mapping[int, Meaning] = {
    signal: meaning for meaning in TABLE for signal in meaning.signals if isinstance(signal, int)
}
