"""Which exchange key is to be checked when: one sorted set per shard that all push workers share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable

SHARDS = 4
#: Keys placed by one script, so that no single call holds Redis for long.
BATCH = 500


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """One key of one user; a replaced key has another version, hence a check of its own."""

    user_id: int
    version: int


class KeyChecks:
    """All methods raise StoreUnavailable."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._place = scripts.load(client, "check_place")
        self._claim = scripts.load(client, "check_claim")

    def add(self, due_in_s: Mapping[KeyCheck, float]) -> None:
        """Place the keys that have no place yet; the others keep theirs."""
        self._put("NX", due_in_s)

    def again(self, check: KeyCheck, in_s: float) -> None:
        """Give a claimed key its next time."""
        self._put("XX", {check: in_s})

    def claim(self, limit: int, lease_s: float) -> list[KeyCheck]:
        """Due keys, at most ``limit``; whoever dies holding one loses it when the lease ends."""
        found: list[bytes] = []
        try:
            for shard in range(SHARDS):
                if limit > len(found):
                    found += self._claim([keys.health_due(shard)], [limit - len(found), round(lease_s * 1000)])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return [_parsed(member) for member in found]

    def remove(self, check: KeyCheck) -> None:
        try:
            self._client.zrem(keys.health_due(check.user_id % SHARDS), _member(check))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def _put(self, flag: str, due_in_s: Mapping[KeyCheck, float]) -> None:
        shards: dict[int, list[str | int]] = defaultdict(list)
        for check, in_s in due_in_s.items():
            shards[check.user_id % SHARDS] += [_member(check), round(in_s * 1000)]
        try:
            for shard, values in shards.items():
                for start in range(0, len(values), 2 * BATCH):
                    self._place([keys.health_due(shard)], [flag, *values[start : start + 2 * BATCH]])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error


def _member(check: KeyCheck) -> str:
    return f"{check.user_id}:{check.version}"


def _parsed(member: bytes) -> KeyCheck:
    user_id, _, version = member.partition(b":")
    return KeyCheck(int(user_id), int(version))
