"""Slows guessing down: failed attempts are counted in Redis by name, by address and by network.

The first few failures of each subject are free, then every further one doubles the time during which nothing is
even tried for it. An attempt is counted before its password is looked at, so a burst of parallel guesses is
counted whole, and taken back when it was right.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.errors import OverCapacity

#: A subject with no failure for so long starts anew.
FORGET_AFTER_S = 3_600
LONGEST_LOCK_S = 900


@dataclass(frozen=True, slots=True)
class Limit:
    """``free_failures`` of one subject before locks begin: 1 s, 2 s, 4 s … up to a quarter of an hour."""

    kind: str
    free_failures: int


#: A person mistypes a few times; an office or a mobile network holds many persons.
NAME = Limit("name", 5)
ADDRESS = Limit("address", 20)
NETWORK = Limit("network", 100)
#: Exchange keys tried by one user: each costs a request at the exchange.
EXCHANGE_KEY = Limit("exchange-key", 5)


class LoginLimits:
    """All methods raise StoreUnavailable."""

    def __init__(self, client: Any) -> None:
        self._attempt = scripts.load(client, "attempts")
        self._undo = scripts.load(client, "attempts_undo")
        self._client = client

    def begin(self, *subjects: tuple[Limit, str]) -> Attempt:
        """Count an attempt for every subject, in the order given.

        Raises:
            OverCapacity: one of them is locked; a right password changes nothing about that.
        """
        counted: list[str] = []
        try:
            for limit, subject in subjects:
                key = keys.login_attempts(f"{limit.kind}:{subject}")
                wait_ms = self._attempt(keys=[key], args=[limit.free_failures, LONGEST_LOCK_S * 1000, FORGET_AFTER_S])
                if wait_ms > 0:
                    raise OverCapacity("too many failed attempts; wait a little", retry_after_s=wait_ms / 1000)
                counted.append(key)
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return Attempt(counted)

    def take_back(self, attempt: Attempt) -> None:
        """It was no failed guess: right, or never decided."""
        try:
            for key in attempt.keys:
                self._undo(keys=[key])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def forget(self, limit: Limit, subject: str) -> None:
        """The subject proved itself: its failures no longer count."""
        try:
            self._client.delete(keys.login_attempts(f"{limit.kind}:{subject}"))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error


@dataclass(frozen=True, slots=True)
class Attempt:
    """Counted, and not yet taken back."""

    keys: list[str]


def login_subjects(name: str, client_address: str) -> list[tuple[Limit, str]]:
    """Whom a login is counted for; the name comes last, so that a locked address cannot lock it."""
    subjects = [(NAME, name)]
    try:
        address = ipaddress.ip_address(client_address.partition("%")[0])
    except ValueError:
        # A unix socket has no address: only the name can be counted.
        return subjects
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    network = ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False)
    return [(NETWORK, str(network)), (ADDRESS, str(address)), *subjects]
