"""What the API stands on, handed in by the composition root."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pushserver.accounts.store import AccountStore
from pushserver.bus.access import AccessList
from pushserver.bus.health import HealthStore
from pushserver.bus.login_limits import LoginLimits
from pushserver.bus.states import States
from pushserver.clock import Clock
from pushserver.model import Credentials
from pushserver.observers import Observer
from pushserver.tokens import Tokens


class KeyVerifier(Protocol):
    def key_information(self, user_id: int, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        """The exchange's own description of a key (the ``result`` object of Bybit's query-api).

        ``deadline_s`` is a reading of the monotonic clock. Raises ExchangeError, KeyRefused for a bad key.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApiServices:
    """``redis_client`` is only used to publish signals."""

    accounts: AccountStore
    tokens: Tokens
    access: AccessList
    limits: LoginLimits
    verifier: KeyVerifier
    states: States
    health: HealthStore
    redis_client: Any
    clock: Clock
    observer: Observer
