"""A signed-in connection: who it is, what it subscribed to, what it was given last."""

from __future__ import annotations

from dataclasses import dataclass, field

from pushserver.events import encode_event, error_payload
from pushserver.model import DataType, Freshness
from pushserver.tokens import Claims
from pushserver.web.connection import Connection
from pushserver.web.pace import Pace

FLOOD_ERROR_EVERY_S = 10.0


class EventBudget(Pace):
    """The pace of events, and how often their sender is told of it."""

    __slots__ = ("_told_at_s",)

    def __init__(self, burst: int, per_s: float, now_s: float) -> None:
        super().__init__(burst, per_s, now_s)
        self._told_at_s: float | None = None

    def must_tell(self, now_s: float) -> bool:
        """Whether the sender should hear (again) that it is too fast."""
        if self._told_at_s is not None and now_s - self._told_at_s < FLOOD_ERROR_EVERY_S:
            return False
        self._told_at_s = now_s
        return True


@dataclass(slots=True, eq=False)
class Phone:
    """One device of one user. ``sid`` is its Socket.IO id in the namespace ``/``."""

    sid: str
    connection: Connection
    claims: Claims
    opened_at_s: float
    budget: EventBudget
    subscribed: set[DataType] = field(default_factory=set)
    #: The ``seq`` last sent of each type since it was subscribed.
    delivered: dict[DataType, int] = field(default_factory=dict)
    #: State and reason last told of each type; a type never mentioned is live.
    told: dict[DataType, tuple[Freshness, str]] = field(default_factory=dict)
    told_error: str = ""
    #: The digest of the last ``account_health`` that was not ok; blank when there was none, or it is over.
    told_health: str = ""
    expiry_announced: bool = False
    kicked: bool = False

    @property
    def user_id(self) -> int:
        return self.claims.user_id

    @property
    def gone(self) -> bool:
        """Nothing is to be given to it any more: its connection ended, or is about to because it was kicked."""
        return self.connection.closed or self.kicked

    def renew(self, claims: Claims) -> None:
        """Live on another token of the same user."""
        self.claims = claims
        self.expiry_announced = False
        self.connection.look_again_s = 0.0

    def emit(self, event: str, payload: object) -> None:
        self.connection.send_message(encode_event(event, payload))

    def emit_error(self, code: str, message: str, retryable: bool = False, **more: object) -> dict[str, object]:
        """Send an ``error`` event; its body, for the ack."""
        payload = error_payload(code, message, retryable, **more)
        self.emit("error", payload)
        return payload

    def types(self) -> list[str]:
        """What is subscribed, in the contract's order."""
        return [data_type.value for data_type in DataType if data_type in self.subscribed]
