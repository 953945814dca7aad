"""What happens in a push worker, as records for observers; ``observers`` has them all."""

from __future__ import annotations

from dataclasses import dataclass

from pushserver.model import DataType, Freshness


@dataclass(frozen=True, slots=True)
class Record:
    """Base of all records."""


@dataclass(frozen=True, slots=True)
class UsersClaimed(Record):
    """``users`` were taken from the schedule, the longest overdue by ``lag_s``."""

    users: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class RequestAnswered(Record):
    """One HTTP request to the exchange: ``result`` is ``ok`` or an error's code, ``whose`` then the problem's owner."""

    endpoint: str
    result: str
    duration_s: float
    whose: str = ""


@dataclass(frozen=True, slots=True)
class ExchangeClockMeasured(Record):
    """The exchange's clock is ``offset_s`` ahead of ours; told when that changes."""

    offset_s: float


@dataclass(frozen=True, slots=True)
class RoundFinished(Record):
    """One fetch round of one user. ``result``: ok, failed, idle (nobody listens), lost (the lease went to another)."""

    user_id: int
    round_id: str
    result: str
    duration_s: float
    requests: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class FetchFailed(Record):
    """One type of one user could not be refreshed; the last good state stays."""

    user_id: int
    round_id: str
    data_type: DataType
    code: str
    endpoint: str
    exchange_code: int | None
    message: str
    retry_in_s: float


@dataclass(frozen=True, slots=True)
class StateCommitted(Record):
    """``result``: published, unchanged, stale (older than what is stored). ``age_s``: exchange's stamp to now."""

    user_id: int
    round_id: str
    data_type: DataType
    result: str
    age_s: float
    listeners: int = 0


@dataclass(frozen=True, slots=True)
class FreshnessChanged(Record):
    user_id: int
    data_type: DataType
    state: Freshness
    reason: str


@dataclass(frozen=True, slots=True)
class AddressPaused(Record):
    """The exchange refused our address; nothing is asked for ``seconds``."""

    code: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RequestsPaid(Record):
    """``count`` requests may be sent, after ``wait_s`` of waiting for the budget."""

    count: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class PaymentForfeited(Record):
    """``count`` requests were paid for and not sent in time."""

    count: int


@dataclass(frozen=True, slots=True)
class BudgetMeasured(Record):
    """``headroom``: the share of the address's budget that nobody used in the last window."""

    headroom: float
    is_short: bool
    is_paused: bool


@dataclass(frozen=True, slots=True)
class KeyChecked(Record):
    """The exchange was asked about a user's key: ok, warning, critical, or failed (it gave no answer)."""

    result: str


@dataclass(frozen=True, slots=True)
class KeysCounted(Record):
    """So many users' keys, over all workers, have so many days left (a class of ``bus.key_counts``)."""

    days_left: str
    keys: int


@dataclass(frozen=True, slots=True)
class KeysTooMighty(Record):
    """So many users' keys, over all workers, can do what we never need. ``right``: trade, withdraw."""

    right: str
    keys: int
