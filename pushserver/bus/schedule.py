"""Which user is due when: sorted sets that all push workers share, and no owner.

A worker claims due users for the length of a lease and completes each with its next due time. A claim that is never
completed (kill -9) simply falls due again when the lease ends. All times are Redis's own, so the workers' clocks
do not matter.

Who is due first is served first: the earliest virtual deadline. A woken user's deadline lies a head start before the
wake, so it overtakes routine work that is late by less than that, and can never starve what is late by more.
"""

from __future__ import annotations

import random
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pushserver.bus import keys, scripts
from pushserver.bus.connection import REDIS_FAILURES, unavailable

#: For a type that somebody just subscribed to: in front of everything that is not hopelessly late.
NEW_WATCHER_HEAD_START_S = 600.0
#: For a hint from a stream: in front of routine work, also where thousands of users stretch it by minutes.
HINT_HEAD_START_S = 300.0
#: For the hints of an account where something happens all the time: in front of what is due, not of what is late.
BUSY_HEAD_START_S = 5.0
#: From this head start on a wake counts as urgent.
URGENT_HEAD_START_S = 120.0
#: Users per wake or ensure script, so that no single call holds Redis for long.
BATCH = 500
#: Users that had to be added again (an emptied Redis, a first start) fall due over so many seconds, few ones sooner.
REFILL_SPREAD_S = 3.0
REFILL_USERS_PER_S = 50


@dataclass(frozen=True, slots=True)
class Claim:
    """One user, held until the lease ends. ``at_ms`` is Redis's time of the claim.

    ``overdue_s`` is true lateness, without any head start: of a woken user since it was woken. ``hints`` are the bits
    given with the wakes; those of a claim that died unfinished come again. ``live``: the bits of ``bus.homes`` that
    the user's home keeps fresh, 0 when its lease is over; ``homeless``: no worker is its home. ``head_start_s`` is the
    largest of those wakes.
    """

    user_id: int
    token: str
    overdue_s: float
    at_ms: int
    woken: bool = False
    hints: int = 0
    live: int = 0
    homeless: bool = True
    head_start_s: float = 0.0


class Look(NamedTuple):
    """Since this was last asked: whether the schedule or a part of it was lost, and whether anybody asked for work.

    The first time nothing was lost, and somebody asked.
    """

    emptied: bool
    is_served: bool


class SchedulePort(Protocol):
    """Guarantees: a user is held by at most one living claim; a claim not completed is due again after its lease.

    All methods raise StoreUnavailable when the store does not answer in time.
    """

    def wake(self, user_ids: Iterable[int], *, head_start_s: float = NEW_WATCHER_HEAD_START_S, hints: int = 0) -> None:
        """Due now; or, for a user held by a living claim, due at once when that claim completes.

        ``hints`` (bits, opaque here) reach the next claim, together with those of other wakes.
        """
        ...

    def ensure(self, user_ids: Iterable[int]) -> int:
        """Add users that are missing, spread over a few seconds; returns how many were."""
        ...

    def look(self) -> Look:
        """What became of the schedule."""
        ...

    def claim(self, limit: int, lease_s: float, holder: str, *, only_urgent: bool = False) -> list[Claim]:
        """At most ``limit`` due users. ``holder`` names the process, for people who look into Redis.

        ``only_urgent``: none but those that were woken to be in front of routine work.
        """
        ...

    def complete(self, claim: Claim, next_due_in_s: float) -> bool:
        """Give the user back, served; False when the lease went to another meanwhile."""
        ...

    def give_back(self, claim: Claim) -> bool:
        """Give the user back, not served: due now, with the hints of this claim; False as above."""
        ...

    def drop(self, claim: Claim) -> bool:
        """Forget the user and its home, unless it was woken meanwhile; False as above."""
        ...

    def depth(self) -> int:
        """Users in the schedule, held ones included."""
        ...


class Schedule:
    """The schedule all processes share, as SchedulePort promises. Keys of one shard lie in one slot (Redis Cluster)."""

    def __init__(self, client: Any, shards: int = 4, rng: random.Random | None = None) -> None:
        self._client = client
        self._shards = shards
        self._rng = rng or random.Random()  # noqa: S311 - only picks which shard is asked first
        self._claim = scripts.load(client, "clock_back", "claim")
        self._complete = scripts.load(client, "wake_one", "complete")
        self._wake = scripts.load(client, "wake_one", "wake")
        self._ensure = scripts.load(client, "ensure")
        self._lost_tokens: list[str] = []
        self._births: list[bytes] | None = None
        self._claimed_at: list[bytes | None] | None = None

    def wake(self, user_ids: Iterable[int], *, head_start_s: float = NEW_WATCHER_HEAD_START_S, hints: int = 0) -> None:
        how = [round(head_start_s * 1000), hints]
        try:
            for shard, users in by_shard(user_ids, self._shards):
                self._wake(keys=schedule_keys(shard), args=how + users)
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def ensure(self, user_ids: Iterable[int]) -> int:
        added = 0
        user_ids = list(user_ids)
        spread_s = refill_spread_s(len(user_ids))
        try:
            for shard, users in by_shard(user_ids, self._shards):
                arguments = [value for user in users for value in (user, first_due_ms(user, spread_s))]
                added += int(self._ensure(keys=[keys.due(shard)], args=arguments))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return added

    def look(self) -> Look:
        name = secrets.token_hex(8).encode()
        try:
            pipeline = self._client.pipeline(transaction=False)
            for shard in range(self._shards):
                pipeline.set(keys.birth(shard), name, nx=True, get=True)
            for shard in range(self._shards):
                pipeline.get(keys.last_seen(shard))
            answers = pipeline.execute()
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        births, claimed_at = [known or name for known in answers[: self._shards]], answers[self._shards :]
        look = Look(self._births not in (None, births), self._claimed_at != claimed_at)
        self._births, self._claimed_at = births, claimed_at
        return look

    def claim(self, limit: int, lease_s: float, holder: str, *, only_urgent: bool = False) -> list[Claim]:
        """As promised; claims whose answer got lost on the way are given back by the next call."""
        token = f"{holder}:{secrets.token_hex(6)}"
        try:
            self._give_back_lost()
            return self._take(limit, [round(lease_s * 1000), token, round(only_urgent * URGENT_HEAD_START_S * 1000)])
        except REDIS_FAILURES as error:
            self._lost_tokens.append(token)
            raise unavailable(error) from error

    def _take(self, limit: int, arguments: list[int | str]) -> list[Claim]:
        """All shards at once, each asked for its share; then those that may have more, one after the other."""
        first = self._rng.randrange(self._shards)
        shares = {
            (first + step) % self._shards: limit // self._shards + (step < limit % self._shards)
            for step in range(self._shards)
        }
        calls = [(_claim_keys(shard), [share, *arguments]) for shard, share in shares.items()]
        claims: list[Claim] = []
        rich = []
        for (shard, share), answer in zip(shares.items(), self._claim.pipelined(calls), strict=True):
            if isinstance(answer, Exception):
                raise answer
            granted = _claims(answer, str(arguments[1]))
            claims += granted
            if len(granted) == share:
                rich.append(shard)
        for shard in rich:
            if limit > len(claims):
                answer = self._claim(_claim_keys(shard), [limit - len(claims), *arguments])
                claims += _claims(answer, str(arguments[1]))
        return claims

    def complete(self, claim: Claim, next_due_in_s: float) -> bool:
        return self._finish(claim.user_id, claim.token, str(max(0, round(next_due_in_s * 1000))))

    def give_back(self, claim: Claim) -> bool:
        return self._finish(claim.user_id, claim.token, "again")

    def drop(self, claim: Claim) -> bool:
        return self._finish(claim.user_id, claim.token, "drop")

    def depth(self) -> int:
        try:
            return sum(int(self._client.zcard(keys.due(shard))) for shard in range(self._shards))
        except REDIS_FAILURES as error:
            raise unavailable(error) from error

    def next_due_ms(self, user_id: int) -> int | None:
        """When the user falls due, in Redis's time; None when it is not in the schedule."""
        try:
            score = self._client.zscore(keys.due(user_id % self._shards), user_id)
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return None if score is None else int(score)

    def _finish(self, user_id: int, token: str, next_due: str) -> bool:
        try:
            done = self._complete(keys=schedule_keys(user_id % self._shards), args=[user_id, token, next_due])
        except REDIS_FAILURES as error:
            raise unavailable(error) from error
        return bool(done)

    def _give_back_lost(self) -> None:
        """Redis may have granted a claim whose answer never arrived; nobody works on those users."""
        while self._lost_tokens:
            token = self._lost_tokens[-1]
            for shard in range(self._shards):
                for user, held_by in self._client.hgetall(keys.leases(shard)).items():
                    if held_by.split(b" ")[0] == token.encode():
                        self._complete(keys=schedule_keys(shard), args=[user, token, "again"])
            self._lost_tokens.pop()


def by_shard(user_ids: Iterable[int], shards: int) -> Iterable[tuple[int, list[int]]]:
    """Each shard with its users, in batches that do not hold Redis for long."""
    users_of: dict[int, list[int]] = defaultdict(list)
    for user_id in user_ids:
        users_of[user_id % shards].append(user_id)
    for shard, users in users_of.items():
        for start in range(0, len(users), BATCH):
            yield shard, users[start : start + BATCH]


def schedule_keys(shard: int) -> list[str]:
    """All keys of one shard, in the order of the scripts; they lie in one slot."""
    return [
        keys.due(shard),
        keys.leases(shard),
        keys.wakes(shard),
        keys.homes(shard),
        keys.home_tokens(shard),
        keys.home_live(shard),
    ]


def _claim_keys(shard: int) -> list[str]:
    return [*schedule_keys(shard), keys.last_seen(shard)]


def spread(user_id: int) -> float:
    """A fixed fraction in [0, 1) of each user's own, evenly scattered: neighbours are far apart."""
    return (user_id * 2_654_435_761 % 2**32) / 2**32


def refill_spread_s(users: int) -> float:
    """Over how long so many missing users may fall due: no herd, and no waiting for its own sake."""
    return min(REFILL_SPREAD_S, users / REFILL_USERS_PER_S)


def first_due_ms(user_id: int, spread_s: float) -> int:
    return int(spread(user_id) * spread_s * 1000)


def _claims(answer: list[Any], token: str) -> list[Claim]:
    """``[now, row, row, …]`` from the script."""
    at_ms = int(answer[0])
    return [
        Claim(int(user), token, int(overdue) / 1000, at_ms, bool(woken), hints, live, bool(homeless), head / 1000)
        for user, overdue, woken, hints, homeless, live, head in answer[1:]
    ]
