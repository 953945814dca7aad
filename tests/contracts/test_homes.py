"""What all homes promise, over Redis and over the in-memory twin, and what the schedule tells of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pushserver.bus.connection import connect
from pushserver.bus.homes import Homes, HomesPort, Kept, Live
from pushserver.bus.memory_homes import MemoryHomes
from pushserver.bus.memory_schedule import MemorySchedule
from pushserver.bus.schedule import Claim, Schedule, SchedulePort
from pushserver.clock import ManualClock
from pushserver.model import Secret

ALL_KEPT = Kept(frozenset(), frozenset())


@dataclass
class Subject:
    schedule: SchedulePort
    homes: HomesPort
    pass_time: Callable[[float], None]

    def scheduled(self, *user_ids: int) -> None:
        """Users that are in the schedule and not due."""
        self.schedule.wake(user_ids)
        for claim in self.schedule.claim(100, 5, "start"):
            self.schedule.complete(claim, 60)

    def woken(self) -> list[Claim]:
        return sorted(self.schedule.claim(100, 5, "look"), key=lambda claim: claim.user_id)


@pytest.fixture(params=["memory", "redis"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        clock = ManualClock()
        schedule = MemorySchedule(clock)
        yield Subject(schedule, MemoryHomes(schedule, clock), clock.advance)
        return
    client = connect(Secret(request.getfixturevalue("redis_url")))
    yield Subject(Schedule(client), Homes(client), time.sleep)


def test_a_user_has_one_home_only(subject: Subject) -> None:
    subject.scheduled(1, 2, 3)
    assert subject.homes.take([1, 2], "a", 5) == {1, 2}
    assert subject.homes.take([2, 3], "b", 5) == {3}
    assert subject.homes.take([1, 2], "a", 5) == {1, 2}, "its own it may take again"


def test_only_scheduled_users_get_a_home(subject: Subject) -> None:
    assert subject.homes.take([1], "a", 5) == set()


def test_a_claim_tells_what_the_home_keeps_fresh(subject: Subject) -> None:
    subject.scheduled(1, 2)
    subject.homes.take([1], "a", 5)
    subject.schedule.wake([1, 2])
    homed, homeless = subject.woken()
    assert (homed.homeless, homed.live) == (False, 0)
    assert (homeless.homeless, homeless.live) == (True, 0)
    subject.homes.keep({1: Live.STREAM | Live.MARKS}, "a", 5)
    subject.schedule.give_back(homed)
    [homed] = subject.woken()
    assert (homed.homeless, homed.live) == (False, Live.STREAM | Live.MARKS)


def test_nothing_is_fresh_any_more_once_the_lease_is_over(subject: Subject) -> None:
    subject.scheduled(1)
    subject.homes.take([1], "a", 5)
    subject.homes.keep({1: Live.STREAM}, "a", 0.1)
    subject.pass_time(0.15)
    subject.schedule.wake([1])
    [claim] = subject.woken()
    assert (claim.homeless, claim.live) == (True, 0)


def test_a_home_whose_lease_is_over_goes_to_whoever_asks(subject: Subject) -> None:
    subject.scheduled(1)
    subject.homes.take([1], "dead", 0.1)
    subject.pass_time(0.15)
    assert subject.homes.take([1], "other", 5) == {1}
    assert subject.homes.keep({1: Live.STREAM}, "dead", 5) == Kept(frozenset({1}), frozenset())
    subject.homes.leave([1], "dead")
    assert subject.homes.keep({1: Live.STREAM}, "other", 5) == ALL_KEPT


def test_a_sweep_wakes_the_users_of_a_dead_home_and_no_others(subject: Subject) -> None:
    subject.scheduled(1, 2, 3)
    subject.homes.take([1, 2], "dead", 0.1)
    subject.homes.take([3], "living", 5)
    assert subject.homes.sweep() == 0
    assert subject.woken() == []
    subject.pass_time(0.15)
    assert subject.homes.sweep() == 2
    assert subject.homes.sweep() == 0
    assert [claim.user_id for claim in subject.woken()] == [1, 2]


def test_a_holder_that_overslept_takes_back_what_nobody_else_has(subject: Subject) -> None:
    subject.scheduled(1)
    subject.homes.take([1], "a", 0.1)
    subject.pass_time(0.15)
    subject.homes.sweep()
    assert subject.homes.keep({1: Live.STREAM}, "a", 5) == ALL_KEPT
    [claim] = subject.woken()
    assert (claim.homeless, claim.live) == (False, Live.STREAM)


def test_leaving_wakes_the_users_and_frees_them(subject: Subject) -> None:
    subject.scheduled(1, 2)
    subject.homes.take([1, 2], "a", 5)
    subject.homes.leave([1], "a")
    [claim] = subject.woken()
    assert (claim.user_id, claim.homeless) == (1, True)
    assert subject.homes.take([1, 2], "b", 5) == {1}


def test_a_dropped_user_loses_its_home(subject: Subject) -> None:
    subject.scheduled(1)
    subject.homes.take([1], "a", 5)
    subject.schedule.wake([1])
    [claim] = subject.woken()
    assert subject.schedule.drop(claim)
    assert subject.homes.keep({1: Live.STREAM}, "a", 5) == Kept(frozenset(), frozenset({1}))
    assert subject.homes.take([1], "b", 5) == set()
    subject.homes.leave([1], "a")
    assert subject.schedule.depth() == 0


def test_a_user_woken_while_it_was_dropped_keeps_its_home(subject: Subject) -> None:
    subject.scheduled(1)
    subject.homes.take([1], "a", 5)
    subject.schedule.wake([1])
    [claim] = subject.woken()
    subject.schedule.wake([1])
    assert subject.schedule.drop(claim)
    assert subject.homes.keep({1: Live.STREAM}, "a", 5) == ALL_KEPT
