"""When each type of a user is due, and when it is late; pure, told the time.

A type is made of resources: ``balance`` of the wallet, ``orders`` of the open orders, ``positions`` of the position
list, ``pnl`` of position list, wallet and closed pnl together.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from pushserver.model import DataType
from pushserver.workers.memo import Memo, Resource, TypeMemo

NEEDS: Mapping[DataType, tuple[Resource, ...]] = {
    DataType.BALANCE: (Resource.WALLET,),
    DataType.POSITIONS: (Resource.POSITIONS,),
    DataType.PNL: (Resource.POSITIONS, Resource.WALLET, Resource.CLOSED_PNL),
    DataType.ORDERS: (Resource.ORDERS,),
}
#: Closed pnl is counted again so often even if nothing was seen to change.
RECOUNT_S = 120.0
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
    """``now_ms``: Redis's time at the start of the round; ``date``: the UTC day whose closed pnl is counted."""

    now_ms: int
    date: str


class Timing:
    """When each resource and type of a user is due."""

    def __init__(self, intervals: Mapping[DataType, float]) -> None:
        self._intervals = intervals

    def interval_ms(self, data_type: DataType) -> int:
        return round(self._intervals[data_type] * 1000)

    def wallet_interval_ms(self, watched: frozenset[DataType]) -> int:
        """Balance sets the pace; pnl alone needs the wallet as often as itself."""
        return self.interval_ms(DataType.BALANCE if DataType.BALANCE in watched else DataType.PNL)

    def wallet_is_due(self, memo: Memo, watched: frozenset[DataType], now_ms: int) -> bool:
        fetched_ms = memo.resources[Resource.WALLET].fetched_ms
        return memo.wallet_owed or elapsed(fetched_ms, self.wallet_interval_ms(watched), now_ms)

    def closed_is_due(self, memo: Memo, moment: Moment) -> bool:
        fetched_ms = memo.resources[Resource.CLOSED_PNL].fetched_ms
        return (
            memo.today is None
            or memo.today_date != moment.date
            or memo.recounts > 0
            or elapsed(fetched_ms, round(RECOUNT_S * 1000), moment.now_ms)
        )

    def type_due_ms(self, memo: Memo, data_type: DataType, watched: frozenset[DataType], moment: Moment) -> int:
        """The earliest moment at which this type may be refreshed; not after now means that it is due."""
        row = memo.types[data_type]
        main = memo.resources[NEEDS[data_type][0]]
        due_ms = 0
        if row.good_ms and main.fetched_ms <= moment.now_ms + CLOCK_WENT_BACK_MS:
            due_ms = main.fetched_ms + self.interval_ms(data_type)
        if data_type is DataType.BALANCE and memo.wallet_owed:
            due_ms = 0
        waits = [row.retry_ms, main.retry_ms]
        if data_type is DataType.PNL:
            if memo.realized is None or self.wallet_is_due(memo, watched, moment.now_ms):
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

    def late_at_ms(self, memo: Memo, data_type: DataType) -> int:
        """From when on this type's phones must be told that they see old figures."""
        row = memo.types[data_type]
        return max(row.good_ms, row.watched_ms) + self.interval_ms(data_type) + round(LATE_AFTER_S * 1000)

    def next_round_in_s(
        self, memo: Memo, watched: frozenset[DataType], moment: Moment, rng: random.Random
    ) -> float:  # fmt: skip
        """Seconds until something is due, near neighbours taken together."""
        now_ms = moment.now_ms
        due = [max(self.type_due_ms(memo, data_type, watched, moment), now_ms) for data_type in watched]
        for data_type in watched:
            late_at_ms = self.late_at_ms(memo, data_type)
            if failing_code(memo, data_type) and late_at_ms > now_ms:
                due.append(late_at_ms)
        first = min(due, default=now_ms + round(IDLE_S * 1000))
        together = max((at_ms for at_ms in due if at_ms <= first + COALESCE_S * 1000), default=first)
        return max(SHORTEST_PAUSE_S, (together - now_ms) / 1000 + rng.uniform(0.0, JITTER_S))


def elapsed(fetched_ms: int, interval_ms: int, now_ms: int) -> bool:
    return fetched_ms == 0 or now_ms - fetched_ms >= interval_ms or fetched_ms > now_ms + CLOCK_WENT_BACK_MS


def failing_code(memo: Memo, data_type: DataType) -> str:
    """Why this type cannot be refreshed at present; empty when nothing is known against it."""
    row: TypeMemo = memo.types[data_type]
    return row.code or next((memo.resources[part].code for part in NEEDS[data_type] if memo.resources[part].code), "")
