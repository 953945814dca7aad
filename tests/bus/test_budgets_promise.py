"""At most so many arrivals in any window, whatever happens to processes, Redis and its clock.

A twin of the script in Python is put through generated histories; the script itself is compared with the twin, and is
finally raced for by many at once.
"""

from __future__ import annotations

import random
import threading
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushserver.bus import budgets
from pushserver.bus.budgets import SLACK_S, Budget, burst_and_cost_us
from pushserver.bus.connection import connect
from pushserver.model import Secret

AHEAD_S = budgets.LONGEST_HORIZON_S


def busiest(times: Sequence[float], window_s: float) -> int:
    """The most of ``times`` (sorted) within any stretch that is shorter than ``window_s``."""
    return max((bisect_right(times, at + window_s - 1e-6) - index for index, at in enumerate(times)), default=0)


@dataclass
class Twin:
    """The script's rules on one address, in seconds; ``offset_s`` is what Redis's clock is wrong by."""

    per_window: int
    window_s: float
    spent: float | None = 0.0
    opens: float = 0.0
    offset_s: float = 0.0
    burst: int = field(init=False)
    cost: float = field(init=False)

    def __post_init__(self) -> None:
        self.burst, cost_us = burst_and_cost_us(self.per_window, self.window_s)
        self.cost = cost_us / 1e6

    def spend(self, true_now: float, knowledge: tuple[float, float, float] | None, sizes: list[int], horizon: float):
        """``knowledge``: Redis's time of the last grant, what was spent then, and when that was asked, in true time."""
        now = true_now + self.offset_s
        capacity, worst = self.burst * self.cost, now + AHEAD_S + 3 * self.burst * self.cost
        unknown = self.window_s + SLACK_S
        if self.spent is None:
            self.spent = worst
            if knowledge is None:
                self.opens = self.spent = now + unknown
        elif knowledge is not None and self.opens > now:
            self.opens, self.spent = 0.0, worst
        elif knowledge is not None and now - knowledge[0] > true_now - knowledge[2] + 0.5:
            self.spent = worst
        elif self.opens <= now:
            self.spent = min(max(self.spent, knowledge[1] if knowledge else 0.0), worst)
        self.opens = min(self.opens, now + unknown)
        delays: list[float] = []
        if self.opens <= now:
            for size in sizes:
                if max(self.spent, now) + self.cost - capacity - now > horizon:
                    break
                self.spent = max(self.spent, now) + size * self.cost
                delays.append(max(0.0, self.spent - capacity - now))
        return now, self.spent, delays


STEP = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.0, 7.0)),
    st.tuples(st.just("rush"), st.floats(0.1, 2.0)),
    st.tuples(st.just("rush"), st.floats(0.1, 2.0)),
    st.tuples(st.just("lose"), st.none()),
    st.tuples(st.just("restart"), st.integers(0, 2)),
    st.tuples(st.just("clock"), st.sampled_from([-60.0, -1.0, -0.2, 3.0, 60.0])),
)


class World:
    """Three processes that ask as generated; ``arrivals`` at the exchange in true time."""

    def __init__(self, per_window: int, rng: random.Random) -> None:
        self.twin = Twin(per_window, 1.0)
        self.rng = rng
        self.now = 100.0
        self.knows: list[tuple[float, float, float] | None] = [None] * 3
        self.arrivals: list[float] = []

    def step(self, kind: str, value: Any) -> None:
        if kind == "pass":
            self.now += value
        elif kind == "lose":
            self.twin.spent, self.twin.opens = None, 0.0
        elif kind == "restart":
            self.knows[value] = None
        elif kind == "rush":
            self._rush(value)
        elif value < 0 or all(self.knows):
            # Only who has been granted something can tell that the clock was put forward.
            self.twin.offset_s += value

    def _rush(self, lasts_s: float) -> None:
        """All want all they can get. First they are as late as they may be, and all at once quick."""
        ends, quick_at = self.now + lasts_s, self.now + lasts_s * self.rng.random()
        horizon = self.rng.choice([0.0, 0.1, 0.4])
        while self.now < ends:
            process = self.rng.randrange(3)
            sizes = [self.rng.randint(1, 4) for _ in range(3)]
            redis_now, spent, delays = self.twin.spend(self.now, self.knows[process], sizes, horizon)
            if delays:
                self.knows[process] = redis_now, spent, self.now
            late = SLACK_S - 1e-6 if self.now < quick_at else 0.0
            for size, delay in zip(sizes, delays, strict=False):
                self.arrivals += [self.now + delay + late] * size
            self.now += self.rng.choice([0.001, 0.01, 0.02])


@settings(max_examples=100, deadline=None)
@given(st.integers(10, 60), st.lists(STEP, max_size=25), st.randoms(use_true_random=False))
def test_E3_no_window_ever_holds_more_than_is_allowed(per_window: int, steps: list[Any], rng: random.Random) -> None:
    world = World(per_window, rng)
    for kind, value in steps:
        world.step(kind, value)
    assert busiest(sorted(world.arrivals), 1.0) <= per_window


def test_the_busiest_window_is_found() -> None:
    assert busiest([0.0, 0.5, 0.9, 1.2, 3.0], 1.0) == 3
    assert busiest([], 1.0) == 0


@pytest.fixture
def client(redis_url: str) -> Any:
    return connect(Secret(redis_url))


def test_the_script_does_what_its_twin_does(client: Any) -> None:
    rng = random.Random(7)
    budget, twin = Budget(client, "here", 60, 1.0), Twin(60, 1.0)
    budget.declare_unspent()
    for _ in range(120):
        sizes = [rng.randint(1, twin.burst) for _ in range(rng.randint(1, 4))]
        horizon = rng.choice([0.0, 0.1, 0.4])
        grant = budget.spend(*sizes, horizon_s=horizon)
        seconds, micros = client.hmget("push:{egress-here}:budget:requests", "spent", "opens")[0], 0
        now = int(budget._granted[0]) / 1e6 if grant.granted else None
        if now is not None:
            _, spent, delays = twin.spend(now, None, sizes, horizon)
            assert len(delays) == len(grant.usable)
            assert int(seconds) / 1e6 + micros == pytest.approx(spent, abs=1e-5)
        time.sleep(rng.choice([0.0, 0.005, 0.02]))


def test_E3_ten_processes_at_once_stay_within_the_limit_and_use_most_of_it(client: Any) -> None:
    """Redis is emptied in between, and half of the processes are started anew."""
    per_window, window_s, lasts_s = 120, 0.5, 3.0
    Budget(client, "here", per_window, window_s).declare_unspent()
    starts: list[float] = []
    begun_s = time.monotonic()

    def ask_all_the_time(number: int) -> None:
        rng = random.Random(number)
        own = connect(client_url(client))
        budget = Budget(own, "here", per_window, window_s)
        renewed = False
        while (passed_s := time.monotonic() - begun_s) < lasts_s:
            if passed_s > lasts_s * 0.6 and not renewed and number % 2:
                budget, renewed = Budget(own, "here", per_window, window_s), True
            sizes = [rng.randint(1, 4) for _ in range(3)]
            grant = budget.spend(*sizes, horizon_s=0.1)
            for size, (usable_from, _) in zip(sizes, grant.usable, strict=False):
                starts.extend([usable_from] * size)
            time.sleep(min(grant.wait_s + rng.random() * 0.01, 0.3))

    threads = [threading.Thread(target=ask_all_the_time, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    time.sleep(lasts_s * 0.4)
    client.flushall()
    for thread in threads:
        thread.join()
    starts.sort()
    assert busiest(starts, window_s) <= per_window
    rate = Budget(client, "here", per_window, window_s).rate_per_s
    assert len(starts) > 0.6 * rate * lasts_s, "nobody was silenced for long"


def client_url(client: Any) -> Secret:
    options = client.connection_pool.connection_kwargs
    return Secret(f"redis://{options['host']}:{options['port']}/0")
