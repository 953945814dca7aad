"""``/healthz``: the process lives. ``/readyz``: this worker can really deliver."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from pushserver.bus.connection import REDIS_FAILURES
from pushserver.bus.ears import Ears


def create_health(redis_client: Any, listener: Ears) -> Blueprint:
    """Never touches the database: a worker without one still delivers."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> ResponseReturnValue:
        return jsonify(status="ok")

    @health.get("/readyz")
    def readyz() -> ResponseReturnValue:
        problems = _problems(redis_client, listener)
        if not problems:
            return jsonify(status="ready")
        message = "; ".join(problems)
        return jsonify(status="not_ready", problems=problems, error={"code": "not_ready", "message": message}), 503

    return health


def _problems(redis_client: Any, listener: Ears) -> list[str]:
    problems = []
    try:
        redis_client.ping()
    except REDIS_FAILURES as error:
        problems.append(f"Redis does not answer ({type(error).__name__})")
    if not listener.hears:
        age_s = listener.canary_age_s
        heard = "never" if age_s is None else f"{age_s:.0f} s ago"
        problems.append(f"the bus listener last heard its canary {heard}")
    return problems
