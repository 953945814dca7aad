"""Account changes from the command line: the database first, then Redis, so that running processes hear at once.

A Redis that cannot be reached is a warning: web workers read the database again every few seconds anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushserver.accounts.exchange_keys import check_key
from pushserver.accounts.records import User
from pushserver.accounts.store import AccountStore
from pushserver.bus import signals
from pushserver.bus.access import AccessList
from pushserver.bus.signals import Signal, SignalKind
from pushserver.bus.states import States
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.model import Secret


class Provisioning:
    """``warn`` is told, in one line, what could not be passed on."""

    def __init__(self, accounts: AccountStore, redis_client: Any, clock: Clock, warn: Callable[[str], None]) -> None:
        self._accounts = accounts
        self._client = redis_client
        self._access = AccessList(redis_client, clock)
        self._states = States(redis_client, clock)
        self._warn = warn

    def add(
        self, name: str, password: Secret, user_id: int | None, api_key: str | None, api_secret: Secret | None
    ) -> User:
        """Create the user, and the exchange key if one is given."""
        if api_key is not None and api_secret is not None:
            # Before anything is stored, so that a bad key leaves no half-made user behind.
            check_key(api_key, api_secret)
        user = self._accounts.add_user(name, password, user_id)
        if api_key is not None and api_secret is not None:
            self._accounts.set_key(user.id, api_key, api_secret)
            self._tell(Signal(SignalKind.KEY_CHANGED, user.id))
        return user

    def set_key(self, name: str, api_key: str, api_secret: Secret) -> User:
        user = self._accounts.user(name)
        self._accounts.set_key(user.id, api_key, api_secret)
        self._tell(Signal(SignalKind.KEY_CHANGED, user.id))
        return user

    def set_password(self, name: str, password: Secret) -> User:
        user = self._accounts.user(name)
        self._accounts.set_password(user.id, password)
        return user

    def disable(self, name: str) -> User:
        user = self._accounts.user(name)
        self._accounts.disable(user.id)
        self._tell(Signal(SignalKind.USER_DISABLED, user.id), lambda: self._access.disable(user.id))
        return user

    def enable(self, name: str) -> User:
        user = self._accounts.user(name)
        self._accounts.enable(user.id)
        self._tell(Signal(SignalKind.USER_ENABLED, user.id), lambda: self._access.enable(user.id))
        return user

    def remove(self, name: str) -> User:
        user = self._accounts.user(name)
        self._accounts.remove(user.id)
        self._tell(Signal(SignalKind.USER_DISABLED, user.id), lambda: self._access.disable(user.id))
        # Only now, when the push workers have been told to commit no more of this user.
        try:
            self._states.forget(user.id)
        except StoreUnavailable as error:
            self._warn(f"warning: {error.message}; the user's last figures leave it by themselves within a day")
        return user

    def revoke_tokens(self, name: str) -> User:
        user = self._accounts.user(name)
        not_before_s = self._accounts.revoke_tokens(user.id)
        signal = Signal(SignalKind.TOKENS_REVOKED, user.id)
        self._tell(signal, lambda: self._access.revoke_tokens(user.id, not_before_s))
        return user

    def _tell(self, signal: Signal, write: Callable[[], None] = lambda: None) -> None:
        try:
            write()
            signals.publish(self._client, signal)
        except StoreUnavailable as error:
            self._warn(f"warning: {error.message}; running processes notice the change within 30 s")
