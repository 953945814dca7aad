"""Slows guessing down: failed attempts are counted in Redis by name, by address and by network.

The first few failures of each subject are free, then every further one doubles the time during which nothing is
even tried for it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
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
NAME = Limit("name", 10)
ADDRESS = Limit("address", 100)
NETWORK = Limit("network", 300)
#: Exchange keys tried by one user: each costs a request at the exchange.
EXCHANGE_KEY = Limit("exchange-key", 5)
#: The exchange asked about one user's stored key; apart, so that looking at a bad key never hinders replacing it.
STORED_KEY = Limit("stored-key", 5)

Subject = tuple[Limit, str]


class LoginLimits:
    """All methods raise StoreUnavailable; a subject is a limit and whom it holds for."""

    def __init__(self, client: Any) -> None:
        self._attempts = scripts.load(client, "attempts")
        self._take_back = scripts.load(client, "attempts_undo")
        self._client = client

    def check(self, subjects: Iterable[Subject]) -> None:
        """Raises OverCapacity while any of them is locked: a right password changes nothing about that."""
        for subject in subjects:
            self._count("look", subject)

    def begin(self, subject: Subject) -> None:
        """Count an attempt before its outcome is known, so that a burst of parallel guesses is counted whole.

        Raises:
            OverCapacity: the subject is locked.
        """
        self._count("try", subject)

    def take_back(self, subject: Subject) -> None:
        """What ``begin`` counted was no failure, and no proof either."""
        self._guarded(lambda: self._take_back(keys=[_key(subject)]))

    def failed(self, subjects: Iterable[Subject]) -> None:
        """Count a failure of each. For subjects that many share, whose attempts are not counted ahead."""
        for subject in subjects:
            self._count("fail", subject)

    def forget(self, subject: Subject) -> None:
        """The subject proved itself: its failures no longer count."""
        self._guarded(lambda: self._client.delete(_key(subject)))

    def _count(self, action: str, subject: Subject) -> None:
        limit = subject[0]
        arguments = [action, limit.free_failures, LONGEST_LOCK_S * 1000, FORGET_AFTER_S]
        wait_ms = self._guarded(lambda: self._attempts(keys=[_key(subject)], args=arguments))
        if wait_ms > 0:
            raise OverCapacity("too many failed attempts; wait a little", retry_after_s=wait_ms / 1000)

    def _guarded(self, command: Callable[[], Any]) -> Any:
        try:
            return command()
        except REDIS_FAILURES as error:
            raise unavailable(error) from error


def _key(subject: Subject) -> str:
    limit, who = subject
    return keys.login_attempts(f"{limit.kind}:{who}")


def address_subjects(client_address: str) -> list[Subject]:
    """The network (/24 or /64) and the address of a client; none for a unix socket, which has no address."""
    try:
        address = ipaddress.ip_address(client_address.partition("%")[0])
    except ValueError:
        return []
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    network = ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 64}", strict=False)
    return [(NETWORK, str(network)), (ADDRESS, str(address))]
