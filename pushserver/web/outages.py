"""Tells phones when nothing new can come because Redis is away, unheard or refuses to store, and when that is over.

The push workers' own word on freshness travels through Redis, so in this one case the web worker has to speak.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from pushserver.clock import Clock
from pushserver.events import encode_status
from pushserver.model import DataType, Freshness
from pushserver.web.phones import Phone

#: A failover or a restart may take so long before anybody is bothered with it.
TELL_AFTER_S = 2.0
REASON = "store_unavailable"
MESSAGE = "Updates are interrupted at the server; the last known figures are shown"


class Watch(Protocol):
    @property
    def data_type(self) -> DataType: ...

    @property
    def phones(self) -> Collection[Phone]: ...


class Outages:
    """``failed`` or ``works`` is to be called about every second: what became of a harmless write and the canary."""

    def __init__(
        self,
        watches: Callable[[], Iterable[Watch]],
        tell: Callable[[Iterable[Phone], DataType, Freshness, str, bytes], None],
        clock: Clock,
    ) -> None:
        self._watches = watches
        self._tell = tell
        self._clock = clock
        self._since_s: float | None = None
        self._told = False

    def failed(self) -> None:
        """Whoever believes that all is live is told otherwise, newcomers too; other troubles stay as they were told."""
        now_s = self._clock.monotonic_s()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s < TELL_AFTER_S:
            return
        self._told = True
        for watch in list(self._watches()):
            believers = [phone for phone in watch.phones if self._state(phone, watch) is Freshness.LIVE]
            if believers:
                frame = encode_status(watch.data_type, Freshness.DELAYED, REASON, MESSAGE)
                self._tell(believers, watch.data_type, Freshness.DELAYED, REASON, frame)

    def works(self) -> None:
        """Whoever was told so hears that it is over."""
        self._since_s = None
        if not self._told:
            return
        self._told = False
        for watch in list(self._watches()):
            told = [phone for phone in watch.phones if phone.told.get(watch.data_type) == (Freshness.DELAYED, REASON)]
            if told:
                frame = encode_status(watch.data_type, Freshness.LIVE, "", "Up to date")
                self._tell(told, watch.data_type, Freshness.LIVE, "", frame)

    @staticmethod
    def _state(phone: Phone, watch: Watch) -> Freshness:
        return phone.told.get(watch.data_type, (Freshness.LIVE, ""))[0]
