"""Who accepts a new connection: several workers over the same slots, with the clock in hand."""

from __future__ import annotations

import pytest

from pushserver.clock import ManualClock
from pushserver.web.taking_turns import MOST_S, SLACK, STEP_S, Turns
from pushserver.web.worker_slots import SALT_BYTES, State, WorkerSlots


class Workers:
    """``loads`` connections each, all accepting."""

    def __init__(self, *loads: int) -> None:
        self.clock = ManualClock()
        self.slots = WorkerSlots.create(len(loads) + 1, bytes(SALT_BYTES))
        self.turns = []
        for age, load in enumerate(loads):
            slot = self.slots.take(age)
            assert slot is not None
            turns = Turns(self.slots, slot, self.clock)
            self.slots.publish_state(slot, State.ACCEPTING)
            for _ in range(load):
                turns.opened()
            self.turns.append(turns)

    def waits_s(self, worker: int) -> float:
        """How long the worker steps back until it accepts."""
        started_s = self.clock.monotonic_s()
        while (wait_s := self.turns[worker].wait_s()) > 0:
            self.clock.advance(wait_s)
            assert self.clock.monotonic_s() - started_s < 1
        return self.clock.monotonic_s() - started_s


def test_the_least_loaded_worker_accepts_at_once_and_the_others_step_back() -> None:
    workers = Workers(10, 20, 30)
    assert workers.turns[0].wait_s() == 0
    assert workers.turns[1].wait_s() == STEP_S
    assert workers.turns[2].wait_s() == STEP_S


def test_a_small_difference_is_not_waited_for() -> None:
    assert Workers(10, 10 + SLACK).turns[1].wait_s() == 0
    assert Workers(10, 11 + SLACK).turns[1].wait_s() > 0
    assert Workers(1000, 1030).turns[1].wait_s() == 0


def test_a_connection_that_ended_counts_no_more() -> None:
    workers = Workers(10, 20)
    for _ in range(10):
        workers.turns[1].closed()
    assert workers.turns[1].wait_s() == 0


@pytest.mark.parametrize("state", [State.FREE, State.STARTING, State.PAUSED, State.LEAVING])
def test_a_worker_that_does_not_accept_is_not_waited_for(state: State) -> None:
    workers = Workers(0, 100)
    workers.slots.publish_state(0, state)
    assert workers.turns[1].wait_s() == 0


def test_a_frozen_worker_is_waited_for_once_and_not_again() -> None:
    workers = Workers(0, 100)
    assert workers.waits_s(1) == pytest.approx(MOST_S, abs=STEP_S)
    for _ in range(100):
        workers.turns[1].opened()
        assert workers.waits_s(1) == 0


def test_a_worker_that_moves_again_is_waited_for_again() -> None:
    workers = Workers(0, 100)
    workers.waits_s(1)
    workers.turns[0].opened()
    assert workers.turns[1].wait_s() > 0


def test_the_patience_begins_anew_when_one_of_those_waited_for_accepted() -> None:
    workers = Workers(0, 100)
    for _ in range(20):
        workers.turns[1].wait_s()
        workers.clock.advance(MOST_S * 0.9)
        workers.turns[0].opened()
    assert workers.turns[1].wait_s() > 0


def test_beside_a_frozen_worker_the_others_still_share_evenly() -> None:
    workers = Workers(0, 0, 0, 0)
    loads = [0, 0, 0, 0]
    for _ in range(600):
        # Worker 0 is frozen; of the others the one that the kernel wakes first is always the same.
        taken_by = None
        while taken_by is None:
            taken_by = next((worker for worker in (3, 2, 1) if workers.turns[worker].wait_s() == 0), None)
            workers.clock.advance(STEP_S)
        workers.turns[taken_by].opened()
        loads[taken_by] += 1
    assert loads[0] == 0
    assert max(loads) <= 1.2 * min(loads[1:])
    assert workers.clock.monotonic_s() - 1000 < 600 * STEP_S * 1.5 + 1


def test_a_worker_on_its_own_never_waits() -> None:
    assert Workers(5000).turns[0].wait_s() == 0


def test_whoever_the_kernel_wakes_first_connections_spread_evenly() -> None:
    workers = Workers(0, 0, 0, 0)
    for _ in range(2000):
        taken_by = next(worker for worker in (3, 1, 0, 2) if workers.turns[worker].wait_s() == 0)
        workers.turns[taken_by].opened()
    loads = [workers.slots.load(slot) for slot in range(4)]
    assert sum(loads) == 2000
    assert max(loads) <= 1.2 * min(loads)


def test_an_old_wait_is_not_counted_towards_a_new_one() -> None:
    workers = Workers(0, 3)
    assert workers.turns[1].wait_s() > 0
    workers.turns[1].closed()
    assert workers.turns[1].wait_s() == 0
    workers.clock.advance(60)
    workers.turns[1].opened()
    assert workers.waits_s(1) >= MOST_S
