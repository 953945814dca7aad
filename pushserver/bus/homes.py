"""Which push worker is the home of which watched user: it holds the user's stream and keeps figures fresh between
rounds.

A home is a lease. While it lives, rounds ask the exchange less often for what the home keeps fresh; whoever stops
keeping it loses it by doing nothing, and its users are woken. The keys lie beside the schedule's, so a claim knows
of the home and a dropped user leaves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Protocol

from pushserver.bus import scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable
from pushserver.bus.schedule import by_shard, schedule_keys
from pushserver.model import DataType

#: How long a home may be silent before its users are polled as if it had never been.
HOME_LEASE_S = 8.0


class Live(IntFlag):
    """What a home keeps fresh.

    STREAM: the private stream is authenticated, subscribed and not silent, so changes of the account are noticed.
    MARKS: positions and pnl follow the ticker. BALANCE: so does the balance.
    """

    STREAM = 1
    MARKS = 2
    BALANCE = 4


#: What a healthy home must keep fresh, so that a type need only be reconciled now and then.
KEPT_BY: Mapping[DataType, Live] = {
    DataType.BALANCE: Live.STREAM | Live.BALANCE,
    DataType.POSITIONS: Live.STREAM | Live.MARKS,
    DataType.PNL: Live.STREAM | Live.MARKS,
    DataType.ORDERS: Live.STREAM,
}


def is_kept(data_type: DataType, live: int) -> bool:
    """Whether a healthy home keeps the type fresh."""
    return KEPT_BY[data_type] & live == KEPT_BY[data_type]


@dataclass(frozen=True, slots=True)
class Kept:
    """The users that could not be kept: another is their home by now; or the schedule does not know them any more."""

    lost: frozenset[int]
    unscheduled: frozenset[int]


class HomesPort(Protocol):
    """Guarantees: a user has at most one home; one that is not kept ends with its lease.

    ``holder`` names one process run. All methods raise StoreUnavailable when the store does not answer in time; what
    was asked may then have been done.
    """

    def take(self, user_ids: Iterable[int], holder: str, lease_s: float) -> set[int]:
        """Become the home of those that are scheduled and have none; returns them. Nothing is live at first."""
        ...

    def keep(self, live: Mapping[int, int], holder: str, lease_s: float) -> Kept:
        """Prolong the leases and say what is live. Homes that ended and that nobody has are taken back."""
        ...

    def leave(self, user_ids: Iterable[int], holder: str) -> None:
        """End these homes, where they are the holder's, and wake their users."""
        ...

    def sweep(self) -> int:
        """End homes whose lease is over and wake their users; how many."""
        ...


class Homes:
    """The homes all processes share, as HomesPort promises."""

    def __init__(self, client: Any, shards: int = 4) -> None:
        self._shards = shards
        self._take = scripts.load(client, "homes_take")
        self._keep = scripts.load(client, "homes_keep")
        self._leave = scripts.load(client, "wake_one", "homes_leave")
        self._live = scripts.load(client, "homes_live")

    def take(self, user_ids: Iterable[int], holder: str, lease_s: float) -> set[int]:
        calls = [
            (schedule_keys(shard), [_milliseconds(lease_s), holder, *users])
            for shard, users in by_shard(user_ids, self._shards)
        ]
        return {int(user) for answer in _run(self._take, calls) for user in answer}

    def keep(self, live: Mapping[int, int], holder: str, lease_s: float) -> Kept:
        calls = [
            (schedule_keys(shard), [_milliseconds(lease_s), holder, *_pairs(users, live)])
            for shard, users in by_shard(live, self._shards)
        ]
        lost: set[int] = set()
        unscheduled: set[int] = set()
        for others, unknown in _run(self._keep, calls):
            lost.update(map(int, others))
            unscheduled.update(map(int, unknown))
        return Kept(frozenset(lost), frozenset(unscheduled))

    def leave(self, user_ids: Iterable[int], holder: str) -> None:
        calls = [(schedule_keys(shard), [holder, *users]) for shard, users in by_shard(user_ids, self._shards)]
        _run(self._leave, calls)

    def live_bits(self, user_ids: Iterable[int]) -> dict[int, int]:
        """What the home of each user keeps fresh, 0 without one. Raises StoreUnavailable."""
        shards = list(by_shard(user_ids, self._shards))
        answers = _run(self._live, [(schedule_keys(shard), users) for shard, users in shards])
        return {
            user: int(bits)
            for (_, users), answer in zip(shards, answers, strict=True)
            for user, bits in zip(users, answer, strict=True)
        }

    def sweep(self) -> int:
        return sum(map(int, _run(self._leave, [(schedule_keys(shard), []) for shard in range(self._shards)])))


def _run(script: scripts.Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
    """One answer per shard, all in one round trip. Raises StoreUnavailable."""
    if not calls:
        return []
    try:
        answers = script.pipelined(calls)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
    except REDIS_FAILURES as error:
        raise unavailable(error) from error
    return answers


def _pairs(users: Sequence[int], live: Mapping[int, int]) -> list[int]:
    return [value for user in users for value in (user, int(live[user]))]


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
