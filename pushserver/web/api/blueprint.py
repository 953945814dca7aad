"""All calls of the API in one blueprint."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, Response

from pushserver.web.api.cors import add_cors
from pushserver.web.api.exchange_key import add_exchange_key
from pushserver.web.api.login import add_login
from pushserver.web.api.services import ApiServices


def create_api(services: ApiServices, cors_origins: Sequence[str] | None = None) -> Blueprint:
    """All calls below ``/api``; errors are the business of ``register_error_handlers``.

    ``cors_origins`` are the other origins whose pages may call it, ``*`` for all; None for none.
    """
    api = Blueprint("api", __name__, url_prefix="/api")
    add_login(api, services)
    add_exchange_key(api, services)
    add_cors(api, cors_origins or ())

    @api.after_request
    def finish(answer: Response) -> Response:
        answer.headers["Cache-Control"] = "no-store"
        if answer.status_code == 204:
            # Flask names a type even of nothing.
            answer.headers.pop("Content-Type", None)
        return answer

    return api
