"""When each type of a user is due, and when it is late; pure, told the time.

A type is made of resources: ``balance`` of the wallet, ``orders`` of the open orders, ``positions`` of the position
list, ``pnl`` of position list, wallet and closed pnl together.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from pushserver.bus.homes import Live, is_kept
from pushserver.model import DataType
from pushserver.workers.memo import Memo, Resource, ResourceMemo, TypeMemo

NEEDS: Mapping[DataType, tuple[Resource, ...]] = {
    DataType.BALANCE: (Resource.WALLET,),
    DataType.POSITIONS: (Resource.POSITIONS,),
    DataType.PNL: (Resource.POSITIONS, Resource.WALLET, Resource.CLOSED_PNL),
    DataType.ORDERS: (Resource.ORDERS,),
}
#: Between reconciliations of what a home keeps fresh.
USUAL_RECONCILE_S = 60.0
#: A hinted resource that shows nothing new is read once more after this: the exchange's lists may lag its streams.
HINT_AGAIN_S = 1.5
#: A hint open for later than this comes from a clock that went back.
LONGEST_HINT_MS = 5_000
#: The longest pause between looks at a watched user, for whom all else may wait a day.
LONGEST_PAUSE_S = 60.0
#: Closed pnl is counted again so often even if nothing was seen to change; less often where a stream would tell.
RECOUNT_S = 120.0
STREAMED_RECOUNT_S = 300.0
#: What a home keeps fresh is known to be true while its stream is healthy: only so many missed reconciliations are
#: worth a word to its phones.
RECONCILES_MISSED = 2
#: Nobody listens: how long the user stays in the schedule, and how often it is looked at meanwhile; soon at first.
GRACE_S = 30.0
IDLE_S = 2.0
FIRST_IDLE_S = 0.5
#: A type that is older than its interval and this much is late, and its phones are told.
LATE_AFTER_S = 1.5
#: Resources that fall due within so short a time are read in one round.
COALESCE_S = 0.3
#: Keeps users who began together from staying together.
JITTER_S = 0.1
SHORTEST_PAUSE_S = 0.05
#: A remembered time so far ahead of now means that Redis's clock went back: it counts as long ago.
CLOCK_WENT_BACK_MS = 1_000


@dataclass(frozen=True, slots=True)
class Moment:
    """``now_ms``: Redis's time at the start of the round; ``date``: the UTC day whose closed pnl is counted.

    ``live``: the bits of ``bus.homes.Live`` that the user's home keeps fresh.
    """

    now_ms: int
    date: str
    live: int = 0


class Timing:
    """When each resource and type of a user is due."""

    def __init__(self, intervals: Mapping[DataType, float], reconcile_s: float = USUAL_RECONCILE_S) -> None:
        self._intervals = intervals
        self._reconcile_ms = round(reconcile_s * 1000)

    def interval_ms(self, data_type: DataType, live: int = 0) -> int:
        """The configured interval, or the longer one that is enough for what a home keeps fresh (``live``)."""
        configured_ms = round(self._intervals[data_type] * 1000)
        return max(configured_ms, self._reconcile_ms) if is_kept(data_type, live) else configured_ms

    def wallet_interval_ms(self, watched: frozenset[DataType], live: int = 0) -> int:
        """Balance sets the pace; pnl alone needs the wallet as often as itself."""
        return self.interval_ms(DataType.BALANCE if DataType.BALANCE in watched else DataType.PNL, live)

    def wallet_is_due(self, memo: Memo, watched: frozenset[DataType], moment: Moment) -> bool:
        row = memo.resources[Resource.WALLET]
        due = elapsed(row.fetched_ms, self.wallet_interval_ms(watched, moment.live), moment.now_ms)
        return memo.wallet_owed or due or is_wanted(row, moment.now_ms)

    def closed_is_due(self, memo: Memo, moment: Moment) -> bool:
        row = memo.resources[Resource.CLOSED_PNL]
        fetched_ms = row.fetched_ms
        recount_s = STREAMED_RECOUNT_S if moment.live & Live.STREAM else RECOUNT_S
        return (
            memo.today is None
            or is_wanted(row, moment.now_ms)
            or memo.today_date != moment.date
            or memo.recounts > 0
            or elapsed(fetched_ms, round(recount_s * 1000), moment.now_ms)
        )

    def type_due_ms(self, memo: Memo, data_type: DataType, watched: frozenset[DataType], moment: Moment) -> int:
        """The earliest moment at which this type may be refreshed; not after now means that it is due."""
        row = memo.types[data_type]
        main = memo.resources[NEEDS[data_type][0]]
        due_ms = 0
        if row.good_ms and main.fetched_ms <= moment.now_ms + CLOCK_WENT_BACK_MS:
            due_ms = main.fetched_ms + self.interval_ms(data_type, moment.live)
            if self.interval_ms(data_type, moment.live) > self.interval_ms(data_type) and row.watched_ms > row.good_ms:
                # What a home keeps fresh for this type begins with a commit of it.
                due_ms = 0
        for part in (memo.resources[resource] for resource in NEEDS[data_type]):
            if part.wanted_ms:
                due_ms = 0 if is_wanted(part, moment.now_ms) else min(due_ms, part.wanted_ms)
        if data_type is DataType.BALANCE and memo.wallet_owed:
            due_ms = 0
        if data_type is DataType.PNL and memo.today_date != moment.date:
            # Yesterday's profit is not today's.
            due_ms = 0
        waits = [row.retry_ms, main.retry_ms]
        if data_type is DataType.PNL:
            if memo.realized is None or self.wallet_is_due(memo, watched, moment):
                waits.append(memo.resources[Resource.WALLET].retry_ms)
            if self.closed_is_due(memo, moment):
                waits.append(memo.resources[Resource.CLOSED_PNL].retry_ms)
        return max(due_ms, *waits)

    def due_types(self, memo: Memo, watched: frozenset[DataType], moment: Moment) -> frozenset[DataType]:
        return frozenset(
            data_type
            for data_type in watched
            if self.type_due_ms(memo, data_type, watched, moment) <= moment.now_ms
        )  # fmt: skip

    def late_at_ms(self, memo: Memo, data_type: DataType, live: int = 0) -> int:
        """From when on this type's phones must be told that they see old figures."""
        row = memo.types[data_type]
        seen_ms, after_ms = max(row.good_ms, row.watched_ms), round(LATE_AFTER_S * 1000)
        if not is_kept(data_type, live):
            return seen_ms + self.interval_ms(data_type) + after_ms
        late_ms = seen_ms + RECONCILES_MISSED * self.interval_ms(data_type, live) + after_ms
        # Of what a hint is open about, it is known that it is old.
        hinted_ms = [memo.resources[part].wanted_ms for part in NEEDS[data_type] if memo.resources[part].wanted_ms]
        return min([late_ms, *(at_ms + self.interval_ms(data_type) + after_ms for at_ms in hinted_ms)])

    def next_round_in_s(
        self, memo: Memo, watched: frozenset[DataType], moment: Moment, rng: random.Random
    ) -> float:  # fmt: skip
        """Seconds until something is due, near neighbours taken together."""
        now_ms = moment.now_ms
        due = [max(self.type_due_ms(memo, data_type, watched, moment), now_ms) for data_type in watched]
        for data_type in watched:
            late_at_ms = self.late_at_ms(memo, data_type, moment.live)
            if failing_code(memo, data_type) and late_at_ms > now_ms:
                due.append(late_at_ms)
        first = min(due, default=now_ms + round(IDLE_S * 1000))
        together = max((at_ms for at_ms in due if at_ms <= first + COALESCE_S * 1000), default=first)
        pause_s = (together - now_ms) / 1000 + rng.uniform(0.0, JITTER_S)
        return min(LONGEST_PAUSE_S, max(SHORTEST_PAUSE_S, pause_s))


def elapsed(fetched_ms: int, interval_ms: int, now_ms: int) -> bool:
    return fetched_ms == 0 or now_ms - fetched_ms >= interval_ms or fetched_ms > now_ms + CLOCK_WENT_BACK_MS


def is_wanted(row: ResourceMemo, now_ms: int) -> bool:
    """A hint about it is open."""
    return row.wanted_ms > 0 and (row.wanted_ms <= now_ms or row.wanted_ms > now_ms + LONGEST_HINT_MS)


def failing_code(memo: Memo, data_type: DataType) -> str:
    """Why this type cannot be refreshed at present; empty when nothing is known against it."""
    row: TypeMemo = memo.types[data_type]
    return row.code or next((memo.resources[part].code for part in NEEDS[data_type] if memo.resources[part].code), "")
