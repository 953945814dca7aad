"""Every error of the HTTP side as ``{"error": {"code", "message"}}``, whoever raises it."""

from __future__ import annotations

import logging
import math

from flask import Flask, Response, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from pushserver.errors import (
    AccountRefused,
    AddressBanned,
    ExchangeError,
    ExchangeUnavailable,
    KeyRefused,
    OverCapacity,
    PayloadRefused,
    PushserverError,
    RateLimited,
    StoreUnavailable,
    TokenRefused,
)

logger = logging.getLogger(__name__)

#: How soon a client may come back to a server that lost one of its own parts.
RETRY_AFTER_S = 2.0

#: Status of each failure of ours; the first class that matches counts.
STATUSES: tuple[tuple[type[PushserverError], int], ...] = (
    (PayloadRefused, 400),
    (TokenRefused, 401),
    (AccountRefused, 400),
    (OverCapacity, 429),
    (StoreUnavailable, 503),
    (KeyRefused, 422),
    (RateLimited, 503),
    (AddressBanned, 503),
    (ExchangeUnavailable, 503),
    (ExchangeError, 502),
)
#: Where the code says more than the class.
STATUS_BY_CODE = {"server_busy": 503, "unknown_user": 404, "no_exchange_key": 404, "tokens_issued_elsewhere": 501}

HTTP_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "invalid_request",
}
MESSAGES = {
    404: "there is nothing here",
    405: "this address does not answer that method",
    413: "the body is larger than 64 KiB",
}


class Unauthorized(PushserverError):
    """A login that failed; the same for every reason there is."""

    code = "invalid_credentials"

    def __init__(self) -> None:
        super().__init__("the user name or the password is wrong")


def refusal(code: str, message: str, status: int) -> Response:
    answer = jsonify(error={"code": code, "message": message})
    answer.status_code = status
    answer.headers["Cache-Control"] = "no-store"
    return answer


def register_error_handlers(app: Flask) -> None:
    """Give every status its JSON body, including those Flask itself answers with."""
    app.register_error_handler(PushserverError, _own_failure)
    app.register_error_handler(HTTPException, _http_failure)
    app.register_error_handler(Exception, _unexpected)


def _own_failure(error: PushserverError) -> Response:
    status = _status(error)
    if status >= 500:
        logger.warning("answered %d %s: %s", status, error.code, error.message)
    answer = refusal(error.code, error.message, status)
    retry_after_s = getattr(error, "retry_after_s", None)
    if status in (429, 503):
        answer.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s or RETRY_AFTER_S)))
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def _status(error: PushserverError) -> int:
    if isinstance(error, Unauthorized):
        return 401
    if error.code in STATUS_BY_CODE:
        return STATUS_BY_CODE[error.code]
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def _http_failure(error: HTTPException) -> ResponseReturnValue:
    status = error.code or 500
    if status < 400:
        # A redirect of Flask's own is an answer, not a failure.
        return error
    message = MESSAGES.get(status, error.name.lower() if error.name else "the request failed")
    answer = refusal(HTTP_CODES.get(status, "http_error" if status < 500 else "internal_error"), message, status)
    allowed = getattr(error, "valid_methods", None)
    if allowed:
        answer.headers["Allow"] = ", ".join(sorted(allowed))
    if isinstance(error, RequestEntityTooLarge):
        # The rest of the body was not read, so nothing sensible can follow it on this connection.
        answer.headers["Connection"] = "close"
    return answer


def _unexpected(error: Exception) -> Response:
    # The last edge before the client: whatever it was is ours to read in the log, not theirs.
    logger.error("unexpected %s", type(error).__name__, exc_info=error)
    return refusal("internal_error", "something went wrong on our side", 500)
