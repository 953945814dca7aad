"""What a failure means for the next rounds of its user: who waits, for how long, and who is told."""

from __future__ import annotations

from collections.abc import Iterable

from pushserver.errors import ExchangeError, PermissionMissing, PushserverError, RequestRejected
from pushserver.model import DataType
from pushserver.observers import BackoffBegun, FetchFailed
from pushserver.workers.backoff import CAP_S, next_delay
from pushserver.workers.memo import Resource
from pushserver.workers.round_state import RoundState
from pushserver.workers.timing import NEEDS

#: What a key may not read is asked again once a day, in case its permissions were widened.
PERMISSION_AGAIN_S = 86_400.0


def resource_failed(state: RoundState, resource: Resource, error: ExchangeError) -> None:
    """The request gave no answer: this user's endpoint waits."""
    row = state.memo.resources[resource]
    row.failures += 1
    row.code = state.failure = error.code
    if isinstance(error, PermissionMissing):
        # Another key ends this wait, too: nothing of the old one's failures is kept.
        delay_s = PERMISSION_AGAIN_S
    elif isinstance(error, RequestRejected):
        # The same request will be refused the same way; it is only repeated in case the account was changed.
        delay_s = CAP_S
    else:
        delay_s = next_delay(row.failures, error.retry_after_s, state.tools.rng)
    row.retry_ms = state.now_ms() + round(delay_s * 1000)
    state.tools.observer.record(BackoffBegun(error.code, delay_s))
    touched = [data_type for data_type in DataType if data_type in state.watched and resource in NEEDS[data_type]]
    report(state, touched, error, error.endpoint or resource.value, delay_s)


def spoil(state: RoundState, data_types: Iterable[DataType], error: PushserverError, endpoint: str) -> None:
    """An answer came, but not what these types need: they wait their interval at least, and ever longer."""
    for data_type in data_types:
        row = state.memo.types[data_type]
        row.failures += 1
        row.code = state.failure = error.code
        interval_s = state.tools.timing.interval_ms(data_type) / 1000
        delay_s = max(interval_s, next_delay(row.failures, None, state.tools.rng))
        row.retry_ms = state.now_ms() + round(delay_s * 1000)
        state.tools.observer.record(BackoffBegun(error.code, delay_s))
        report(state, [data_type], error, endpoint, delay_s)


def report(
    state: RoundState, data_types: Iterable[DataType], error: PushserverError, endpoint: str, retry_in_s: float
) -> None:
    exchange_code = getattr(error, "exchange_code", None)
    for data_type in data_types:
        state.tools.observer.record(
            FetchFailed(
                user_id=state.user_id,
                round_id=state.round_id,
                data_type=data_type,
                code=error.code,
                endpoint=endpoint,
                exchange_code=exchange_code,
                message=error.message,
                retry_in_s=retry_in_s,
            )
        )
