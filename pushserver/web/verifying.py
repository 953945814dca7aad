"""Asks the exchange about a key, behind the gate that all processes of this egress address share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pushserver.bus.pauses import Pauses
from pushserver.errors import AddressBanned
from pushserver.model import Credentials
from pushserver.observers import AddressPaused, Observer

#: What the exchange wants after a 403 that names no time.
SILENCE_S = 600.0


class KeyQuestions(Protocol):
    def key_information(self, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]: ...


class GatedVerifier:
    """During a ban no key is verified: one more request would only prolong it. A ban met here is everybody's."""

    def __init__(self, exchange: KeyQuestions, pauses: Pauses, observer: Observer) -> None:
        self._exchange = exchange
        self._pauses = pauses
        self._observer = observer

    def key_information(self, credentials: Credentials, deadline_s: float) -> Mapping[str, Any]:
        """The exchange's description of a key; ``deadline_s`` is an instant of the monotonic clock.

        Raises:
            ExchangeError: KeyRefused for a bad key, AddressBanned while our address is paused.
            StoreUnavailable: it cannot be known whether we may ask.
        """
        gate = self._pauses.gate()
        if gate.verdict != "open":
            # The probe that ends a pause is the push workers' business; its slot comes free by itself.
            raise AddressBanned("the exchange pauses requests from this server", retry_after_s=gate.left_s)
        try:
            return self._exchange.key_information(credentials, deadline_s)
        except AddressBanned as error:
            seconds = error.retry_after_s if error.retry_after_s is not None else SILENCE_S
            if self._pauses.pause(seconds, error.code):
                self._observer.record(AddressPaused(error.code, seconds))
            raise
