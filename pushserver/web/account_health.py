"""Tells phones what is wrong with their user's exchange key: after they connect, and when it changes.

A phone hears nothing while all is well: an ``account_health`` that says ``ok`` only follows one that did not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import gevent

from pushserver.bus.health import StoredHealth, nothing_known
from pushserver.bus.signals import Signal, SignalKind
from pushserver.errors import StoreUnavailable
from pushserver.web.phones import Phone
from pushserver.web.retrying import Retry

#: A crowd that connects at once is answered together.
GATHER_S = 0.1
BATCH = 500


class HealthReader(Protocol):
    def read(self, user_ids: Sequence[int]) -> list[StoredHealth | None]:
        """Raises StoreUnavailable."""
        ...


class AccountHealthNews:
    """``by_user()`` gives the signed-in phones of this worker."""

    def __init__(
        self,
        health: HealthReader,
        by_user: Callable[[], Mapping[int, Iterable[Phone]]],
        spawn_later: Callable[..., object] = gevent.spawn_later,
    ) -> None:
        self._health = health
        self._by_user = by_user
        self._spawn_later = spawn_later
        #: Users, and whether something was announced of them.
        self._wanted: dict[int, bool] = {}
        self._is_gathering = False
        self._again = Retry(self._try_tell)

    def greet(self, phone: Phone) -> None:
        """The phone has just been told ``connected``. Does not wait for anything."""
        self._want([phone.user_id], announced=False)

    def on_signal(self, signal: Signal) -> None:
        """Called by the bus listener: does not wait for anything."""
        if signal.kind is SignalKind.HEALTH_CHANGED and signal.user_id in self._by_user():
            self._want([signal.user_id], announced=True)

    def reread(self) -> None:
        """After the bus was lost: signals may have been lost with it."""
        self._want(self._by_user(), announced=False)

    def _want(self, user_ids: Iterable[int], *, announced: bool) -> None:
        for user_id in user_ids:
            self._wanted[user_id] = announced or self._wanted.get(user_id, False)
        if self._wanted and not self._is_gathering:
            self._is_gathering = True
            self._spawn_later(GATHER_S, self._tell)

    def _tell(self) -> None:
        self._is_gathering = False
        if not self._try_tell():
            self._again.ask()

    def _try_tell(self) -> bool:
        while self._wanted:
            # Taken out before the reading: what changes during it is wanted anew.
            batch = [self._wanted.popitem() for _ in range(min(BATCH, len(self._wanted)))]
            try:
                found = self._health.read([user_id for user_id, _ in batch])
            except StoreUnavailable:
                for user_id, announced in batch:
                    self._wanted[user_id] = announced or self._wanted.get(user_id, False)
                return False
            for (user_id, announced), health in zip(batch, found, strict=True):
                if health is None and not announced:
                    # A Redis that lost its memory: that is not to say that all is well.
                    continue
                for phone in list(self._by_user().get(user_id, ())):
                    _tell_phone(phone, health)
        return True


def _tell_phone(phone: Phone, health: StoredHealth | None) -> None:
    digest = "" if health is None or health.is_ok else health.digest
    if phone.gone or digest == phone.told_health:
        return
    phone.told_health = digest
    phone.emit("account_health", nothing_known(phone.user_id) if health is None else health.payload)
