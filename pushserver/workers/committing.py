"""Makes each type that is whole out of the round's answers and commits it on its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pushserver.errors import AnswerMalformed, ClockSkew, ExchangeError
from pushserver.events import EncodedUpdate, encode_update
from pushserver.model import AccountData, Balance, DataType, Pnl
from pushserver.observers import StateCommitted
from pushserver.workers.failing import spoil
from pushserver.workers.mark_bases import balance_base, pnl_base, positions_base
from pushserver.workers.memo import Resource
from pushserver.workers.plan import RoundPlan
from pushserver.workers.round_state import RoundState
from pushserver.workers.timing import NEEDS

logger = logging.getLogger(__name__)

#: After an answer that was older than what is stored.
STALE_AGAIN_MS = 1_000


def commit_read(state: RoundState, plan: RoundPlan, wave: Iterable[Resource]) -> None:
    """Commit what the answers of one wave are enough for: its phones do not wait for the rest of the round.

    Raises StoreUnavailable; what cannot be mapped is reported and waits, the other types go out.
    """
    whole = plan.served() - {DataType.PNL}
    _commit_types(state, plan, frozenset(kind for kind in whole if NEEDS[kind][0] in wave))


def commit_pnl(state: RoundState, plan: RoundPlan) -> None:
    """When the round is complete: only then it is known whether its figures belong together. Raises as above."""
    _commit_types(state, plan, plan.served() & {DataType.PNL})


def _commit_types(state: RoundState, plan: RoundPlan, served: frozenset[DataType]) -> None:
    for data_type in (kind for kind in DataType if kind in served):
        as_of_ms = min(state.answers[part].as_of_ms for part in NEEDS[data_type] if part in state.answers)
        encoded = _encoded(state, plan, data_type, as_of_ms)
        if encoded is not None:
            _commit(state, data_type, *encoded, as_of_ms)


def _commit(state: RoundState, data_type: DataType, update: EncodedUpdate, base: bytes, as_of_ms: int) -> None:
    done = state.tools.states.commit(state.user_id, data_type, update, as_of_ms, state.claim.token, base)
    age_s = (state.tools.clock.wall_ms() - as_of_ms) / 1000
    state.tools.observer.record(
        StateCommitted(state.user_id, state.round_id, data_type, done.result, age_s, done.listeners)
    )
    if done.result == "published":
        state.committed(NEEDS[data_type])
    row = state.memo.types[data_type]
    if row.status != done.told.value:
        # The memo lacks the last word (a worker died, Redis took no memo): what phones believe must be compared.
        row.told_ms = 0
    if done.result == "stale":
        row.code, row.retry_ms = ClockSkew.code, state.now_ms() + STALE_AGAIN_MS
    else:
        row.good_ms, row.failures, row.retry_ms, row.code = state.now_ms(), 0, 0, ""


def _encoded(
    state: RoundState, plan: RoundPlan, data_type: DataType, as_of_ms: int
) -> tuple[EncodedUpdate, bytes] | None:
    """The update, and what mark prices are applied to until the next."""
    error: ExchangeError
    try:
        data = _mapped(state, plan, data_type)
        update = encode_update(data_type, state.user_id, data, as_of_ms, state.tools.clock.wall_ms())
        return update, _base(state, data_type, data, as_of_ms)
    except ExchangeError as failure:
        error = failure
    except Exception:
        # A mapper that stumbles over one user's rows must not take that user's other types along.
        logger.exception("round %s: %s could not be mapped", state.round_id, data_type.value)
        error = AnswerMalformed("mapping failed")
    spoil(state, [data_type], error, NEEDS[data_type][0].value)
    return None


def _mapped(state: RoundState, plan: RoundPlan, data_type: DataType) -> AccountData:
    figures = state.tools.figures
    rows = state.answers[NEEDS[data_type][0]].rows
    if data_type is DataType.BALANCE:
        return figures.balance(rows)
    if data_type is DataType.POSITIONS:
        return figures.positions(rows)
    if data_type is DataType.ORDERS:
        return figures.orders(rows)
    if plan.realized is None or plan.today is None:
        raise AnswerMalformed("pnl lacks a figure")
    return figures.pnl(rows, plan.realized, plan.today)


def _base(state: RoundState, data_type: DataType, data: AccountData, as_of_ms: int) -> bytes:
    """Empty where nobody applies mark prices. A user without a home may have one a moment later."""
    if not state.tools.has_marks:
        return b""
    answer = state.answers.get(Resource.POSITIONS)
    rows = () if answer is None else answer.rows
    trace = state.memo.positions_trace if answer is None else state.tools.figures.positions_trace(rows)
    if isinstance(data, Balance):
        return balance_base(data, state.answers[Resource.WALLET].rows[0], as_of_ms, trace)
    if trace is None or data_type is DataType.ORDERS:
        return b""
    return pnl_base(data, rows, as_of_ms, trace) if isinstance(data, Pnl) else positions_base(rows, as_of_ms, trace)
