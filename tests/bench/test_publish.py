"""The publisher keeps its rate, names every state once and counts what became of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.pacing import LARGEST_BATCH, TICK_S, batches
from bench.publish import Publisher, changed_state, parse_users
from pushserver.bus.connection import connect
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.model import DataType, Secret

ROOT = Path(__file__).resolve().parents[2]


class Sleeper:
    """A clock that only sleeping moves."""

    def __init__(self, oversleep_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.sleeps = 0
        self._oversleep_s = oversleep_s

    def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        self.now_s += seconds + self._oversleep_s

    def numbered(self, rate: float, seconds: float) -> list[range]:
        return list(batches(rate, seconds, self.sleep, lambda: self.now_s))


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 1), (2000, 0.5), (3, 4), (0.5, 2)])
def test_every_number_is_given_out_once_and_the_rate_is_kept(rate, seconds):
    sleeper = Sleeper()
    numbers = [number for batch in sleeper.numbered(rate, seconds) for number in batch]
    assert numbers == list(range(round(rate * seconds)))
    assert sleeper.now_s - 100 == pytest.approx(seconds, abs=max(2 * TICK_S, 1 / rate))


def test_a_high_rate_goes_out_in_batches_of_what_fell_due_within_a_tick():
    sleeper = Sleeper()
    sizes = [len(batch) for batch in sleeper.numbered(8000, 1)]
    assert max(sizes) <= 9
    assert sleeper.sleeps <= 1.01 / TICK_S


def test_batches_are_even_although_sending_one_takes_part_of_the_tick():
    sleeper = Sleeper()
    sizes = []
    for batch in batches(4000, 1, sleeper.sleep, lambda: sleeper.now_s):
        sizes.append(len(batch))
        sleeper.now_s += 0.4 * TICK_S
    assert set(sizes[1:-1]) <= {3, 4, 5}
    assert len(sizes) == pytest.approx(1 / TICK_S, rel=0.01)


def test_a_slow_rate_is_never_ahead_of_its_time():
    sleeper = Sleeper()
    for number, _ in enumerate(batches(10, 1, sleeper.sleep, lambda: sleeper.now_s)):
        assert sleeper.now_s - 100 >= number / 10 - 1e-6


def test_a_publisher_that_was_held_up_catches_up_in_bounded_batches():
    sizes = [len(batch) for batch in Sleeper(oversleep_s=0.5).numbered(8000, 1)]
    assert sum(sizes) == 8000
    assert max(sizes) == LARGEST_BATCH


@pytest.mark.parametrize("data_type", list(DataType))
def test_two_versions_of_a_state_differ(data_type):
    assert changed_state(data_type, 1, 3) != changed_state(data_type, 2, 3)


def test_a_range_of_users_includes_both_ends():
    assert list(parse_users("7-9")) == [7, 8, 9]
    assert list(parse_users("7")) == [7]


def test_the_command_commits_round_robin_and_says_what_became_of_it(redis_url):
    command = [sys.executable, "-m", "bench.publish", "--redis-url", redis_url, "--users", "11-13"]
    command += ["--type", "orders", "--rate", "200", "--seconds", "0.3", "--rows", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    counts = dict(word.split("=") for word in done.stdout.split())
    assert counts | {"elapsed_ms": ""} == {
        "published": "60", "unchanged": "0", "stale": "0", "failed": "0", "elapsed_ms": ""
    }  # fmt: skip
    states = States(connect(Secret(redis_url)), SystemClock())
    stored = states.read([(user_id, DataType.ORDERS) for user_id in (11, 12, 13)])
    assert all(state.frame and state.frame.startswith(b'42["orders_update"') for state in stored)


def test_states_that_redis_does_not_take_count_as_failed():
    clock = SystemClock()
    publisher = Publisher(States(connect(Secret("redis://127.0.0.1:1/0")), clock), range(1, 4), DataType.PNL, 3, clock)
    publisher.commit(range(5))
    assert publisher.results == {"published": 0, "unchanged": 0, "stale": 0, "failed": 5}
