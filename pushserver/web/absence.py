"""Tells phones when no push worker is there to keep their figures fresh, and each when its own are fresh again.

Nobody else could: what a push worker says of a user's freshness it says while it serves that user.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from pushserver.bus.homes import HOME_LEASE_S, is_kept
from pushserver.bus.states import StoredState
from pushserver.clock import Clock
from pushserver.errors import StoreUnavailable
from pushserver.events import encode_status
from pushserver.model import DataType, Freshness
from pushserver.web.phones import Phone
from pushserver.web.watches import Watch

#: A type is not kept fresh when nobody asked for work for its interval and so long.
LATE_AFTER_S = 0.5
REASON = StoreUnavailable.code
MESSAGE = "Nothing is fetched from the exchange at present; the last known figures are shown"
TOLD = (Freshness.DELAYED, REASON)
READ_BATCH = 500
#: What was confirmed so shortly before push workers were seen again counts as well: looks are a second apart, and the
#: exchange's clock is not ours.
BEFORE_MS = 2_000
#: From then on the homes of push workers that are gone count no more; what a living one keeps is seldom fetched.
HOMES_KNOWN_MS = BEFORE_MS + round(1000 * (HOME_LEASE_S + 2.0))


class Absence:
    """``looked`` or ``unknown`` is to be called about every second. ``intervals_s``: of each type."""

    def __init__(
        self,
        watches: Callable[[], Collection[Watch]],
        tell: Callable[[Iterable[Phone], DataType, Freshness, str, bytes], None],
        read: Callable[[Sequence[tuple[int, DataType]]], list[StoredState]],
        live_bits: Callable[[Iterable[int]], Mapping[int, int]],
        intervals_s: Mapping[DataType, float],
        clock: Clock,
    ) -> None:
        self._watches = watches
        self._tell = tell
        self._read = read
        self._live_bits = live_bits
        self._intervals_s = intervals_s
        self._clock = clock
        self._served_at_s: float | None = None
        #: From when on what the exchange confirms is news; None until push workers are back.
        self._back_ms: int | None = None
        self._told = False

    def unknown(self) -> None:
        """Redis cannot be asked: afterwards push workers need a moment as well."""
        self._served_at_s = None

    def looked(self, is_served: bool) -> None:
        """``is_served``: whether any push worker asked for work since the last look. Raises StoreUnavailable."""
        now_s = self._clock.monotonic_s()
        if is_served or self._served_at_s is None:
            self._served_at_s = now_s
        if is_served:
            self._relieve()
            return
        late = {
            data_type
            for data_type, interval_s in self._intervals_s.items()
            if now_s - self._served_at_s >= interval_s + LATE_AFTER_S
        }
        if not late:
            return
        self._told, self._back_ms = True, None
        for watch in list(self._watches()):
            believers = [phone for phone in watch.phones if watch.data_type in late and _believes(phone, watch)]
            if believers:
                frame = encode_status(watch.data_type, Freshness.DELAYED, REASON, MESSAGE)
                self._tell(believers, watch.data_type, Freshness.DELAYED, REASON, frame)

    def _relieve(self) -> None:
        """Who was told is told otherwise as soon as the exchange has confirmed what is stored, or a home keeps it."""
        if not self._told:
            return
        if self._back_ms is None:
            self._back_ms = self._clock.wall_ms() - BEFORE_MS
        homes_are_known = self._clock.wall_ms() - self._back_ms >= HOMES_KNOWN_MS
        is_over = True
        told = [watch for watch in self._watches() if any(_was_told(phone, watch) for phone in watch.phones)]
        for start in range(0, len(told), READ_BATCH):
            batch = told[start : start + READ_BATCH]
            stored = self._read([(watch.user_id, watch.data_type) for watch in batch])
            live = self._live_bits({watch.user_id for watch in batch}) if homes_are_known else {}
            for watch, state in zip(batch, stored, strict=True):
                if state.status is not Freshness.LIVE:
                    # A push worker's word, to be followed by another of its own.
                    continue
                is_kept_fresh = is_kept(watch.data_type, live.get(watch.user_id, 0))
                if state.confirmed_ms < self._back_ms and not is_kept_fresh:
                    is_over = False
                    continue
                phones = [phone for phone in watch.phones if _was_told(phone, watch)]
                frame = encode_status(watch.data_type, Freshness.LIVE, "", "Up to date")
                self._tell(phones, watch.data_type, Freshness.LIVE, "", frame)
        self._told = not is_over


def _believes(phone: Phone, watch: Watch) -> bool:
    return phone.told.get(watch.data_type, (Freshness.LIVE, ""))[0] is Freshness.LIVE


def _was_told(phone: Phone, watch: Watch) -> bool:
    return phone.told.get(watch.data_type) == TOLD
