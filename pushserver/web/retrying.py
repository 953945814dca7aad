"""Something that must succeed in the end, tried again in the background: one attempt at a time, however many ask."""

from __future__ import annotations

from collections.abc import Callable

import gevent

#: Between attempts; the last one goes on. Redis has to be found again soon after it is back.
PAUSES_S = (0.2, 0.5, 1.0, 2.0)


class Retry:
    """``attempt()`` says whether it succeeded; it must not raise."""

    def __init__(self, attempt: Callable[[], bool], sleep: Callable[[float], object] = gevent.sleep) -> None:
        self._attempt = attempt
        self._sleep = sleep
        self._trying = False

    def ask(self) -> None:
        """Have it tried after a pause, and again until it succeeds."""
        if not self._trying:
            self._trying = True
            gevent.spawn(self._try)

    def _try(self) -> None:
        attempts = 0
        while self._trying:
            self._sleep(PAUSES_S[min(attempts, len(PAUSES_S) - 1)])
            attempts += 1
            self._trying = not self._attempt()
