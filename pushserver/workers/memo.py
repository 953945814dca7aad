"""What a worker must know of a user's last rounds, whoever ran them; kept in Redis between rounds.

All times are Redis's own milliseconds, so any worker may go on where another stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

import orjson

from pushserver.feeds.closed_pnl import ClosedDay
from pushserver.model import DataType

#: Between two Redis servers that follow one another, clocks may differ by so much.
CLOCK_STEP_MS = 2_000


class Resource(StrEnum):
    """What is asked of the exchange, in the order of a round."""

    POSITIONS = "positions"
    WALLET = "wallet"
    CLOSED_PNL = "closed_pnl"
    ORDERS = "orders"


@dataclass(slots=True)
class ResourceMemo:
    """``fetched_ms``: start of the round that last read it, 0 = never. Not asked before ``retry_ms``.

    ``wanted_ms``: from when on it is due because of a hint, 0 = no hint is open. ``seen``: what it showed last.
    """

    fetched_ms: int = 0
    wanted_ms: int = 0
    seen: str = ""
    failures: int = 0
    retry_ms: int = 0
    code: str = ""


@dataclass(slots=True)
class TypeMemo:
    """``good_ms``: when it was last committed; ``watched_ms``: since when somebody listens, 0 = nobody does.

    ``failures``, ``retry_ms`` and ``code`` tell of answers that came but could not be used for this type.
    ``status`` is what the phones were told last and ``told_ms`` when; blank when that is not known.
    """

    good_ms: int = 0
    watched_ms: int = 0
    failures: int = 0
    retry_ms: int = 0
    code: str = ""
    status: str = ""
    reason: str = ""
    until_ms: int | None = None
    told_ms: int = 0


@dataclass(slots=True)
class Stop:
    """The key that must be replaced before this user is served again; ``key_version`` None: there was none."""

    code: str
    key_version: int | None
    at_ms: int


@dataclass(slots=True)
class Memo:
    """All that is remembered of one user.

    ``recounts``: closed-pnl counts still owed after a change; ``wallet_owed``: a change was seen, but not its wallet.
    ``closed_day``: what need not be read again to count ``today``.
    The traces tell whether the account changed: see ``figures``. ``heard_ms``: when anybody last listened;
    ``idle_rounds``: rounds in a row since, in which nobody did. ``late_rounds``: rounds in a row begun far too late.
    """

    key_version: int | None = None
    heard_ms: int = 0
    idle_rounds: int = 0
    late_rounds: int = 0
    crashes: int = 0
    positions_trace: str | None = None
    wallet_trace: str | None = None
    closed_trace: str | None = None
    realized: str | None = None
    today: str | None = None
    today_date: str = ""
    closed_day: ClosedDay | None = None
    recounts: int = 0
    wallet_owed: bool = False
    stop: Stop | None = None
    resources: dict[Resource, ResourceMemo] = field(
        default_factory=lambda: {resource: ResourceMemo() for resource in Resource}
    )
    types: dict[DataType, TypeMemo] = field(
        default_factory=lambda: {data_type: TypeMemo() for data_type in DataType}
    )  # fmt: skip

    def to_bytes(self) -> bytes:
        return orjson.dumps(self, default=_written, option=orjson.OPT_NON_STR_KEYS)

    @classmethod
    def from_bytes(cls, raw: bytes | None, now_ms: int | None = None) -> Memo:
        """A memo that is missing, damaged, of another program version or of another clock counts as none.

        ``now_ms``: the time to which it must not be ahead by more than ``CLOCK_STEP_MS``: what Redis restored under
        a clock that is behind would keep its user from being asked for until time catches up.
        """
        if raw is None:
            return cls()
        memo = cls._parsed(raw)
        return cls() if now_ms is not None and memo.newest_ms() > now_ms + CLOCK_STEP_MS else memo

    @classmethod
    def _parsed(cls, raw: bytes) -> Memo:
        try:
            values = orjson.loads(raw)
            stop, closed_day = values.pop("stop"), values.pop("closed_day", None)
            resources = {Resource(name): ResourceMemo(**row) for name, row in values.pop("resources").items()}
            types = {DataType(name): TypeMemo(**row) for name, row in values.pop("types").items()}
            memo = cls(**values, stop=None if stop is None else Stop(**stop))
            memo.closed_day = None if closed_day is None else ClosedDay.from_values(closed_day)
            memo.resources.update(resources)
            memo.types.update(types)
            for figure in (memo.realized, memo.today):
                Decimal(figure or 0)
            return memo
        except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError):
            return cls()

    def newest_ms(self) -> int:
        """The latest moment that it tells of."""
        return max(self.heard_ms, *(row.fetched_ms for row in self.resources.values()))

    def use_key(self, version: int) -> None:
        """Another key may belong to another account: nothing remembered of figures or failures holds for it."""
        if self.key_version not in (None, version):
            fresh = Memo()
            self.positions_trace = self.wallet_trace = self.closed_trace = self.realized = self.today = None
            self.closed_day = None
            self.recounts, self.wallet_owed = 0, False
            self.resources = fresh.resources
            for row in self.types.values():
                row.good_ms = row.failures = row.retry_ms = 0
                row.code = ""
        self.key_version = version

    def hinted(self, resources: Iterable[Resource], now_ms: int) -> None:
        """These may show something new now; what was hinted stays wanted, since then, until it has been read."""
        for resource in resources:
            row = self.resources[resource]
            if not 0 < row.wanted_ms <= now_ms:
                row.wanted_ms = now_ms

    def listeners_changed(self, watched: frozenset[DataType], now_ms: int) -> None:
        """Remember since when each type is listened to; what nobody cared for was not late."""
        if watched:
            self.heard_ms = now_ms
            self.idle_rounds = 0
        for data_type, row in self.types.items():
            if data_type not in watched:
                row.watched_ms = 0
            elif row.watched_ms == 0:
                row.watched_ms = now_ms


def _written(value: object) -> str:
    """Exact figures as texts; orjson knows all else that a memo holds."""
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a memo holds no {type(value).__name__}")
