"""How a round ended, and which place its user gets in the schedule for it."""

from __future__ import annotations

from dataclasses import dataclass

from pushserver.bus.schedule import HINT_HEAD_START_S, NEW_WATCHER_HEAD_START_S, Claim, SchedulePort
from pushserver.workers.asking import Urgency

HEAD_STARTS_S = {Urgency.NEW_WATCHER: NEW_WATCHER_HEAD_START_S, Urgency.HINT: HINT_HEAD_START_S}


@dataclass(frozen=True, slots=True)
class Ending:
    """``result``: ok, failed or idle. ``next_due_in_s`` None: nobody listens any more, drop the user.

    ``head_start_s``: before others by so much, with these ``hints``, because it was urgent and a crowd kept it from
    asking.
    """

    result: str
    next_due_in_s: float | None
    requests: int = 0
    code: str = ""
    head_start_s: float = 0.0
    hints: int = 0


def head_start_s(claim: Claim, urgency: Urgency) -> float:
    """For another claim of a user who is this urgent: no further in front than the last one was."""
    return min(claim.head_start_s, HEAD_STARTS_S.get(urgency, 0.0))


def give_back(schedule: SchedulePort, claim: Claim, ending: Ending) -> bool:
    """False when the lease went to another meanwhile. Raises StoreUnavailable."""
    if ending.head_start_s:
        schedule.wake([claim.user_id], head_start_s=ending.head_start_s, hints=ending.hints)
    if ending.next_due_in_s is None:
        return schedule.drop(claim)
    return schedule.complete(claim, ending.next_due_in_s)
