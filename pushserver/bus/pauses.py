"""Silence towards the exchange, shared by every process behind one egress address.

After the exchange has refused the address, nothing is asked until the pause ends; then one process probes with one
request, and only its success opens the gate for all. The gate stands in the budget: every payment passes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable

#: How long a prober may take before another one tries.
PROBE_LEASE_S = 10.0


@dataclass(frozen=True, slots=True)
class Gate:
    """``verdict``: open; paused (come again in ``left_s``); probe (the caller alone may ask the exchange's time).

    ``until_ms`` and ``code`` describe the pause.
    """

    verdict: str
    left_s: float = 0.0
    until_ms: int = 0
    code: str = ""


OPEN = Gate("open")


class Pauses:
    """All methods raise StoreUnavailable when Redis does not answer in time: then nothing may be asked."""

    def __init__(self, client: Any, egress_id: str) -> None:
        self._client = client
        self._keys = [keys.pause(egress_id), keys.pause_probe(egress_id)]
        self._pause = scripts.load(client, "pause")
        self._suspect = scripts.load(client, "suspect")

    def pause(self, seconds: float, code: str) -> bool:
        """Nobody behind this address asks anything for ``seconds``; True when that is longer than was known."""
        try:
            grew, _, _ = self._pause(keys=self._keys, args=[round(seconds * 1000), code])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return bool(grew)

    def suspect(self, code: str) -> bool:
        """Everybody waits while one finds out whether the address is refused: the caller, if True.

        It must ``pause``, or reopen the budget, within ``PROBE_LEASE_S``; False: others know or find out.
        """
        try:
            return bool(self._suspect(keys=self._keys, args=[code, round(PROBE_LEASE_S * 1000)]))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
