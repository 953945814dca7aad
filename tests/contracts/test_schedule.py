"""What every Schedule promises, over Redis and over the in-memory twin."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pushserver.bus.connection import connect
from pushserver.bus.memory_schedule import MemorySchedule
from pushserver.bus.schedule import REFILL_SPREAD_S, Schedule, SchedulePort
from pushserver.clock import ManualClock
from pushserver.model import Secret


@dataclass
class Subject:
    schedule: SchedulePort
    pass_time: Callable[[float], None]


@pytest.fixture(params=["memory", "redis"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        clock = ManualClock()
        yield Subject(MemorySchedule(clock), clock.advance)
        return
    url = request.getfixturevalue("redis_url")
    yield Subject(Schedule(connect(Secret(url))), time.sleep)


def users(claims: list) -> set[int]:
    return {claim.user_id for claim in claims}


def test_a_woken_user_is_due_at_once(subject: Subject) -> None:
    subject.schedule.wake([1, 2, 3])
    assert users(subject.schedule.claim(10, 5, "a")) == {1, 2, 3}


def test_a_claim_takes_no_more_than_its_limit(subject: Subject) -> None:
    subject.schedule.wake(range(1, 41))
    first = subject.schedule.claim(7, 5, "a")
    second = subject.schedule.claim(100, 5, "a")
    assert len(first) == 7
    assert users(first) | users(second) == set(range(1, 41))
    assert not users(first) & users(second)


def test_two_claimers_never_hold_the_same_user(subject: Subject) -> None:
    subject.schedule.wake(range(1, 31))
    held = [subject.schedule.claim(4, 5, holder) for holder in "abababababab"]
    everybody = [claim.user_id for claims in held for claim in claims]
    assert sorted(everybody) == list(range(1, 31))


def test_a_completed_user_comes_back_when_it_is_due(subject: Subject) -> None:
    subject.schedule.wake([1])
    [claim] = subject.schedule.claim(10, 5, "a")
    assert subject.schedule.complete(claim, 0.2)
    assert subject.schedule.claim(10, 5, "a") == []
    subject.pass_time(0.25)
    [again] = subject.schedule.claim(10, 5, "b")
    assert again.user_id == 1
    assert again.overdue_s == pytest.approx(0.05, abs=0.2)


def test_a_claim_that_is_never_completed_is_due_again_when_the_lease_ends(subject: Subject) -> None:
    subject.schedule.wake([1])
    assert subject.schedule.claim(10, 0.2, "dead")
    assert subject.schedule.claim(10, 0.2, "other") == []
    subject.pass_time(0.25)
    assert users(subject.schedule.claim(10, 5, "other")) == {1}


def test_a_late_completion_cannot_touch_the_claim_of_another(subject: Subject) -> None:
    subject.schedule.wake([1])
    [late] = subject.schedule.claim(10, 0.1, "zombie")
    subject.pass_time(0.15)
    [living] = subject.schedule.claim(10, 5, "other")
    assert not subject.schedule.complete(late, 0)
    assert not subject.schedule.drop(late)
    assert subject.schedule.claim(10, 5, "third") == []
    assert subject.schedule.complete(living, 0)
    assert users(subject.schedule.claim(10, 5, "third")) == {1}


def test_a_user_woken_while_held_is_due_at_once_on_completion(subject: Subject) -> None:
    subject.schedule.wake([1])
    [claim] = subject.schedule.claim(10, 5, "a")
    subject.schedule.wake([1])
    assert subject.schedule.claim(10, 5, "b") == []
    assert subject.schedule.complete(claim, 60)
    [woken] = subject.schedule.claim(10, 5, "b")
    assert subject.schedule.complete(woken, 60)
    assert subject.schedule.claim(10, 5, "b") == [], "one wake is served once"


def test_a_dropped_user_is_forgotten(subject: Subject) -> None:
    subject.schedule.wake([1])
    [claim] = subject.schedule.claim(10, 5, "a")
    assert subject.schedule.drop(claim)
    assert subject.schedule.depth() == 0


def test_a_user_woken_while_held_survives_being_dropped(subject: Subject) -> None:
    subject.schedule.wake([1])
    [claim] = subject.schedule.claim(10, 5, "a")
    subject.schedule.wake([1])
    assert subject.schedule.drop(claim)
    assert users(subject.schedule.claim(10, 5, "a")) == {1}


def test_a_wake_brings_a_waiting_user_forward_and_never_back(subject: Subject) -> None:
    subject.schedule.wake([1])
    [claim] = subject.schedule.claim(10, 5, "a")
    subject.schedule.complete(claim, 60)
    subject.schedule.wake([1])
    subject.schedule.wake([1])
    assert users(subject.schedule.claim(10, 5, "a")) == {1}


def test_ensure_adds_only_the_missing_and_leaves_the_others_where_they_are(subject: Subject) -> None:
    subject.schedule.wake([1])
    [claim] = subject.schedule.claim(10, 5, "a")
    subject.schedule.complete(claim, 60)
    assert subject.schedule.ensure([1, 4]) == 1
    assert subject.schedule.ensure([1, 4]) == 0
    assert subject.schedule.depth() == 2
    subject.pass_time(0.01)
    assert 1 not in users(subject.schedule.claim(10, 5, "a"))


def test_a_refilled_schedule_is_spread_over_seconds(subject: Subject) -> None:
    subject.schedule.ensure(range(1, 1001))
    at_once = len(subject.schedule.claim(1000, 60, "a"))
    subject.pass_time(0.5)
    later = len(subject.schedule.claim(1000, 60, "a"))
    assert at_once < 200
    assert later < 1000 * 1.5 / REFILL_SPREAD_S
    assert subject.schedule.depth() == 1000


def test_the_longest_overdue_come_first_within_a_shard(subject: Subject) -> None:
    for user in (4, 8, 12):
        subject.schedule.wake([user])
        subject.pass_time(0.01)
    assert [claim.user_id for claim in subject.schedule.claim(2, 5, "a")] == [4, 8]


def test_few_missing_users_do_not_wait_for_a_herd_that_is_not_there(subject: Subject) -> None:
    subject.schedule.ensure(range(1, 6))
    subject.pass_time(0.2)
    assert len(subject.schedule.claim(10, 60, "a")) == 5


def test_a_claim_tells_how_far_in_front_its_user_was_woken(subject: Subject) -> None:
    subject.schedule.wake([4], head_start_s=5)
    subject.schedule.wake([4], head_start_s=300)
    subject.schedule.ensure([8])
    subject.pass_time(0.2)
    assert {claim.user_id: claim.head_start_s for claim in subject.schedule.claim(2, 5, "a")} == {4: 300.0, 8: 0.0}


def test_an_untouched_schedule_was_not_emptied(subject: Subject) -> None:
    assert not subject.schedule.look().emptied
    subject.schedule.wake([1])
    assert not subject.schedule.look().emptied


def test_whether_anybody_asks_for_work_can_be_seen_also_where_there_is_none(subject: Subject) -> None:
    assert subject.schedule.look().is_served, "nobody knows yet that nobody does"
    subject.schedule.wake([1])
    assert not subject.schedule.look().is_served
    for claimed in ([1], []):
        subject.pass_time(0.01)
        assert [claim.user_id for claim in subject.schedule.claim(1, 5, "a")] == claimed
        assert subject.schedule.look().is_served
        assert not subject.schedule.look().is_served


def test_a_woken_user_overtakes_routine_work_that_is_late_by_less_than_its_head_start(subject: Subject) -> None:
    subject.schedule.wake([4], head_start_s=0.1)
    subject.pass_time(0.2)
    subject.schedule.wake([8], head_start_s=0)
    subject.schedule.wake([12], head_start_s=0.1)
    subject.schedule.wake([16], head_start_s=60)
    assert [claim.user_id for claim in subject.schedule.claim(4, 5, "a")] == [16, 4, 12, 8]


def test_while_little_can_be_paid_only_urgent_wakes_are_claimed(subject: Subject) -> None:
    subject.schedule.wake([4, 5], head_start_s=5)
    subject.schedule.wake([8], head_start_s=300)
    assert [claim.user_id for claim in subject.schedule.claim(8, 60, "me", only_urgent=True)] == [8]
    assert subject.schedule.claim(8, 60, "me", only_urgent=True) == []
    assert {claim.user_id for claim in subject.schedule.claim(8, 60, "me")} == {4, 5}


def test_lateness_counts_from_the_wake_and_not_from_its_head_start(subject: Subject) -> None:
    subject.schedule.wake([1], head_start_s=60)
    subject.pass_time(0.1)
    subject.schedule.wake([1], head_start_s=60)
    [claim] = subject.schedule.claim(1, 5, "a")
    assert claim.woken
    assert claim.overdue_s == pytest.approx(0.1, abs=0.09)


def test_a_user_that_was_late_before_it_was_woken_is_late_since_then(subject: Subject) -> None:
    subject.schedule.wake([1])
    subject.schedule.complete(subject.schedule.claim(1, 5, "a")[0], 0)
    subject.pass_time(0.2)
    subject.schedule.wake([1])
    [claim] = subject.schedule.claim(1, 5, "a")
    assert claim.overdue_s == pytest.approx(0.2, abs=0.09)


def test_the_hints_of_all_wakes_reach_the_next_claim_and_only_that(subject: Subject) -> None:
    subject.schedule.wake([1], hints=1)
    subject.schedule.wake([1], head_start_s=5, hints=4)
    [claim] = subject.schedule.claim(1, 5, "a")
    assert (claim.woken, claim.hints) == (True, 5)
    subject.schedule.complete(claim, 0)
    [claim] = subject.schedule.claim(1, 5, "a")
    assert (claim.woken, claim.hints) == (False, 0)


def test_a_user_woken_while_held_is_claimed_next_in_front_of_routine_work_with_its_hints(subject: Subject) -> None:
    subject.schedule.wake([1])
    [held] = subject.schedule.claim(1, 5, "a")
    subject.schedule.wake([1], head_start_s=60, hints=2)
    subject.schedule.wake([5], head_start_s=0)
    subject.schedule.complete(held, 60)
    subject.pass_time(0.1)
    first, _ = subject.schedule.claim(2, 5, "a")
    assert (first.user_id, first.hints, first.woken) == (1, 2, True)
    assert first.overdue_s == pytest.approx(0.1, abs=0.09)


def test_hints_outlive_a_claim_that_dies_and_one_that_is_given_back(subject: Subject) -> None:
    subject.schedule.wake([1], hints=2)
    assert subject.schedule.claim(1, 0.1, "dead")
    subject.pass_time(0.15)
    [claim] = subject.schedule.claim(1, 5, "other")
    assert claim.hints == 2
    subject.schedule.wake([1], hints=8)
    assert subject.schedule.give_back(claim)
    assert not subject.schedule.give_back(claim)
    [claim] = subject.schedule.claim(1, 5, "third")
    assert claim.hints == 10
    assert subject.schedule.give_back(claim)
    assert subject.schedule.claim(1, 5, "fourth")[0].hints == 10
