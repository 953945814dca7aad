"""Reads what a client sent: bodies to the letter of JSON, and the Bearer token."""

from __future__ import annotations

import json
from typing import Any

from flask import request

from pushserver.errors import PayloadRefused, TokenRefused
from pushserver.tokens import MISSING, Claims
from pushserver.web.api.services import ApiServices

MAX_BODY_BYTES = 64 * 1024
INVALID_REQUEST = "invalid_request"


def body_fields(*names: str) -> tuple[str, ...]:
    """The named fields of a JSON body, each a non-empty text.

    Raises:
        PayloadRefused: invalid_request. A body that is too large raises werkzeug's 413.
    """
    request.max_content_length = MAX_BODY_BYTES
    if request.mimetype != "application/json" or request.headers.get("Content-Encoding", "identity") != "identity":
        raise PayloadRefused("the body must be uncompressed application/json", code=INVALID_REQUEST)
    body = _parsed(request.get_data(cache=False))
    values = [body.get(name) for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str) or not value:
            raise PayloadRefused(f"field {name} must be a text", code=INVALID_REQUEST)
    return tuple(str(value) for value in values)


def authorized(services: ApiServices) -> Claims:
    """Whose request this is.

    Raises:
        TokenRefused: missing, invalid, expired, revoked, user disabled; server_busy if that cannot be known.
    """
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenRefused("the header Authorization: Bearer TOKEN is needed", code=MISSING)
    claims = services.tokens.verify(token.strip())
    services.access.check(claims)
    return claims


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_unambiguous, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise PayloadRefused("the body is not a JSON object with each key once", code=INVALID_REQUEST) from None
    if not isinstance(value, dict):
        raise PayloadRefused("the body must be a JSON object", code=INVALID_REQUEST)
    return value


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        # Two readers might each believe another of the two.
        raise ValueError("a key is there twice")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
