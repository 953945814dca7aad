"""What only the schedule in Redis must stand: races, lost answers, an emptied server."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import TimeoutError as RedisTimeoutError

from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.homes import Homes
from pushserver.bus.memory_schedule import MemorySchedule
from pushserver.bus.schedule import Schedule, schedule_keys, spread
from pushserver.clock import ManualClock
from pushserver.errors import StoreUnavailable
from pushserver.model import Secret


@pytest.fixture
def client(redis_url: str) -> Any:
    return connect(Secret(redis_url))


def test_claimers_at_the_same_time_share_the_users_without_overlap(client: Any) -> None:
    schedule = Schedule(client)
    schedule.wake(range(1, 401))
    held: list[int] = []

    def claim_all(name: str) -> None:
        own = Schedule(client)
        while claims := own.claim(5, 30, name):
            held.extend(claim.user_id for claim in claims)

    threads = [threading.Thread(target=claim_all, args=(f"worker-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == list(range(1, 401))


def test_an_emptied_redis_refuses_completions_and_is_refilled(client: Any) -> None:
    schedule = Schedule(client)
    schedule.wake([1])
    [claim] = schedule.claim(1, 30, "a")
    client.flushall()
    assert not schedule.complete(claim, 5)
    assert schedule.ensure([1]) == 1


def test_users_whose_claim_answer_was_lost_come_back_before_the_lease_ends(client: Any) -> None:
    schedule = Schedule(client)
    schedule.wake([1, 2, 3, 4])
    really_claim = schedule._claim

    class Losing:
        def pipelined(self, calls: Any) -> Any:
            really_claim.pipelined(calls)
            raise RedisTimeoutError("the answer is lost")

    schedule._claim = Losing()
    with pytest.raises(StoreUnavailable):
        schedule.claim(10, 60, "a")
    schedule._claim = really_claim
    assert {claim.user_id for claim in schedule.claim(10, 60, "a")} == {1, 2, 3, 4}


def test_a_worker_takes_no_more_than_it_can_serve_and_all_it_can_from_one_full_shard(client: Any) -> None:
    schedule = Schedule(client)
    schedule.wake(range(4, 404, 4))
    assert len(schedule.claim(50, 60, "a")) == 50
    schedule.wake(range(1, 4))
    assert len(schedule.claim(52, 60, "a")) == 52
    assert schedule.claim(0, 60, "a") == []


def test_a_store_that_is_away_is_reported_as_unavailable() -> None:
    client = connect(Secret("redis://127.0.0.1:1/0"), timeout_s=0.2)
    schedule, homes = Schedule(client), Homes(client)
    for call in (
        lambda: schedule.wake([1]),
        lambda: schedule.ensure([1]),
        lambda: schedule.claim(1, 5, "a"),
        lambda: schedule.depth(),
        lambda: homes.take([1], "a", 5),
        lambda: homes.keep({1: 0}, "a", 5),
        lambda: homes.leave([1], "a"),
        lambda: homes.sweep(),
    ):
        with pytest.raises(StoreUnavailable):
            call()


def test_nothing_of_a_finished_user_stays_behind(client: Any) -> None:
    schedule = Schedule(client)
    schedule.wake(range(1, 9))
    for claim in schedule.claim(10, 30, "a"):
        schedule.wake([claim.user_id], hints=1)
        schedule.complete(claim, 0)
    Homes(client).take(range(1, 9), "a", 30)
    for claim in schedule.claim(10, 30, "a"):
        schedule.drop(claim)
    assert [client.exists(*schedule_keys(shard)) for shard in range(4)] == [0, 0, 0, 0]


@pytest.mark.parametrize("back_s", [3, 600])
def test_M3_a_clock_of_redis_that_is_put_back_delays_nobody(client: Any, back_s: int) -> None:
    schedule, homes = Schedule(client), Homes(client)
    schedule.wake([4, 8])
    first, second = sorted(schedule.claim(2, 30, "a"), key=lambda claim: claim.user_id)
    homes.take([4, 8], "dead", 0.0)
    homes.keep({4: 7}, "dead", 0.0)
    schedule.complete(first, 0.0)
    schedule.wake([8], hints=3)
    # As all that was written by a clock so far ahead.
    back_ms = back_s * 1000
    for user in (4, 8):
        client.zincrby(keys.due(0), back_ms, user)
        client.zincrby(keys.homes(0), back_ms, user)
    since, rest = client.hget(keys.wakes(0), 8).split(b" ", 1)
    client.hset(keys.wakes(0), 8, b"%d %s" % (int(since) + back_ms, rest))
    client.incrby(keys.last_seen(0), back_ms)
    claims = schedule.claim(2, 30, "b")
    # What was written after the last claim lies as far after this one.
    time.sleep(0.1)
    claims += schedule.claim(2, 30, "b")
    assert [claim.user_id for claim in claims] == [4]
    assert homes.sweep() == 2
    schedule.complete(second, 60)
    [woken] = schedule.claim(2, 30, "b")
    assert (woken.user_id, woken.hints, woken.overdue_s < 5) == (8, 3, True)


def test_a_clock_of_redis_that_was_ahead_for_a_moment_puts_nobody_far_into_the_past(client: Any) -> None:
    schedule, hour_ms = Schedule(client), 3_600_000
    schedule.wake([4, 8, 12], head_start_s=0)
    for claim in schedule.claim(3, 30, "a"):
        schedule.complete(claim, 0 if claim.user_id == 4 else 20)
    # One of them was served by the clock that was ahead, the others were not.
    client.zincrby(keys.due(0), hour_ms, 12)
    client.incrby(keys.last_seen(0), hour_ms)
    schedule.wake([16], head_start_s=60)
    claims = schedule.claim(3, 30, "b")
    assert [claim.user_id for claim in claims] == [16, 4, 8]
    assert max(claim.overdue_s for claim in claims) < 5
    due_ms = schedule.next_due_ms(12)
    assert due_ms is not None and 15_000 < due_ms - claims[0].at_ms < 25_000


def test_the_spread_of_neighbouring_users_is_even() -> None:
    tenths = [0] * 10
    for user_id in range(1, 1001):
        tenths[int(spread(user_id) * 10)] += 1
    assert min(tenths) > 80 and max(tenths) < 120


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("wake"), st.integers(1, 5)),
        st.tuples(st.just("ensure"), st.integers(1, 5)),
        st.tuples(st.just("claim"), st.integers(1, 3)),
        st.tuples(st.just("complete"), st.integers(0, 20)),
        st.tuples(st.just("drop"), st.integers(0, 20)),
        st.tuples(st.just("pass"), st.integers(0, 8)),
    ),
    max_size=60,
)


@given(ACTIONS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_history_lets_two_living_claims_hold_one_user(actions: list[tuple[str, int]]) -> None:
    clock = ManualClock()
    schedule = MemorySchedule(clock)
    claims: list[Any] = []
    held_until: dict[int, int] = {}
    for action, value in actions:
        if action == "wake":
            schedule.wake([value])
        elif action == "ensure":
            schedule.ensure([value])
        elif action == "pass":
            clock.advance(value)
        elif action == "claim":
            for claim in schedule.claim(value, 5, "a"):
                assert held_until.get(claim.user_id, 0) <= clock.wall_ms()
                held_until[claim.user_id] = clock.wall_ms() + 5_000
                claims.append(claim)
        elif claims:
            claim = claims[value % len(claims)]
            done = schedule.complete(claim, value) if action == "complete" else schedule.drop(claim)
            if done:
                held_until[claim.user_id] = 0


def test_everybody_notices_once_that_the_schedule_was_emptied(redis_url: str) -> None:
    client = connect(Secret(redis_url))
    first, second = Schedule(client), Schedule(client)
    assert not first.look().emptied
    assert not second.look().emptied
    client.flushall()
    assert [first.look().emptied, second.look().emptied] == [True, True]
    assert [first.look().emptied, second.look().emptied] == [False, False]
    client.delete(keys.birth(2))
    assert second.look().emptied
