"""Where a home's streams come from: opened at one address, within the budget of connections that address has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pushserver.bus.budgets import Budget
from pushserver.clock import Clock
from pushserver.exchange.private_stream import PrivateStream
from pushserver.exchange.stream_messages import Happening
from pushserver.exchange.stream_socket import Connect, Loss
from pushserver.model import Credentials
from pushserver.observers import Observer

#: Connections paid for in one go.
BATCH = 8


class Stream(Protocol):
    """The part of ``PrivateStream`` that a home needs."""

    refusal: str

    @property
    def state(self) -> str: ...

    @property
    def key_version(self) -> int: ...

    def run(self) -> Loss: ...

    def tick(self) -> None: ...

    def close(self, loss: Loss = ...) -> None: ...


class Door(Protocol):
    """What opens streams."""

    def may_open(self, wanted: int) -> tuple[int, float]:
        """How many of ``wanted`` connections may be begun now, and seconds until asking for more makes sense.

        Raises StoreUnavailable.
        """
        ...

    def open(
        self, credentials: Credentials, on_live: Callable[[], None], on_happening: Callable[[Happening], None]
    ) -> Stream:
        """A stream that is yet to be run; it was paid for by ``may_open``."""
        ...


@dataclass(frozen=True, slots=True)
class StreamDoor:
    """``url`` of the private stream, behind the address whose ``budget`` of connections it is."""

    url: str
    connect: Connect
    budget: Budget
    server_now_ms: Callable[[], int]
    clock: Clock
    observer: Observer

    def may_open(self, wanted: int) -> tuple[int, float]:
        grant = self.budget.spend(*[1] * min(wanted, BATCH))
        return grant.granted, grant.wait_s

    def open(
        self, credentials: Credentials, on_live: Callable[[], None], on_happening: Callable[[Happening], None]
    ) -> PrivateStream:
        return PrivateStream(
            self.url,
            self.connect,
            credentials,
            self.server_now_ms,
            on_live,
            on_happening,
            self.clock,
            self.observer,
        )
