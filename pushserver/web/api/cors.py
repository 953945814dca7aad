"""Which pages of other origins a browser lets call the API.

Callers prove themselves with a Bearer token in a header, never with a cookie, so no credentials are allowed along.
"""

from __future__ import annotations

from collections.abc import Collection

from flask import Blueprint, Response, request

ANY_ORIGIN = "*"
#: How long a browser may remember the answer to its question ahead of a call.
PREFLIGHT_MAX_AGE_S = 600


def add_cors(api: Blueprint, origins: Collection[str]) -> None:
    """Let pages of ``origins`` (exact texts, or ``*``) read every answer below the API's address, errors too.

    The hooks are the whole application's: an address that is not there, or a method it does not know, belongs to
    no blueprint. Without origins nothing is added, and a browser then refuses other pages by itself.
    """
    if not origins:
        return

    @api.before_app_request
    def answer_preflight() -> Response | None:
        if not (_is_ours(api) and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers):
            return None
        answer = Response(status=204)
        # Flask names a type even of nothing.
        answer.headers.pop("Content-Type", None)
        return answer

    @api.after_app_request
    def allow(answer: Response) -> Response:
        if not _is_ours(api):
            return answer
        # Also where nothing is allowed: a cache must not show that answer to an origin that is.
        answer.vary.add("Origin")
        origin = request.headers.get("Origin")
        if origin and (origin in origins or ANY_ORIGIN in origins):
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            answer.headers["Access-Control-Allow-Methods"] = "GET, POST, PUT, DELETE"
            answer.headers["Access-Control-Expose-Headers"] = "Retry-After"
            answer.headers["Access-Control-Max-Age"] = str(PREFLIGHT_MAX_AGE_S)
        return answer


def _is_ours(api: Blueprint) -> bool:
    return request.path.startswith(f"{api.url_prefix}/")
