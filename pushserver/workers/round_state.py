"""What the parts of one round share: its user, its time, its answers so far, and the tools all rounds work with."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pushserver import correlation
from pushserver.bus.schedule import Claim
from pushserver.bus.states import States
from pushserver.clock import Clock
from pushserver.exchange.port import Answer
from pushserver.model import DataType
from pushserver.observers import Observer, StageTimed
from pushserver.workers.asking import Asking, Silenced
from pushserver.workers.credentials import CredentialsCache
from pushserver.workers.figures import Figures
from pushserver.workers.memo import Memo, Resource
from pushserver.workers.statuses import Statuses
from pushserver.workers.timing import Moment, Timing

#: How long a claim is held; after a kill -9 the users wait for its end.
LEASE_S = 12.0
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Tools:
    """What every round works with. ``has_marks``: mark prices are applied to what rounds fetch."""

    asking: Asking
    states: States
    credentials: CredentialsCache
    figures: Figures
    timing: Timing
    statuses: Statuses
    observer: Observer
    clock: Clock
    rng: random.Random
    has_marks: bool = False


@dataclass(slots=True)
class RoundState:
    """``started_s``: when the claim was received, on our monotonic clock. ``memo`` is changed in place.

    ``arrived_s``: when each answer came, on the same clock.

    ``failure`` is the last failure's code; ``silenced`` is set when our address may not ask.
    """

    tools: Tools
    claim: Claim
    round_id: str
    memo: Memo
    watched: frozenset[DataType]
    started_s: float
    answers: dict[Resource, Answer] = field(default_factory=dict)
    arrived_s: dict[Resource, float] = field(default_factory=dict)
    requests: int = 0
    failure: str = ""
    silenced: Silenced | None = None

    @property
    def user_id(self) -> int:
        return self.claim.user_id

    def arrived(self, resource: Resource, as_of_ms: int) -> None:
        """An answer came, stamped ``as_of_ms`` by the exchange."""
        clock = self.tools.clock
        self.arrived_s[resource] = clock.monotonic_s()
        self.tools.observer.record(StageTimed("exchange_to_answer", {max(0, clock.wall_ms() - as_of_ms) / 1000: 1}))

    def committed(self, needed: Iterable[Resource]) -> None:
        """What was made of these answers is on its way to the phones."""
        arrived_s = [self.arrived_s[resource] for resource in needed if resource in self.arrived_s]
        if arrived_s:
            waited_s = self.tools.clock.monotonic_s() - max(arrived_s)
            self.tools.observer.record(StageTimed("answer_to_commit", {waited_s: 1}))

    def mark_lines(self) -> None:
        """What the running greenlet logs from now on carries the round's and the user's id."""
        correlation.bind(round=self.round_id, user=self.user_id)

    def elapsed_s(self) -> float:
        return self.tools.clock.monotonic_s() - self.started_s

    def holds_lease(self) -> bool:
        """False for a worker that overslept: its user, memo and statuses belong to whoever claimed since."""
        return self.elapsed_s() < LEASE_S

    def now_ms(self) -> int:
        """Redis's time now: its time at the claim and what has passed here since."""
        return self.claim.at_ms + round(self.elapsed_s() * 1000)

    def moment(self) -> Moment:
        return Moment(self.now_ms(), utc_date(self.tools.clock.wall_ms()), self.claim.live)


def utc_date(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).date().isoformat()


def midnight_ms(date: str) -> int:
    """Milliseconds of 00:00 UTC at the beginning of ``date``."""
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)


def seconds_to_midnight(wall_ms: int) -> float:
    """Until the next 00:00 UTC."""
    return (DAY_MS - wall_ms % DAY_MS) / 1000
