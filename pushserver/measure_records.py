"""What is measured now and then, as records for observers; many values in one where they are many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pushserver.model import DataType
from pushserver.worker_records import Record


@dataclass(frozen=True, slots=True)
class StageTimed(Record):
    """How often a change took how long in one stage of its way, since the last such record.

    ``stage``: exchange_to_answer (the exchange's stamp to its answer being here), answer_to_commit, commit_to_bus
    (until a web worker has it), bus_to_socket (until it is written, or waits for a slow client).
    """

    stage: str
    times_s: Mapping[float, int]


@dataclass(frozen=True, slots=True)
class PingsAnswered(Record):
    """How often clients took how long to answer a ping, since the last such record."""

    round_trips_s: Mapping[float, int]


@dataclass(frozen=True, slots=True)
class CanaryHeard(Record):
    """The bus listener heard what it had sent itself ``lag_s`` before."""

    lag_s: float


@dataclass(frozen=True, slots=True)
class ListenerAged(Record):
    """``age_s``: since the bus listener last heard its canary; if it never did, since it was started."""

    age_s: float


@dataclass(frozen=True, slots=True)
class ConnectionsMeasured(Record):
    """One web worker's connections now; in the outboxes of ``waiting`` of them lie ``messages`` not yet written, the
    oldest for ``stuck_s``."""

    connections: int
    waiting: int
    messages: int
    stuck_s: float


@dataclass(frozen=True, slots=True)
class WatchSampled(Record):
    """A look at what one watched user is shown. ``result``: fresh, late, stopped. ``age_s`` None: nothing is."""

    data_type: DataType
    result: str
    age_s: float | None


@dataclass(frozen=True, slots=True)
class RedisTried(Record):
    """Whether Redis takes what this process writes."""

    is_up: bool


@dataclass(frozen=True, slots=True)
class RoundsMeasured(Record):
    """A push worker now: ``rounds`` under way of at most ``slots``, and of ``most_slots`` while the exchange can be
    reached; ``requests`` that wait for an answer."""

    rounds: int
    slots: int
    most_slots: int
    requests: int


@dataclass(frozen=True, slots=True)
class ScheduleMeasured(Record):
    """``users`` in the schedule of all workers; ``headroom_users`` more like them could be served within the budget.

    ``limit``: requests that all our addresses together may send in a window.
    """

    users: int
    headroom_users: int
    limit: int


@dataclass(frozen=True, slots=True)
class BreakerMeasured(Record):
    """Whether the breaker is in this ``state``: closed, throttled (few rounds at a time: the exchange cannot be
    reached), open (nothing is asked)."""

    state: str
    is_it: bool


@dataclass(frozen=True, slots=True)
class BackoffBegun(Record):
    """Part of a user's account is not asked for during ``seconds``, because of ``code``."""

    code: str
    seconds: float


@dataclass(frozen=True, slots=True)
class ProcessMeasured(Record):
    """``cpu_s`` since the last such record; memory and open files now."""

    cpu_s: float
    resident_bytes: int
    open_files: int


@dataclass(frozen=True, slots=True)
class MetricsRoomMeasured(Record):
    """What is free where the metric files lie."""

    free_bytes: int
