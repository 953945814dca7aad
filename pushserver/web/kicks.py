"""Closes the sockets of tokens and users that were shut out: at once by signal, and again by looking.

A signal can be lost with the bus; so the rules of the database are read every few seconds and every local phone
is held against them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import gevent

from pushserver.bus.signals import Signal, SignalKind
from pushserver.errors import OverCapacity, StoreUnavailable, TokenRefused
from pushserver.model import AccessRules
from pushserver.tokens import Claims
from pushserver.web.phones import Phone
from pushserver.web.sockets import Sockets

logger = logging.getLogger(__name__)

RECHECK_EVERY_S = 15.0
#: The first look does not wait longer for what it comes after.
FIRST_LOOK_WITHIN_S = 3.0


class AccessMemory(Protocol):
    """What this worker itself knows of who is shut out, without asking anybody."""

    def refresh(self, rules: AccessRules) -> None: ...

    def check_memory(self, claims: Claims) -> None:
        """Raises TokenRefused."""
        ...


class Kicks:
    """``read_rules()`` asks the database and may take a while or raise StoreUnavailable."""

    def __init__(self, sockets: Sockets, access: AccessMemory, read_rules: Callable[[], AccessRules]) -> None:
        self._sockets = sockets
        self._access = access
        self._read_rules = read_rules

    def start(self, after: gevent.Greenlet | None = None) -> None:
        """``after`` is what makes the database ready to be read; with a database that is away it takes long."""
        gevent.spawn(self._run, after)

    def on_signal(self, signal: Signal) -> None:
        """Called by the bus listener: must not block."""
        phones = list(self._sockets.by_user.get(signal.user_id, ()))
        if signal.kind is SignalKind.USER_DISABLED:
            self._kick(phones, "user_disabled")
        elif signal.kind is SignalKind.TOKENS_REVOKED:
            self._kick(phones, "token_revoked")
        elif signal.kind is SignalKind.TOKEN_REVOKED:
            self._kick([phone for phone in phones if signal.token_id in phone.claims.token_hashes()], "token_revoked")

    def recheck(self) -> None:
        """Hold every local phone against the database's rules; without a database the last ones stay."""
        try:
            self._access.refresh(self._read_rules())
        except (StoreUnavailable, OverCapacity) as error:
            logger.warning("the access rules could not be read, the last ones stay: %s", error.message)
            return
        for phones in list(self._sockets.by_user.values()):
            for phone in list(phones):
                try:
                    self._access.check_memory(phone.claims)
                except TokenRefused as refusal:
                    self._sockets.kick(phone, refusal.code)

    def _kick(self, phones: list[Phone], code: str) -> None:
        for phone in phones:
            self._sockets.kick(phone, code)

    def _run(self, after: gevent.Greenlet | None) -> None:
        if after is not None:
            after.join(FIRST_LOOK_WITHIN_S)
        while True:
            try:
                self.recheck()
            except Exception:
                # A check that failed once must be made again, or a revoked token would live on.
                logger.exception("the check of access rules failed")
            gevent.sleep(RECHECK_EVERY_S)
