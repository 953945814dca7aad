"""Refusals by Bybit's own numbers: the texts it sends with them."""

from __future__ import annotations

UNKNOWN_KEY = 10003
BAD_TIMESTAMP = 10002
BAD_SIGNATURE = 10004
BAD_PARAMETER = 10001
PERMISSION_DENIED = 10005
TOO_MANY_VISITS = 10006
ADDRESS_NOT_ALLOWED = 10010
KEY_EXPIRED = 33004

MESSAGES = {
    10000: "Server Timeout",
    BAD_PARAMETER: "params error",
    BAD_TIMESTAMP: "invalid request, please check your server timestamp or recv_window param",
    UNKNOWN_KEY: "API key is invalid.",
    BAD_SIGNATURE: "error sign! please check your signature generation algorithm.",
    PERMISSION_DENIED: "Permission denied, please check your API key permissions.",
    TOO_MANY_VISITS: "Too many visits. Exceeded the API Rate Limit.",
    ADDRESS_NOT_ALLOWED: "Unmatched IP, please check your API key's bound IP addresses.",
    10016: "System error. Please try again later.",
    KEY_EXPIRED: "Your api key has expired.",
}


class Refusal(Exception):
    """The request is answered with ``retCode`` ``code`` in an ordinary HTTP 200."""

    def __init__(self, code: int, message: str = "") -> None:
        self.code = code
        self.message = message or MESSAGES.get(code, "error")
        super().__init__(f"{code} {self.message}")


class Unauthorized(Exception):
    """Authentication headers are missing: HTTP 401 with an empty body."""
