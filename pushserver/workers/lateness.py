"""Telling the phones of a round's user how fresh their types are, while the round may still speak for the user."""

from __future__ import annotations

import math

from pushserver.model import DataType, Freshness
from pushserver.workers.round_state import RoundState


def tell_late(state: RoundState, reason: str) -> float:
    """Tell of each type that is late by now, unless something else was told of it already.

    Returns the seconds until the next one is late. Raises StoreUnavailable.
    """
    now_ms, next_s = state.now_ms(), math.inf
    for data_type in state.watched:
        late_at_ms = state.tools.timing.late_at_ms(state.memo, data_type, state.claim.live)
        if now_ms < late_at_ms:
            next_s = min(next_s, (late_at_ms - now_ms) / 1000)
        elif state.memo.types[data_type].status in ("", Freshness.LIVE.value):
            publish(state, data_type, Freshness.DELAYED, reason)
    return next_s


def publish(
    state: RoundState, data_type: DataType, freshness: Freshness, reason: str, until_ms: int | None = None
) -> None:
    """Raises StoreUnavailable."""
    if state.holds_lease():
        state.tools.statuses.tell(
            state.user_id, state.memo, state.now_ms(), data_type, freshness, reason, until_ms, state.claim.token
        )
