"""One fetch round of one user: ask what is due, commit what is whole, tell what is late.

A round knows nothing of pools, leases or processes. Whatever one resource or one type does wrong touches the types
that need it and no other.
"""

from __future__ import annotations

from threading import Lock

import gevent
from gevent import Greenlet

from pushserver.bus.homes import is_kept
from pushserver.bus.schedule import spread
from pushserver.errors import ExchangeError, ExchangeUnavailable, KeyRefused, PermissionMissing, StoreUnavailable
from pushserver.exchange.port import Answer
from pushserver.model import Credentials, DataType, Freshness
from pushserver.workers import committing, failing, lateness, stopping
from pushserver.workers.asking import Silenced, Urgency
from pushserver.workers.closing import Closing
from pushserver.workers.ending import Ending, head_start_s
from pushserver.workers.hints import CATCH_UP, hinted, hints_of
from pushserver.workers.memo import Resource
from pushserver.workers.plan import RoundPlan
from pushserver.workers.round_state import RoundState, midnight_ms, seconds_to_midnight
from pushserver.workers.timing import FIRST_IDLE_S, GRACE_S, IDLE_S, Moment, failing_code

#: A whole round's time at the exchange; well within the lease of a claim.
ROUND_DEADLINE_S = 8.0
#: After a pause of the address users come back one after another, over so many seconds.
RESUME_SPREAD_S = 5.0
#: A round that takes this long lets the lateness of its types be told while it is still waiting.
SLOW_ROUND_S = 1.0
#: Rounds that begin this late mean, when they repeat, that the workers cannot keep up.
OVERDUE_S = 2.0
#: What was due, but came to no whole figures although nothing failed, is asked again after this.
AGAIN_S = 1.0
#: Bounds of the rest that an endpoint asks for in its headers.
SHORTEST_REST_S, LONGEST_REST_S = 0.1, 60.0
UNSETTLED = "exchange_unsettled"


class Round:
    """``run`` it once; ``tell_if_late`` may be called from another greenlet meanwhile."""

    def __init__(self, state: RoundState) -> None:
        self.state = state
        self._status_lock = Lock()
        self._concluding = False
        self._closing = Closing(state)
        self._unasked = 0

    def run(self) -> Ending:
        """Raises StoreUnavailable: the round is lost, and so is what it learnt."""
        state, memo = self.state, self.state.memo
        memo.listeners_changed(state.watched, state.now_ms())
        memo.late_rounds = memo.late_rounds + 1 if state.claim.overdue_s > OVERDUE_S else 0
        if not state.watched:
            return self._idle()
        moment, hints = state.moment(), hinted(state.claim.hints)
        # Whatever becomes of this round, they stay open until they were looked at.
        memo.hinted(hints, moment.now_ms)
        credentials = stopping.usable_credentials(state)
        if credentials is None:
            return self._stopped() if memo.stop else self._end()
        memo.use_key(credentials.version)
        # Only what an event told of can be missing yet; after a time without a stream it is long there.
        told = frozenset[Resource]() if state.claim.hints == CATCH_UP else hints
        plan = RoundPlan(memo, state.watched, moment, state.tools.timing, told)
        due = state.tools.timing.due_types(memo, state.watched, moment)
        refused = self._read_all(plan, credentials, moment)
        if not state.tools.credentials.is_current(state.user_id, credentials.version):
            # The key was replaced under way: these answers may be another account's. Nothing of them is kept.
            return Ending("failed", 0.0, state.requests, "key_changed")
        if refused is not None:
            stopping.stop(state, refused, credentials.version)
            return self._stopped()
        committing.commit_pnl(state, plan)
        plan.remember()
        self._closing.remember()
        self._spare_the_exhausted()
        if not self._head_start_s():
            self._calm_the_unserved(plan, due)
        return self._end()

    def tell_if_late(self) -> None:
        """For the pool, while the round waits for the exchange: its phones must not wait as long.

        Raises StoreUnavailable.
        """
        state = self.state
        if state.elapsed_s() < SLOW_ROUND_S:
            return
        with self._status_lock:
            if self._concluding:
                return
            lateness.tell_late(state, ExchangeUnavailable.code)

    def crashed(self) -> float:
        """For the pool, when the round did not end by itself: what is late is told. Seconds until more of it is late.

        Raises StoreUnavailable.
        """
        with self._status_lock:
            self._concluding = True
            return lateness.tell_late(self.state, StoreUnavailable.code)

    def _idle(self) -> Ending:
        """Nobody listens: no request; after a while the user is dropped."""
        memo, now_ms = self.state.memo, self.state.now_ms()
        if not 0 < memo.heard_ms <= now_ms:
            memo.heard_ms = now_ms
        left_s = GRACE_S - (now_ms - memo.heard_ms) / 1000
        # While the web workers reconnect to the bus it looks for a moment as if nobody listened.
        pause_s = min(FIRST_IDLE_S * 2 ** min(memo.idle_rounds, 10), IDLE_S, left_s)
        memo.idle_rounds += 1
        return Ending("idle", None if left_s <= 0 else pause_s)

    def _stopped(self) -> Ending:
        state = self.state
        code = state.memo.stop.code if state.memo.stop else ""
        with self._status_lock:
            self._concluding = True
            for data_type in state.watched:
                lateness.publish(state, data_type, Freshness.STOPPED, code)
        return Ending("failed" if state.requests else "idle", stopping.CHECK_S, state.requests, code)

    def _read_all(self, plan: RoundPlan, credentials: Credentials, moment: Moment) -> KeyRefused | None:
        """Ask until the plan is content; the refusal when the key was refused."""
        while wave := plan.next_requests():
            try:
                self.state.tools.asking.pay(len(wave), self._urgency(), self._deadline_s())
            except Silenced as silenced:
                self._silenced(plan, wave, silenced)
                return None
            answers = self._ask_together(wave, credentials, moment)
            refused = self._tell(plan, wave, answers, moment)
            is_current = self.state.tools.credentials.is_current(self.state.user_id, credentials.version)
            if refused is None and is_current:
                committing.commit_read(self.state, plan, self.state.answers.keys() & set(wave))
            if refused is not None or not is_current or self.state.silenced is not None:
                return refused
        return None

    def _ask_together(
        self, wave: tuple[Resource, ...], credentials: Credentials, moment: Moment
    ) -> dict[Resource, Greenlet]:
        """Ended greenlets; a round that is cut off takes its requests along."""
        asked = {resource: gevent.spawn(self._outcome, resource, credentials, moment) for resource in wave}
        try:
            gevent.joinall(list(asked.values()))
        finally:
            gevent.killall(list(asked.values()), block=False)
        return asked

    def _outcome(self, resource: Resource, credentials: Credentials, moment: Moment) -> Answer | Exception:
        self.state.mark_lines()
        try:
            return self._ask(resource, credentials, moment)
        except Exception as error:
            # Raised again by who waits for it.
            return error

    def _silenced(self, plan: RoundPlan, wave: tuple[Resource, ...], silenced: Silenced) -> None:
        self.state.silenced = silenced
        self.state.failure = silenced.code
        self._unasked |= hints_of(wave)
        for resource in wave:
            plan.failed(resource)

    def _head_start_s(self) -> float:
        """Who was urgent, and was kept by a crowd from asking all it had to, stays in front."""
        silenced = self.state.silenced
        return head_start_s(self.state.claim, self._urgency()) if silenced and silenced.is_crowd else 0.0

    def _deadline_s(self) -> float:
        return self.state.started_s + ROUND_DEADLINE_S

    def _urgency(self) -> Urgency:
        state = self.state
        if any(not state.memo.types[data_type].good_ms for data_type in state.watched):
            return Urgency.NEW_WATCHER
        return Urgency.HINT if state.claim.hints else Urgency.ROUTINE

    def _tell(
        self, plan: RoundPlan, wave: tuple[Resource, ...], asked: dict[Resource, Greenlet], moment: Moment
    ) -> KeyRefused | None:
        """Tell the plan what came, in its order; the refusal when the key was refused."""
        for resource in wave:
            try:
                answer = asked[resource].value
                if isinstance(answer, Exception):
                    raise answer
            except PermissionMissing as error:
                failing.resource_failed(self.state, resource, error)
                plan.failed(resource)
            except KeyRefused as error:
                return error
            except Silenced as silenced:
                self._silenced(plan, (resource,), silenced)
            except ExchangeError as error:
                failing.resource_failed(self.state, resource, error)
                plan.failed(resource)
            else:
                self.state.answers[resource] = answer
                self._learn(plan, resource, answer)
        return None

    def _ask(self, resource: Resource, credentials: Credentials, moment: Moment) -> Answer:
        state = self.state
        deadline_s = self._deadline_s()
        try:
            if resource is Resource.CLOSED_PNL:
                answer = self._closing.ask(credentials, moment, deadline_s)
            else:
                answer = state.tools.asking.ask(resource, credentials, midnight_ms(moment.date), deadline_s)
        except ExchangeError:
            state.requests += 1
            raise
        state.requests += answer.requests
        state.arrived(resource, answer.as_of_ms)
        return answer

    def _learn(self, plan: RoundPlan, resource: Resource, answer: Answer) -> None:
        """Give the plan what it decides by; figures that cannot be had spoil pnl alone."""
        state, figures, rows = self.state, self.state.tools.figures, answer.rows
        if resource is not Resource.CLOSED_PNL:
            plan.saw(resource, figures.news_trace(resource, rows))
        try:
            if resource is Resource.POSITIONS:
                plan.positions_read(figures.positions_trace(rows))
            elif resource is Resource.WALLET:
                plan.wallet_read(figures.realized(rows), figures.wallet_trace(rows))
            elif resource is Resource.CLOSED_PNL:
                closed, today = self._closing.learn(answer)
                plan.saw(resource, closed.trace())
                plan.closed_read(today, closed.trace())
            else:
                plan.orders_read()
        except ExchangeError as error:
            failing.spoil(state, state.watched & {DataType.PNL}, error, resource.value)
            if resource is Resource.WALLET:
                plan.wallet_read(None, None)
            else:
                plan.closed_read(None, None)

    def _spare_the_exhausted(self) -> None:
        """An endpoint that said it takes no more of this user's requests is not asked before it does again."""
        for resource, answer in self.state.answers.items():
            if answer.remaining == 0:
                row = self.state.memo.resources[resource]
                pause_s = min(max(answer.resets_in_s, SHORTEST_REST_S), LONGEST_REST_S)
                row.retry_ms = max(row.retry_ms, self.state.now_ms() + round(pause_s * 1000))

    def _calm_the_unserved(self, plan: RoundPlan, due: frozenset[DataType]) -> None:
        """What was due and neither came nor failed (the holdings changed all the time) is not asked at once."""
        state = self.state
        again_ms = state.now_ms() + round(AGAIN_S * 1000)
        for data_type in due - plan.served():
            row = state.memo.types[data_type]
            row.retry_ms = max(row.retry_ms, again_ms)
            if state.silenced is None and not failing_code(state.memo, data_type):
                row.code = UNSETTLED

    def _end(self) -> Ending:
        state = self.state
        self._tell_freshness()
        result = "failed" if state.failure else "ok"
        if state.silenced is not None:
            left_s = state.silenced.left_s
            shortest_s = min(state.tools.timing.interval_ms(data_type) for data_type in state.watched) / 1000
            next_s = left_s + min(RESUME_SPREAD_S, left_s, shortest_s) * spread(state.user_id)
        else:
            next_s = state.tools.timing.next_round_in_s(
                state.memo, state.watched, state.moment(), state.tools.rng
            )  # fmt: skip
        # A new day begins with a new count, however long there would have been nothing to do.
        next_s = min(next_s, seconds_to_midnight(state.tools.clock.wall_ms()) + RESUME_SPREAD_S * spread(state.user_id))
        hints = self._unasked if state.answers and state.claim.hints else state.claim.hints
        return Ending(result, next_s, state.requests, state.failure, self._head_start_s(), hints)

    def _tell_freshness(self) -> None:
        state, memo = self.state, self.state.memo
        now_ms, silenced = state.now_ms(), state.silenced
        with self._status_lock:
            self._concluding = True
            for data_type in state.watched:
                late_at_ms = state.tools.timing.late_at_ms(memo, data_type, state.claim.live)
                code = failing_code(memo, data_type)
                if silenced is not None and silenced.until_ms > late_at_ms:
                    lateness.publish(state, data_type, Freshness.DELAYED, silenced.code, silenced.until_ms)
                elif code == PermissionMissing.code:
                    lateness.publish(state, data_type, Freshness.STOPPED, code)
                elif code and now_ms >= late_at_ms:
                    lateness.publish(state, data_type, Freshness.DELAYED, code)
                elif memo.late_rounds > 1 and not is_kept(data_type, state.claim.live):
                    lateness.publish(state, data_type, Freshness.DELAYED, StoreUnavailable.code)
                elif not code and memo.types[data_type].good_ms and now_ms < late_at_ms:
                    lateness.publish(state, data_type, Freshness.LIVE, "")
