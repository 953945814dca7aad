"""A user's own exchange key: shown masked, verified with the exchange before it is stored, deleted."""

from __future__ import annotations

import dataclasses
import logging

from flask import Blueprint, Response, jsonify

from pushserver.accounts.exchange_keys import check_key
from pushserver.accounts.records import KeySummary
from pushserver.bus import signals
from pushserver.bus.login_limits import EXCHANGE_KEY, STORED_KEY
from pushserver.bus.signals import Signal, SignalKind
from pushserver.errors import (
    AccountRefused,
    CredentialsUnreadable,
    ExchangeError,
    KeyRefused,
    OverCapacity,
    PayloadRefused,
    StoreUnavailable,
)
from pushserver.events import utc_instant
from pushserver.feeds.key_health import HealthState, check_lasting, judged, read_facts
from pushserver.model import Credentials, DataType, Freshness, Secret
from pushserver.web.api.requests import INVALID_REQUEST, authorized, body_fields
from pushserver.web.api.services import ApiServices

logger = logging.getLogger(__name__)

#: A person waits for the answer.
VERIFICATION_LIMIT_S = 8.0
#: Shorter where there is something to show without the exchange.
LOOK_LIMIT_S = 5.0


def add_exchange_key(api: Blueprint, services: ApiServices) -> None:
    @api.get("/exchange-key")
    def show() -> Response:
        user_id = authorized(services).user_id
        summary = services.accounts.key_summary(user_id)
        if summary is None:
            raise AccountRefused("no exchange key is stored", code="no_exchange_key")
        if summary.facts.read_only is None:
            summary = _asked_about(services, user_id, summary)
        return _shown(services, summary)

    @api.put("/exchange-key")
    def replace() -> Response:
        claims = authorized(services)
        api_key, secret = body_fields("api_key", "api_secret")
        api_secret = Secret(secret)
        try:
            check_key(api_key, api_secret)
        except AccountRefused as error:
            raise PayloadRefused(error.message, code=INVALID_REQUEST) from None
        summary = _verified_and_stored(services, claims.user_id, Credentials(api_key, api_secret))
        _forget_states(services, claims.user_id, replaced=True)
        _tell(services, claims.user_id)
        _tell_health(services, claims.user_id, summary)
        return _shown(services, summary)

    @api.delete("/exchange-key")
    def remove() -> Response:
        claims = authorized(services)
        if services.accounts.delete_key(claims.user_id):
            _forget_states(services, claims.user_id, replaced=False)
            _tell(services, claims.user_id)
            _tell_health(services, claims.user_id, None)
        return Response(status=204)


def _verified_and_stored(services: ApiServices, user_id: int, credentials: Credentials) -> KeySummary:
    subject = (EXCHANGE_KEY, str(user_id))
    services.limits.begin(subject)
    try:
        information = services.verifier.key_information(
            user_id, credentials, services.clock.monotonic_s() + VERIFICATION_LIMIT_S
        )
        now_s = services.clock.wall_ms() // 1000
        facts = read_facts(information, now_s)
        check_lasting(facts, now_s)
    except KeyRefused:
        # This one stays counted: every guess costs a request at the exchange.
        raise
    except ExchangeError:
        services.limits.take_back(subject)
        raise
    services.limits.take_back(subject)
    summary = services.accounts.set_key(user_id, credentials.api_key, credentials.api_secret, facts)
    return dataclasses.replace(summary, facts=facts)


def _asked_about(services: ApiServices, user_id: int, summary: KeySummary) -> KeySummary:
    """The summary of a key that was stored without the exchange, with what the exchange says of it if it can be had."""
    subject = (STORED_KEY, str(user_id))
    try:
        services.limits.begin(subject)
        credentials = services.accounts.credentials(user_id)
        if credentials is None or credentials.version != summary.version:
            return summary
        deadline_s = services.clock.monotonic_s() + LOOK_LIMIT_S
        information = services.verifier.key_information(user_id, credentials, deadline_s)
        facts = read_facts(information, services.clock.wall_ms() // 1000)
        summary = services.accounts.set_key_facts(user_id, credentials.version, facts) or summary
        if summary.version == credentials.version:
            _tell_health(services, user_id, dataclasses.replace(summary, facts=facts))
        services.limits.forget(subject)
    except (ExchangeError, OverCapacity, StoreUnavailable, CredentialsUnreadable) as error:
        # What is stored can be shown all the same; it carries its warning, and the next look asks again.
        logger.info("an exchange key is shown unverified: %s", error.code)
    return summary


def _forget_states(services: ApiServices, user_id: int, *, replaced: bool) -> None:
    """What is stored may be another account's: no phone is to be shown it any more."""
    try:
        if replaced:
            # A stop that is forgotten could not be told to be over.
            for data_type in DataType:
                services.states.set_status(user_id, data_type, Freshness.LIVE, "", "The exchange key was replaced.")
        services.states.forget(user_id)
    except StoreUnavailable as error:
        # The next round under the new key replaces it all the same.
        logger.warning("the states of a replaced exchange key could not be forgotten: %s", error.message)


def _tell(services: ApiServices, user_id: int) -> None:
    try:
        signals.publish(services.redis_client, Signal(SignalKind.KEY_CHANGED, user_id))
    except StoreUnavailable as error:
        # The key is stored; the push workers hear of it when they next look for themselves.
        logger.warning("the change of an exchange key was not announced: %s", error.message)


def _tell_health(services: ApiServices, user_id: int, verified: KeySummary | None) -> None:
    """What was just learnt of a key is what the push workers would ask for; None: there is no key any more."""
    now_ms = services.clock.wall_ms()
    try:
        if verified is None:
            services.health.forget(user_id)
        else:
            services.health.record(user_id, verified.version, judged(verified.facts, now_ms // 1000), now_ms)
    except StoreUnavailable as error:
        # The key is stored; the next daily check tells.
        logger.warning("the health of an exchange key was not announced: %s", error.message)


def _shown(services: ApiServices, summary: KeySummary) -> Response:
    facts = summary.facts
    return jsonify(
        api_key=summary.api_key,
        verified=facts.read_only is not None,
        read_only=facts.read_only,
        permissions=list(facts.permissions),
        expires_at=None if facts.expires_s is None else utc_instant(facts.expires_s * 1000),
        stored_at=utc_instant(summary.stored_s * 1000),
        warnings=[
            {"code": problem.code, "message": problem.message}
            for problem in judged(facts, services.clock.wall_ms() // 1000).problems
            if problem.weight is not HealthState.OK
        ],
    )
