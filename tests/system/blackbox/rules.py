"""What the judges are told about a deployment, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

POSITIONS, WALLET = "/v5/position/list", "/v5/account/wallet-balance"
CLOSED_PNL, ORDERS = "/v5/position/closed-pnl", "/v5/order/realtime"


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach of the promise; ``t`` monotonic seconds."""

    verdict: str
    t: float
    text: str


@dataclass(frozen=True, slots=True)
class Rules:
    """``intervals_s`` by type, as the deployment is configured."""

    intervals_s: Mapping[str, float] = field(
        default_factory=lambda: {"balance": 2.0, "positions": 1.0, "pnl": 1.0, "orders": 2.0}
    )
    #: Requests of one address in a sliding window.
    address_requests: int = 480
    address_window_s: float = 5.0
    #: Requests of one user to one endpoint in a sliding second.
    user_requests_per_s: int = 50
    #: Requests that were under way when the first answer told of a ban arrive within so long after it.
    ban_told_s: float = 0.5
    #: G7: a blocked type's clients are told within its interval and this much; ``slack_s`` for a busy machine.
    status_after_s: float = 2.0
    slack_s: float = 1.0
    #: What a fault excuses (an extra fetch, a state sent again) it excuses so long after its end: a lease and a little.
    fault_memory_s: float = 15.0
    #: Events of the exchange's streams cause readings between those of the intervals, so far apart; None: no streams.
    hints_apart_s: float | None = None
    #: While an account changes, its positions are read so many times in one round at most.
    most_readings: int = 4

    def double_within_s(self, endpoint: str) -> float:
        """Two readings of an endpoint that are nearer than this are one too many."""
        half_s = (self.endpoint_interval_s(endpoint) or 0.0) / 2
        return half_s if self.hints_apart_s is None else min(half_s, self.hints_apart_s)

    def endpoint_interval_s(self, endpoint: str) -> float | None:
        """How often a user's endpoint is read at most; None for endpoints that no type needs."""
        every = self.intervals_s
        return {
            POSITIONS: min(every["positions"], every["pnl"]),
            WALLET: min(every["balance"], every["pnl"]),
            CLOSED_PNL: every["pnl"],
            ORDERS: every["orders"],
        }.get(endpoint)
