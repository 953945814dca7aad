"""Waking users of a crowd together, and one alone at once."""

from __future__ import annotations

from pushserver.bus.schedule import Look
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.web.scheduling import GATHER_S, Scheduling


class FakeSchedule:
    def __init__(self) -> None:
        self.woken: list[list[int]] = []
        self.away = False

    def wake(self, user_ids, *, head_start_s):
        if self.away:
            raise StoreUnavailable
        self.woken.append(list(user_ids))

    def ensure(self, user_ids):
        return 0

    def look(self):
        if self.away:
            raise StoreUnavailable
        return Look(emptied=False, is_served=False)


class World:
    def __init__(self) -> None:
        self.clock, self.schedule, self.later = ManualClock(), FakeSchedule(), []
        self.scheduling = Scheduling(
            self.schedule, list, lambda: None, self, self, lambda: self.hears, self.clock,
            lambda seconds, do: self.later.append(do),
        )  # fmt: skip
        self.hears = True
        self.told: list[str] = []
        self.looks: list[bool | None] = []

    def works(self) -> None:
        self.told.append("works")

    def failed(self) -> None:
        self.told.append("failed")

    def looked(self, is_served: bool) -> None:
        self.looks.append(is_served)

    def unknown(self) -> None:
        self.looks.append(None)

    def pass_time(self) -> None:
        self.clock.advance(2 * GATHER_S)
        later, self.later = self.later, []
        for do in later:
            do()


def test_one_user_is_woken_at_once() -> None:
    world = World()
    world.scheduling.wake(4)
    assert world.schedule.woken == [[4]]
    world.pass_time()
    world.scheduling.wake(4)
    assert world.schedule.woken == [[4], [4]]


def test_a_crowd_is_woken_together_each_of_it_once() -> None:
    world = World()
    for user_id in (1, 2, 3, 2):
        world.scheduling.wake(user_id)
    assert world.schedule.woken == [[1]]
    world.pass_time()
    assert world.schedule.woken == [[1], [2, 3]]
    world.pass_time()
    assert len(world.schedule.woken) == 2


def test_a_store_that_is_away_is_survived() -> None:
    world = World()
    world.schedule.away = True
    world.scheduling.wake(1)
    world.scheduling.wake(2)
    world.pass_time()
    world.schedule.away = False
    world.pass_time()
    world.scheduling.wake(3)
    assert world.schedule.woken == [[3]]


def test_G7_a_worker_that_hears_nothing_says_so_to_its_phones_although_redis_can_be_written() -> None:
    world = World()
    world.scheduling.look_after()
    world.hears = False
    world.scheduling.look_after()
    assert world.told == ["works", "failed"]
    assert world.scheduling.redis_is_up, "the metric tells the two apart"
    world.hears, world.schedule.away = True, True
    world.scheduling.look_after()
    assert world.told[-1] == "failed"
    assert not world.scheduling.redis_is_up
    world.schedule.away = False
    world.scheduling.look_after()
    assert world.told[-1] == "works"
    assert world.scheduling.redis_is_up
    assert world.looks == [False, False, None, False], "while Redis is away nobody knows whether push workers ask"
