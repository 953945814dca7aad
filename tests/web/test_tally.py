"""Counting over several processes: the slots of the workers and the tally on top of them."""

from __future__ import annotations

import os
import time

import pytest

from pushserver.web import worker_slots
from pushserver.web.tally import Tally, tally_of_process
from pushserver.web.worker_slots import BUCKETS, SALT_BYTES, State, WorkerSlots


@pytest.fixture
def slots() -> WorkerSlots:
    slots = WorkerSlots.create(4, b"s" * SALT_BYTES)
    for age in range(1, 4):
        slots.take(age)
    return slots


def in_child(work) -> None:
    """Run in a forked process and wait for its good end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_E01_connections_of_a_user_and_an_address_are_counted_over_all_processes(slots: WorkerSlots) -> None:
    def work() -> None:
        tally = Tally(slots, 1)
        for _ in range(3):
            assert tally.enter_user(4, most=20)
        assert tally.enter_address("192.0.2.1", most=200)

    in_child(work)
    mine = Tally(slots, 0)
    assert mine.enter_user(4, most=20)
    assert (mine.user_total(4), mine.user_total(5)) == (4, 0)
    assert (mine.address_total("192.0.2.1"), mine.address_total("192.0.2.2")) == (1, 0)


def test_E01_the_limit_holds_whichever_worker_a_client_meets_and_a_refused_one_does_not_count(
    slots: WorkerSlots,
) -> None:
    tallies = [Tally(slots, slot) for slot in range(3)]
    taken = [tallies[turn % 3].enter_user(4, most=20) for turn in range(30)]
    assert taken == [True] * 20 + [False] * 10
    assert tallies[0].user_total(4) == 20
    tallies[1].leave_user(4)
    assert tallies[2].enter_user(4, most=20)
    assert not tallies[0].enter_user(4, most=20)


def test_an_address_and_a_user_of_the_same_name_are_two(slots: WorkerSlots) -> None:
    tally = Tally(slots, 0)
    tally.enter_user(4, 20)
    assert tally.address_total("4") == 0
    tally.enter_address("4", 200)
    tally.leave_user(4)
    assert (tally.user_total(4), tally.address_total("4")) == (0, 1)


def test_what_a_dead_worker_counted_goes_with_it_and_the_next_begins_empty(slots: WorkerSlots) -> None:
    mine, dead = Tally(slots, 0), Tally(slots, 1)
    assert mine.enter_user(4, 20) and dead.enter_user(4, 20) and dead.enter_address("a", 200)
    slots.free(1)
    assert (mine.user_total(4), mine.address_total("a")) == (1, 0)
    assert slots.take(age=9) == 1
    assert mine.user_total(4) == 1


def test_leaving_more_often_than_entering_takes_nothing_from_others(slots: WorkerSlots) -> None:
    mine, other = Tally(slots, 0), Tally(slots, 1)
    other.enter_user(4, 20)
    mine.leave_user(4)
    assert mine.user_total(4) == 1


def test_a_worker_that_comes_later_counts_too(slots: WorkerSlots) -> None:
    mine = Tally(slots, 0)
    assert mine.enter_user(4, 20)
    slot = slots.take(age=7)
    assert slot == 3
    Tally(slots, slot).enter_user(4, 20)
    assert mine.user_total(4) == 2


def test_users_spread_over_the_buckets_and_differently_with_another_salt(slots: WorkerSlots) -> None:
    tally, other = Tally(slots, 0), Tally(WorkerSlots.create(1, b"t" * SALT_BYTES), 0)
    buckets = [tally._user_cell(user_id) for user_id in range(10_000)]
    assert min(buckets) >= 0 and max(buckets) < BUCKETS
    # Chance makes some 190 pairs of 10,000 users in 2^18 buckets.
    assert 10_000 - len(set(buckets)) < 300
    assert sum(other._user_cell(user_id) == bucket for user_id, bucket in enumerate(buckets)) < 10


def test_counting_costs_microseconds(slots: WorkerSlots) -> None:
    tally = Tally(slots, 0)
    started = time.perf_counter()
    for user_id in range(2000):
        tally.enter_user(user_id, 20)
        tally.leave_user(user_id)
    assert (time.perf_counter() - started) / 2000 < 0.000_5


def test_without_gunicorn_a_process_counts_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_slots, "_inherited", None)
    one, other = tally_of_process(), tally_of_process()
    assert one.enter_user(4, most=1) and not one.enter_user(4, most=1)
    assert other.user_total(4) == 0


def test_a_forked_worker_counts_in_the_slot_it_inherited(slots: WorkerSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_slots, "_inherited", None)

    def work() -> None:
        worker_slots.inherit(slots.memory, 2)
        assert tally_of_process().enter_user(4, 20)

    in_child(work)
    assert Tally(slots, 0).user_total(4) == 1
    slots.free(2)
    assert Tally(slots, 0).user_total(4) == 0


def test_memory_arranged_by_other_code_is_left_alone(slots: WorkerSlots, monkeypatch: pytest.MonkeyPatch) -> None:
    slots.memory[0:4] = (77).to_bytes(4, "little")
    with pytest.raises(ValueError, match="layout 77"):
        WorkerSlots(slots.memory)
    monkeypatch.setattr(worker_slots, "_inherited", (slots.memory, 1))
    before = bytes(slots.column(1))
    assert tally_of_process().enter_user(4, 20)
    assert bytes(slots.column(1)) == before


def test_slots_are_given_once_and_again_after_their_worker_left(slots: WorkerSlots) -> None:
    assert slots.take(age=4) == 3
    assert slots.take(age=5) is None
    slots.publish_load(2, 17)
    slots.free(2)
    assert list(slots.in_use()) == [0, 1, 3]
    assert slots.take(age=6) == 2
    assert (slots.state(2), slots.age(2), slots.load(2)) == (State.STARTING, 6, 0)


def test_workers_see_what_the_others_say_of_themselves(slots: WorkerSlots) -> None:
    def work() -> None:
        mine = WorkerSlots(slots.memory)
        mine.publish_state(1, State.ACCEPTING)
        mine.publish_load(1, 123)

    in_child(work)
    assert slots.others(0, State.ACCEPTING) == [1]
    assert slots.others(1, State.ACCEPTING) == []
    assert slots.others(0, State.STARTING) == [2]
    assert slots.load(1) == 123
