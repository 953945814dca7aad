"""Who is paid for first, what is forfeited, and what a pause does to those who wait."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from pushserver.bus.budgets import VALID_S, Grant
from pushserver.bus.pauses import Gate
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.observers import BudgetMeasured, PaymentForfeited, RecordingObserver, RequestsPaid
from pushserver.workers import paying
from pushserver.workers.paying import Cashier, ProbeWanted, Urgency
from pushserver.workers.quiet import Silenced

BANNED = Gate("paused", 300.0, 1_800_000_000_000, "exchange_address_banned")


class ScriptedBudget:
    """Answers as told; without a plan it grants all. ``asked`` holds the sizes and the horizon of every call."""

    burst = 10
    rate_per_s = 100.0

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.plan: list[int | Gate | Exception | Callable[[], int]] = []
        self.asked: list[tuple[tuple[int, ...], float]] = []
        self.known: list[Any] = []
        self.delay_s = 0.0
        self.wait_s = 0.01

    def spend(
        self, *sizes: int, horizon_s: float = 0.0, may_probe: bool = False, known_pause: Any = None
    ) -> Grant:  # fmt: skip
        self.asked.append((sizes, horizon_s))
        self.known.append(known_pause)
        gevent.sleep(0)
        step = self.plan.pop(0) if self.plan else len(sizes)
        if callable(step):
            step = step()
        if isinstance(step, Exception):
            raise step
        if isinstance(step, Gate):
            return Grant(0, step.left_s, (), step)
        from_s = self._clock.monotonic_s() + self.delay_s
        return Grant(sum(sizes[:step]), self.wait_s, ((from_s, from_s + VALID_S),) * step, used_share=0.25)


class Counter:
    """A cashier, its budget and what happened, in the order in which it happened."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.budget = ScriptedBudget(self.clock)
        self.observer = RecordingObserver()
        budget: Any = self.budget
        self.cashier = Cashier(budget, self.clock, self.observer, random.Random(3))
        self.served: list[Any] = []

    def customer(self, name: Any, count: int, urgency: Urgency, user_id: int = 0) -> gevent.Greenlet:
        def pay() -> None:
            try:
                self.cashier.pay(count, urgency, user_id, may_probe=True)
                self.served.append(name)
            except (Silenced, ProbeWanted, StoreUnavailable) as error:
                self.served.append((name, type(error).__name__, getattr(error, "code", "")))

        return gevent.spawn(pay)

    def records(self, kind: type) -> list[Any]:
        return [record for record in self.observer.records if type(record) is kind]


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_all_who_wait_at_the_same_moment_are_paid_for_in_one_go(counter: Counter) -> None:
    gevent.joinall([counter.customer(number, 3, Urgency.ROUTINE) for number in range(5)], timeout=2)
    assert counter.served == [0, 1, 2, 3, 4]
    assert counter.budget.asked == [((3, 3, 3, 3, 3), 0.1)]
    assert sum(record.count for record in counter.records(RequestsPaid)) == 15


def test_the_urgent_go_first_and_may_reserve_further_ahead(counter: Counter) -> None:
    counter.budget.plan = [0]
    wants = [Urgency.ROUTINE, Urgency.HINT, Urgency.EXCESSIVE, Urgency.NEW_WATCHER]
    gevent.joinall([counter.customer(want, 2, want) for want in wants], timeout=2)
    assert counter.served == sorted(wants)
    horizons = [horizon for _, horizon in counter.budget.asked]
    assert horizons == sorted(horizons, reverse=True)


def test_somebody_urgent_does_not_wait_until_the_others_have_waited(counter: Counter) -> None:
    counter.budget.wait_s = 30.0
    counter.budget.plan = [0]
    routine = counter.customer("routine", 2, Urgency.ROUTINE)
    gevent.sleep(0.01)
    counter.customer("new", 2, Urgency.NEW_WATCHER).join(timeout=1)
    assert counter.served[0] == "new"
    routine.kill()


def test_a_payment_is_used_from_its_start_on_and_not_before(counter: Counter) -> None:
    counter.budget.delay_s = 0.08
    started_s = counter.clock.monotonic_s()
    counter.customer("one", 1, Urgency.ROUTINE).join(timeout=1)
    assert counter.clock.monotonic_s() - started_s == pytest.approx(0.08)


def test_a_payment_that_comes_too_late_is_forfeited_and_paid_again(counter: Counter) -> None:
    def slow_answer() -> int:
        gevent.spawn(counter.clock.advance, VALID_S + 0.01)
        return 1

    counter.budget.plan = [slow_answer]
    counter.customer("one", 2, Urgency.ROUTINE).join(timeout=1)
    assert counter.served == ["one"]
    assert len(counter.budget.asked) == 2
    assert counter.records(PaymentForfeited) == [PaymentForfeited(2)]


def test_a_payment_that_cannot_be_made_is_given_up(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paying, "PATIENCE_S", 0.05)
    counter.budget.plan = [0] * 1000
    counter.customer("one", 2, Urgency.ROUTINE).join(timeout=1)
    assert counter.served == [("one", "Silenced", "server_busy")]
    calls = len(counter.budget.asked)
    gevent.sleep(0.05)
    assert len(counter.budget.asked) <= calls + 1, "nobody asks any more for who has gone"


def test_nobody_waits_to_pay_for_what_would_be_answered_too_late(counter: Counter) -> None:
    soon_s = counter.clock.monotonic_s() + paying.ANSWERED_IN_S
    counter.cashier.pay(1, Urgency.HINT, deadline_s=soon_s - 1.0)
    counter.budget.plan = [0] * 10_000
    began_s = time.monotonic()
    with pytest.raises(Silenced) as caught:
        counter.cashier.pay(1, Urgency.HINT, deadline_s=soon_s + 0.2)
    assert caught.value.is_crowd
    assert 0.15 < time.monotonic() - began_s < paying.URGENT_PATIENCE_S / 2


def test_E2_a_pause_sends_all_away_at_once_and_nobody_asks_redis_again_and_again(counter: Counter) -> None:
    counter.budget.plan = [BANNED]
    wants = [Urgency.ROUTINE, Urgency.NEW_WATCHER, Urgency.HINT]
    gevent.joinall([counter.customer(want, 1, want) for want in wants], timeout=1)
    assert {name for _, name, _ in counter.served} == {"Silenced"}
    with pytest.raises(Silenced) as caught:
        counter.cashier.pay(1, Urgency.NEW_WATCHER)
    assert (caught.value.until_ms, caught.value.code) == (BANNED.until_ms, BANNED.code)
    assert caught.value.left_s == pytest.approx(300)
    assert len(counter.budget.asked) == 1


def test_E2_one_of_those_who_wait_is_sent_to_probe(counter: Counter) -> None:
    counter.budget.plan = [Gate("probe", 0.0, BANNED.until_ms, BANNED.code)]
    gevent.joinall([counter.customer(number, 1, Urgency.ROUTINE) for number in range(3)], timeout=1)
    assert [name for _, name, _ in counter.served] == ["ProbeWanted", "Silenced", "Silenced"]


def test_E2_what_was_paid_for_before_a_ban_is_not_sent(counter: Counter) -> None:
    def ban_meanwhile() -> int:
        gevent.spawn(counter.cashier.quiet.begin, 600.0, "exchange_address_banned")
        return 1

    counter.budget.plan = [ban_meanwhile]
    counter.customer("one", 1, Urgency.ROUTINE).join(timeout=1)
    assert counter.served == [("one", "Silenced", "exchange_address_banned")]


def test_a_pause_that_redis_may_have_lost_is_told_again(counter: Counter) -> None:
    counter.cashier.quiet.begin(600.0, "exchange_address_banned")
    counter.cashier.look()
    assert counter.budget.known == [(pytest.approx(600), "exchange_address_banned")]


def test_without_redis_nobody_pays_and_all_are_told(counter: Counter) -> None:
    counter.budget.plan = [StoreUnavailable("gone")]
    gevent.joinall([counter.customer(number, 1, Urgency(number)) for number in range(3)], timeout=1)
    assert {name for _, name, _ in counter.served} == {"StoreUnavailable"}
    counter.customer("later", 1, Urgency.ROUTINE).join(timeout=1)
    assert counter.served[-1] == "later"


def test_a_cashier_that_stumbles_leaves_nobody_waiting(counter: Counter) -> None:
    counter.budget.plan = [ZeroDivisionError()]
    counter.customer("one", 1, Urgency.ROUTINE).join(timeout=1)
    assert counter.served == [("one", "StoreUnavailable", "server_busy")]
    counter.customer("later", 1, Urgency.ROUTINE).join(timeout=1)
    assert counter.served[-1] == "later"


def test_H08_who_has_had_more_than_a_share_goes_last(counter: Counter) -> None:
    for _ in range(paying.USER_BURST // 4):
        counter.customer("greedy", 4, Urgency.HINT, user_id=13).join(timeout=1)
    counter.served.clear()
    gevent.joinall(
        [
            counter.customer("greedy", 4, Urgency.HINT, user_id=13),
            counter.customer("modest", 4, Urgency.ROUTINE, user_id=4),
        ],
        timeout=1,
    )
    assert counter.served == ["modest", "greedy"]
    counter.clock.advance(paying.USER_BURST / paying.USER_RATE_PER_S)
    counter.served.clear()
    gevent.joinall(
        [
            counter.customer("modest", 4, Urgency.ROUTINE, user_id=4),
            counter.customer("greedy", 4, Urgency.HINT, user_id=13),
        ],
        timeout=1,
    )
    assert counter.served == ["greedy", "modest"]


def test_payments_that_wait_tell_that_the_budget_is_short(counter: Counter) -> None:
    assert not counter.cashier.is_short
    room = counter.cashier.room
    counter.budget.plan = [0] * 1000
    waiting = counter.customer("one", 3, Urgency.ROUTINE)
    gevent.sleep(0.01)
    assert counter.cashier.room == room - 3
    counter.clock.advance(paying.SHORT_S + 0.01)
    assert counter.cashier.is_short
    counter.budget.plan.clear()
    waiting.join(timeout=1)
    assert not counter.cashier.is_short
    assert counter.cashier.room < room, "whoever has just waited takes on less"


def test_a_budget_that_nobody_knows_lets_nobody_be_claimed_before_it_opens(counter: Counter) -> None:
    counter.budget.wait_s = 5.5
    assert counter.cashier.look() == BudgetMeasured(headroom=0.75, is_short=True, is_paused=False)
    assert counter.cashier.is_short
    counter.clock.advance(5.6)
    assert not counter.cashier.is_short
