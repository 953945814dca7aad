"""How many users' keys end when and can do what: counted in Redis, each user once, however many workers there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.feeds.key_health import AccountHealth

SHARDS = 4
#: A user nobody watched for so long is counted no more; every watched one is checked daily.
FORGOTTEN_AFTER_S = 7 * 86_400
FORGOTTEN_AT_ONCE = 500
#: Stands for the end of a key that has none.
NEVER = 10**15
#: Upper ends of the classes of days left, each with what is below it.
DAYS = (1, 7, 30, 90)
CLASSES = ("expired", *map(str, DAYS), "more", "never")


@dataclass(frozen=True, slots=True)
class KeyTotals:
    """``by_days_left``: users by class, as in CLASSES."""

    by_days_left: Mapping[str, int]
    can_trade: int
    can_withdraw: int


class KeyCounts:
    """All methods raise StoreUnavailable."""

    def __init__(self, client: Any) -> None:
        self._count = scripts.load(client, "key_count")
        self._counts = scripts.load(client, "key_counts")

    def count(self, user_id: int, health: AccountHealth) -> None:
        """Count the user's key by what is known of it now; one that the exchange refused, as expired or not at all."""
        if health.read_only is not None:
            ends: int | str = NEVER if health.expires_s is None else health.expires_s
        else:
            ends = 0 if any(problem.code == "key_expired" for problem in health.problems) else "forget"
        self._run(user_id, [ends, int(health.can_trade), int(health.can_withdraw)])

    def forget(self, user_id: int) -> None:
        self._run(user_id, ["forget", 0, 0])

    def totals(self) -> KeyTotals:
        arguments = [FORGOTTEN_AFTER_S, FORGOTTEN_AT_ONCE, NEVER, *DAYS]
        try:
            answers = [self._counts(_keys(shard), arguments) for shard in range(SHARDS)]
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        sums = [sum(column) for column in zip(*answers, strict=True)]
        return KeyTotals(dict(zip(CLASSES, sums, strict=False)), sums[-2], sums[-1])

    def _run(self, user_id: int, arguments: list[int | str]) -> None:
        try:
            self._count(_keys(user_id % SHARDS), [user_id, *arguments])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error


def _keys(shard: int) -> list[str]:
    return [keys.health_index(shard, part) for part in ("checked", "expiry", "trade", "withdraw")]
