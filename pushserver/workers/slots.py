"""How many rounds may run at the same time: fewer while most of them cannot reach the exchange.

An exchange that is down or drowning is not helped by more questions, and every round that waits for it holds memory
and a connection. A few rounds go on, so that its return is noticed at once.
"""

from __future__ import annotations

from pushserver.errors import ExchangeUnavailable

UNREACHED = frozenset({ExchangeUnavailable.code, "exchange_timeout", "deadline"})
#: Weight of the newest round in the share of failures.
NEWEST = 0.1
SHRINK = 0.8
GROW = 1.25
FEWEST_SHARE = 0.2
FEWEST = 4


class Slots:
    """``limit`` is what is allowed now, at most ``most``; tell it how each round ended."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._fewest = min(most, max(FEWEST, round(most * FEWEST_SHARE)))
        self._limit = float(most)
        self._failed_share = 0.0

    @property
    def most(self) -> int:
        """What is allowed while the exchange can be reached."""
        return self._most

    @property
    def limit(self) -> int:
        return int(self._limit)

    def ended(self, code: str) -> None:
        """``code`` is empty for a round without failure."""
        failed = code in UNREACHED
        self._failed_share += NEWEST * (failed - self._failed_share)
        if failed and self._failed_share > 0.5:
            self._limit = max(self._fewest, self._limit * SHRINK)
        elif not failed:
            self._limit = min(self._most, max(self._limit * GROW, self._limit + 1))
