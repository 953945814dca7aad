"""Login, refresh, logout: passwords in, tokens out."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, jsonify, request

from pushserver.bus import signals
from pushserver.bus.login_limits import NAME, address_subjects
from pushserver.bus.signals import Signal, SignalKind
from pushserver.errors import AccountRefused, OverCapacity, PayloadRefused, PushserverError, StoreUnavailable
from pushserver.model import Secret, hashed_token_id
from pushserver.observers import LoginAttempted
from pushserver.tokens import LEEWAY_S, MAX_LIFETIME_S, Claims
from pushserver.web.api.answers import Unauthorized
from pushserver.web.api.requests import INVALID_REQUEST, authorized, body_fields
from pushserver.web.api.services import ApiServices

logger = logging.getLogger(__name__)


def add_login(api: Blueprint, services: ApiServices) -> None:
    @api.post("/auth/login")
    def login() -> Response:
        started_s = services.clock.monotonic_s()

        def attempted(result: str) -> None:
            services.observer.record(LoginAttempted(result, services.clock.monotonic_s() - started_s))

        try:
            answer = _login(services)
        except Unauthorized:
            attempted("invalid_credentials")
            raise
        except OverCapacity:
            attempted("rate_limited")
            raise
        except StoreUnavailable:
            attempted("unavailable")
            raise
        attempted("ok")
        return answer

    @api.post("/auth/refresh")
    def refresh() -> Response:
        claims = authorized(services)
        # The family goes on, so that a logout reaches this token also if it comes at this very moment.
        token = services.tokens.mint(
            claims.user_id, not_before_s=claims.issued_at_s, family_id=claims.family_id or claims.token_id
        )
        return _token_answer(services, token, claims.user_id)

    @api.post("/auth/logout")
    def logout() -> Response:
        _revoke(services, authorized(services))
        return Response(status=204)


def _login(services: ApiServices) -> Response:
    name, password = body_fields("username", "password")
    if not services.tokens.can_mint:
        raise PushserverError("tokens are issued elsewhere", code="tokens_issued_elsewhere")
    limits, by_name, by_address = services.limits, (NAME, name), address_subjects(request.remote_addr or "")
    # The address first, so that a locked one cannot lock names.
    limits.check(by_address)
    limits.begin(by_name)
    try:
        user = services.accounts.authenticate(name, Secret(password))
    except AccountRefused as error:
        limits.take_back(by_name)
        raise PayloadRefused(error.message, code=INVALID_REQUEST) from None
    except (StoreUnavailable, OverCapacity):
        limits.take_back(by_name)
        raise
    if user is None:
        limits.failed(by_address)
        raise Unauthorized
    limits.forget(by_name)
    return _token_answer(services, services.tokens.mint(user.id, not_before_s=user.tokens_not_before_s), user.id)


def _token_answer(services: ApiServices, token: str, user_id: int) -> Response:
    fields = {"token": token, "token_type": "Bearer", "expires_in": services.tokens.ttl_s, "user_id": user_id}
    return jsonify(fields)


def _revoke(services: ApiServices, claims: Claims) -> None:
    """End the token and everything refreshed from it, in Redis for now and in the database for good.

    One of the two is enough to answer: Redis acts at once, the database within a web worker's next look.
    """
    token_hash = hashed_token_id(claims.family_id or claims.token_id or "")
    expires_s = services.clock.wall_ms() // 1000 + MAX_LIFETIME_S + LEEWAY_S
    failures = []
    try:
        services.accounts.revoke_token(token_hash, claims.user_id, expires_s)
    except StoreUnavailable as error:
        failures.append(error)
    try:
        services.access.revoke_token(token_hash, expires_s)
        signals.publish(services.redis_client, Signal(SignalKind.TOKEN_REVOKED, claims.user_id, token_hash))
    except StoreUnavailable as error:
        failures.append(error)
    if len(failures) == 2:
        raise failures[0]
    for failure in failures:
        logger.warning("a logout was stored in one place only: %s", failure.message)
