"""Reading what a user closed today: only since the boundary while that is certain, else since midnight."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from pushserver.exchange.port import Answer
from pushserver.feeds.closed_pnl import ClosedDay, ClosedSums, advance
from pushserver.model import Credentials
from pushserver.workers.memo import Resource
from pushserver.workers.round_state import RoundState, midnight_ms
from pushserver.workers.timing import Moment, elapsed

#: So often the day is read whole, for rows that appeared later than anybody would wait for.
FULL_RECOUNT_S = 300.0


class Closing:
    """Of one round: ``ask``, then ``learn`` what came, as often as the round's plan wishes; ``remember`` at its end."""

    def __init__(self, state: RoundState) -> None:
        self._state = state
        self._known = state.memo.closed_day
        self._asked: ClosedDay | None = None
        self._inverse_marks: Mapping[str, Decimal] = {}

    def ask(self, credentials: Credentials, moment: Moment, deadline_s: float) -> Answer:
        """Raises as ``Asking.ask`` does."""
        asking = self._state.tools.asking
        day = self._known_day(moment) or _begun(moment)
        answer = asking.ask(Resource.CLOSED_PNL, credentials, day.boundary_ms, deadline_s)
        if day.counts_twice(answer.rows):
            self._state.requests += answer.requests
            day = _begun(moment)
            answer = asking.ask(Resource.CLOSED_PNL, credentials, day.boundary_ms, deadline_s)
        self._asked = day
        if day.settled.inverse or self._state.tools.figures.needs_inverse_marks(answer.rows):
            self._inverse_marks = asking.inverse_marks(deadline_s)
            self._state.requests += 1
        return answer

    def learn(self, answer: Answer) -> tuple[ClosedSums, Decimal]:
        """Today's sums, and their total in dollars. Raises AnswerMalformed."""
        assert self._asked is not None, "an answer has been asked for"
        sums, day = advance(self._asked, answer.rows, answer.as_of_ms)
        total = sums.in_dollars(self._inverse_marks)
        self._known = day
        return sums, total

    def remember(self) -> None:
        self._state.memo.closed_day = self._known

    def _known_day(self, moment: Moment) -> ClosedDay | None:
        day = self._known
        if day is None or day.date != moment.date:
            return None
        return None if elapsed(day.begun_ms, round(FULL_RECOUNT_S * 1000), moment.now_ms) else day


def _begun(moment: Moment) -> ClosedDay:
    return ClosedDay(moment.date, midnight_ms(moment.date), moment.now_ms)
