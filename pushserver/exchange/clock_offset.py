"""How far the exchange's clock is from ours; pure, told the times.

A request is refused when it is stamped a second ahead of the exchange or five behind it, so stamps are made in the
exchange's time. An answer's ``time`` was read between our sending and our receiving, which leaves an interval for the
difference; the estimate moves only as far as that interval asks, so slow answers teach little and noise nothing.
"""

from __future__ import annotations

#: An ordinary answer may carry a stamp of a cache or of a lagging server: it corrects small drifts only.
LARGEST_NUDGE_MS = 2_000
#: From here on the operator should know: the exchange forgives one second at most.
ALARMING_MS = 1_000
#: Smaller changes are not worth telling.
NEWS_MS = 100


class ClockOffset:
    """Milliseconds to add to our wall clock to get the exchange's."""

    def __init__(self) -> None:
        self._offset_ms = 0
        self._told_ms: int | None = None

    @property
    def offset_ms(self) -> int:
        return self._offset_ms

    def learn(self, sent_ms: int, received_ms: int, server_ms: int) -> None:
        """From an ordinary answer: ignored where it asks for a jump."""
        wanted_ms = self._nearest(sent_ms, received_ms, server_ms)
        if abs(wanted_ms - self._offset_ms) <= LARGEST_NUDGE_MS:
            self._offset_ms = wanted_ms

    def correct(self, sent_ms: int, received_ms: int, server_ms: int) -> None:
        """From an answer that is about the time itself: believed whatever it says."""
        self._offset_ms = self._nearest(sent_ms, received_ms, server_ms)

    def is_alarming(self) -> bool:
        return abs(self._offset_ms) > ALARMING_MS

    def news(self) -> int | None:
        """The offset, if it was never told or is another than was told last."""
        if self._told_ms is not None and abs(self._offset_ms - self._told_ms) < NEWS_MS:
            return None
        self._told_ms = self._offset_ms
        return self._offset_ms

    def _nearest(self, sent_ms: int, received_ms: int, server_ms: int) -> int:
        """The value nearest to the present estimate that the two ends of the request allow."""
        least, most = server_ms - max(sent_ms, received_ms), server_ms - sent_ms
        return min(max(self._offset_ms, least), most)
