"""Drives the rounds: claims users while slots are free, runs each in a greenlet, gives every claim back.

No more users are claimed than can be paid for soon: the others wait in the schedule, where the longest overdue goes
first, so that when the budget or the workers are short all intervals stretch evenly.

Redis may be away for any time: then nothing is claimed, what was under way is given back when it returns, and each
change is reported once.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import secrets
from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.pool import Pool

from pushserver.bus.memos import Memos
from pushserver.bus.schedule import Claim, SchedulePort
from pushserver.errors import StoreUnavailable
from pushserver.model import DataType
from pushserver.observers import LifecycleReported, RedisTried, RoundFinished, UsersClaimed
from pushserver.workers.backoff import next_delay
from pushserver.workers.ending import Ending, give_back
from pushserver.workers.fetching import Round
from pushserver.workers.measurements import Measurements
from pushserver.workers.memo import Memo
from pushserver.workers.round_state import LEASE_S, RoundState, Tools
from pushserver.workers.slots import Slots

logger = logging.getLogger(__name__)

#: A round is cut off here, whatever it hangs on: time is left to give the user back within the lease.
ROUND_LIMIT_S = 11.0
#: Between looks into an empty schedule: a first subscriber waits this long at most.
POLL_S = 0.05
#: A sign of life for the web workers, which look every second.
ASK_EVERY_S = 0.5
#: Users claimed at once.
BATCH = 50
#: The same while the budget is short; so many in each shard at most are looked at.
URGENT_BATCH = 8
#: Between attempts while Redis is away.
RETRY_PAUSES_S = (0.1, 0.3, 0.7, 1.5)
#: How often rounds under way are looked at for phones to be told.
LATE_CHECK_S = 0.5
#: How often the budget is looked at for the metrics.
LOOK_S = 5.0
#: Requests of an average round before any has been seen, and the weight of the newest one.
FIRST_GUESS = 3.0
NEWEST = 0.05
#: Before going on after something that ought not to happen.
STUMBLE_S = 1.0


class WorkerPool:
    """One push worker's rounds. ``concurrency`` is how many run at the same time.

    ``met`` is told of every claim and of what is watched.
    ``stop`` takes no more users; ``drain`` waits for those under way and gives back the rest.
    """

    def __init__(
        self,
        schedule: SchedulePort,
        memos: Memos,
        tools: Tools,
        concurrency: int,
        holder: str,
        met: Callable[[Claim, frozenset[DataType]], None] = lambda claim, watched: None,
    ) -> None:
        self._schedule = schedule
        self._memos = memos
        self._tools = tools
        self._pool = Pool(concurrency)
        self._slots = Slots(concurrency)
        self._requests_per_round = FIRST_GUESS
        self._measurements = Measurements(tools.asking, schedule, tools.observer)
        self._holder = holder
        self._met = met
        self._stopping = Event()
        self._rounds: dict[Claim, Round] = {}
        self._unreturned: list[Claim] = []
        self._lost_at_s: float | None = None
        self._asked_at_s = -math.inf

    def run(self) -> None:
        """Claim and serve until ``stop``."""
        helpers = [gevent.spawn(self._tell_late_ones), gevent.spawn(self._measure)]
        attempt = 0
        while not self._stopping.is_set():
            if not self._wait_for_a_slot() and not self._is_overdue():
                continue
            try:
                self._return_lost_claims()
                claimed = self._claim()
            except StoreUnavailable as error:
                self._store_lost(error)
                self._stopping.wait(RETRY_PAUSES_S[min(attempt, len(RETRY_PAUSES_S) - 1)])
                attempt += 1
                continue
            except Exception:
                # One user or answer that nobody thought of must not end the service of all others.
                logger.exception("claiming users failed")
                self._stopping.wait(STUMBLE_S)
                continue
            attempt = 0
            self._store_found()
            if not claimed:
                self._stopping.wait(POLL_S)
        gevent.killall(helpers)

    def stop(self) -> None:
        """Take no more users; may be called from a signal handler."""
        self._stopping.set()

    def drain(self, deadline_s: float) -> int:
        """Let rounds finish within ``deadline_s``; give back and return how many did not."""
        self._pool.join(timeout=deadline_s)
        unfinished = list(self._rounds)
        self._pool.kill(timeout=1)
        self._unreturned += [claim for claim in unfinished if claim not in self._unreturned]
        try:
            self._return_lost_claims()
        except StoreUnavailable:
            logger.warning(
                "%d users could not be given back; they are due when their lease ends", len(self._unreturned)
            )
        return len(unfinished)

    @property
    def busy(self) -> int:
        """Rounds under way."""
        return len(self._rounds)

    def _wait_for_a_slot(self) -> bool:
        """False when there was none for a while, so that the caller may look whether to stop."""
        if self._free() > 0:
            return True
        if self._pool.free_count() > 0:
            self._stopping.wait(POLL_S)
            return False
        return bool(self._pool.wait_available(timeout=0.5)) and self._free() > 0

    def _is_overdue(self) -> bool:
        """Also who can take nobody asks now and then: the web workers see by it that somebody is there."""
        return self._tools.clock.monotonic_s() - self._asked_at_s >= ASK_EVERY_S

    def _free(self) -> int:
        return self._slots.limit - len(self._rounds)

    def _claim(self) -> int:
        asking = self._tools.asking
        payable = math.ceil((asking.room - self._still_to_pay()) / self._requests_per_round)
        # While the budget is short, routine work waits in the schedule; what is urgent pays before it.
        only_urgent = asking.is_short or payable <= 0
        limit = min(self._free(), self._pool.free_count(), URGENT_BATCH if only_urgent else min(BATCH, payable))
        if limit <= 0 and not self._is_overdue():
            return 0
        self._asked_at_s = self._tools.clock.monotonic_s()
        claims = self._schedule.claim(max(0, limit), LEASE_S, self._holder, only_urgent=only_urgent)
        if not claims:
            return 0
        received_s = self._tools.clock.monotonic_s()
        try:
            users = [claim.user_id for claim in claims]
            memos = self._memos.read(users)
            watched = self._tools.states.open_rounds({claim.user_id: claim.token for claim in claims})
        except StoreUnavailable:
            self._unreturned += claims
            raise
        self._tools.observer.record(UsersClaimed(len(claims), max(claim.overdue_s for claim in claims)))
        for claim in claims:
            self._met(claim, watched[claim.user_id])
            try:
                memo = Memo.from_bytes(memos[claim.user_id], claim.at_ms)
                self._start(claim, memo, watched[claim.user_id], received_s)
            except Exception:
                # Its user is due again when the lease ends; the others of this batch are served now.
                logger.exception("the round of user %d could not be started", claim.user_id)
        return len(claims)

    def _still_to_pay(self) -> float:
        """What the rounds under way are going to need."""
        usual = self._requests_per_round
        return sum(max(0.0, usual - round_.state.tools.asking.requests_paid) for round_ in self._rounds.values())

    def _start(self, claim: Claim, memo: Memo, watched: frozenset[DataType], received_s: float) -> None:
        state = RoundState(self._tools, claim, secrets.token_hex(4), memo, watched, received_s)
        # Each round pays at the desk of its user's egress address.
        state.tools = dataclasses.replace(self._tools, asking=self._tools.asking.for_user(claim.user_id, state.now_ms))
        round_ = Round(state)
        self._rounds[claim] = round_
        self._pool.spawn(self._serve, round_)

    def _serve(self, round_: Round) -> None:
        """One round from claim to completion; nothing it does may end the worker."""
        claim = round_.state.claim
        round_.state.mark_lines()
        try:
            ending = self._run_limited(round_)
            self._conclude(round_, ending)
        except StoreUnavailable as error:
            self._unreturned.append(claim)
            self._report(round_, Ending("failed", None, code=error.code))
        except Exception:
            # Its user is due again when the lease ends, which is wait enough for whatever this was.
            logger.exception("round %s of user %d could not be concluded", round_.state.round_id, claim.user_id)
            self._report(round_, Ending("failed", None, code="internal_error"))
        finally:
            self._rounds.pop(claim, None)

    def _run_limited(self, round_: Round) -> Ending:
        crash = "deadline"
        try:
            with gevent.Timeout(ROUND_LIMIT_S, False):
                ending = round_.run()
                round_.state.memo.crashes = 0
                return ending
        except StoreUnavailable:
            raise
        except Exception:
            # A user who makes the program stumble must not take the others along: it is logged and backs off.
            logger.exception("round %s of user %d crashed", round_.state.round_id, round_.state.user_id)
            crash = "internal_error"
        round_.state.memo.crashes += 1
        pause_s = 1.0 + next_delay(round_.state.memo.crashes, None, self._tools.rng)
        return Ending("failed", min(pause_s, round_.crashed()), code=crash)

    def _conclude(self, round_: Round, ending: Ending) -> None:
        claim = round_.state.claim
        if round_.state.holds_lease():
            self._memos.write(claim.user_id, round_.state.memo.to_bytes(), claim.token)
        kept = give_back(self._schedule, claim, ending)
        self._report(round_, ending if kept else Ending("lost", None, ending.requests, ending.code))

    def _report(self, round_: Round, ending: Ending) -> None:
        state = round_.state
        self._slots.ended(ending.code)
        self._requests_per_round += NEWEST * (max(1, ending.requests) - self._requests_per_round)
        self._tools.observer.record(
            RoundFinished(
                user_id=state.user_id,
                round_id=state.round_id,
                result=ending.result,
                duration_s=state.elapsed_s(),
                requests=ending.requests,
                code=ending.code,
            )
        )

    def _tell_late_ones(self) -> None:
        while True:
            gevent.sleep(LATE_CHECK_S)
            for round_ in list(self._rounds.values()):
                round_.state.mark_lines()
                try:
                    round_.tell_if_late()
                except StoreUnavailable:
                    break
                except Exception:
                    # The phones of all other users are still to be told.
                    logger.exception("telling phones of user %d failed", round_.state.user_id)

    def _measure(self) -> None:
        """At once, so that the wait for a budget that nobody knows begins before the first user comes."""
        while True:
            try:
                self._measurements.measure(self.busy, self._slots)
            except StoreUnavailable:
                self._tools.observer.record(RedisTried(is_up=False))
            except Exception:
                # These are only figures; without them the rounds go on.
                logger.exception("measuring this worker failed")
            gevent.sleep(LOOK_S)

    def _return_lost_claims(self) -> None:
        """Claims that ended while Redis was away: their users are due now, not when the lease ends."""
        while self._unreturned:
            claim = self._unreturned.pop()
            try:
                self._schedule.give_back(claim)
            except StoreUnavailable:
                self._unreturned.append(claim)
                raise

    def _store_lost(self, error: StoreUnavailable) -> None:
        if self._lost_at_s is None:
            self._lost_at_s = self._tools.clock.monotonic_s()
            self._tools.observer.record(LifecycleReported("push worker", "redis lost", error.message))

    def _store_found(self) -> None:
        if self._lost_at_s is not None:
            outage_s = self._tools.clock.monotonic_s() - self._lost_at_s
            self._lost_at_s = None
            self._tools.observer.record(LifecycleReported("push worker", "redis found", f"after {outage_s:.1f} s"))
