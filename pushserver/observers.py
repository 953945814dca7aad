"""What happens, told to whoever wants to know: business code reports one frozen record per happening.

Nothing here knows Prometheus or a log format; ``metrics`` and ``logs`` are observers. Durations are seconds.
``reason``, ``code``, ``result`` and ``endpoint`` are values of small closed sets, never input.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pushserver.mark_records import MarksCommitted as MarksCommitted, MarksMeasured as MarksMeasured
from pushserver.measure_records import (
    BackoffBegun as BackoffBegun,
    BreakerMeasured as BreakerMeasured,
    CanaryHeard as CanaryHeard,
    ConnectionsMeasured as ConnectionsMeasured,
    ListenerAged as ListenerAged,
    MetricsRoomMeasured as MetricsRoomMeasured,
    PingsAnswered as PingsAnswered,
    ProcessMeasured as ProcessMeasured,
    RedisTried as RedisTried,
    RoundsMeasured as RoundsMeasured,
    ScheduleMeasured as ScheduleMeasured,
    StageTimed as StageTimed,
    WatchSampled as WatchSampled,
)
from pushserver.model import DataType
from pushserver.stream_records import (
    HintServed as HintServed,
    HomesCounted as HomesCounted,
    HomesSwept as HomesSwept,
    StreamEnded as StreamEnded,
    StreamHinted as StreamHinted,
    StreamOddity as StreamOddity,
    StreamsCounted as StreamsCounted,
    StreamStarted as StreamStarted,
    TickerEnded as TickerEnded,
    TickerMeasured as TickerMeasured,
)
from pushserver.worker_records import (
    AddressPaused as AddressPaused,
    BudgetMeasured as BudgetMeasured,
    ExchangeClockMeasured as ExchangeClockMeasured,
    FetchFailed as FetchFailed,
    FreshnessChanged as FreshnessChanged,
    KeyChecked as KeyChecked,
    KeysCounted as KeysCounted,
    KeysTooMighty as KeysTooMighty,
    PaymentForfeited as PaymentForfeited,
    Record as Record,
    RequestAnswered as RequestAnswered,
    RequestsPaid as RequestsPaid,
    RoundFinished as RoundFinished,
    StateCommitted as StateCommitted,
    UsersClaimed as UsersClaimed,
)

logger = logging.getLogger(__name__)


# --- web worker ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HttpRequestRefused(Record):
    """A request that the application never saw: broken, too large, too slow, or an upgrade that cannot work."""

    code: str


@dataclass(frozen=True, slots=True)
class ConnectionOpened(Record):
    connection_id: str
    user_id: int
    carrier: str


@dataclass(frozen=True, slots=True)
class ConnectionRefused(Record):
    connection_id: str
    code: str


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Record):
    """``duration_s``: since it was opened."""

    connection_id: str
    user_id: int
    reason: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class SubscriptionChanged(Record):
    """``delta`` is +1 or -1."""

    data_type: DataType
    delta: int


@dataclass(frozen=True, slots=True)
class EventReceived(Record):
    """``event``: a known name or ``other``; ``result``: ok or an error code."""

    event: str
    result: str


@dataclass(frozen=True, slots=True)
class UpdateEmitted(Record):
    """An update left for ``connections`` sockets of one user. ``kind``: snapshot, resync, reread, status."""

    data_type: DataType
    kind: str
    user_id: int
    connections: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class UpdatesPushed(Record):
    """All pushes of a type since the last such record: they are too many for one each.

    ``size_bytes`` is what all ``connections`` were sent together; ``latencies_s`` tells how many messages took how
    long from the commit to the sockets.
    """

    data_type: DataType
    connections: int
    size_bytes: int
    latencies_s: Mapping[float, int]
    kind: str = "push"


@dataclass(frozen=True, slots=True)
class PushSampled(Record):
    """One push of many, for people who read along."""

    data_type: DataType
    user_id: int
    connections: int
    size_bytes: int
    latency_s: float


@dataclass(frozen=True, slots=True)
class UpdatesConflated(Record):
    """A newer state replaced ``count`` waiting ones on slow connections."""

    data_type: DataType
    count: int


@dataclass(frozen=True, slots=True)
class BusStateChanged(Record):
    """``state``: connected, lost, deaf. ``outage_s`` when it came back."""

    state: str
    outage_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BusMessageDropped(Record):
    reason: str


@dataclass(frozen=True, slots=True)
class LoginAttempted(Record):
    """``result``: ok, invalid_credentials, rate_limited, unavailable."""

    result: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class LifecycleReported(Record):
    """Start, ready, stop: one line each for the person on call."""

    component: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LoopLagMeasured(Record):
    """How often the event loop of ``component`` was how late, since the last such record."""

    component: str
    lags_s: Mapping[float, int]


class Observer:
    """Base of all observers: gets every record, ignores what it does not care for."""

    def record(self, record: Record) -> None:
        """Must be quick and must not block."""


class Observers(Observer):
    """Fans out; a broken member is logged and the others still hear."""

    def __init__(self, members: Iterable[Observer] = ()) -> None:
        self._members = tuple(members)

    def record(self, record: Record) -> None:
        for member in self._members:
            try:
                member.record(record)
            except Exception:
                logger.exception("observer %s failed on %s", type(member).__name__, type(record).__name__)


class RecordingObserver(Observer):
    """Keeps every record in order, for tests."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def record(self, record: Record) -> None:
        self.records.append(record)
