"""A checker that passes a broken product is worthless: five mutants, each caught within 60 s of chaos.

The same chaos does nothing to the product as it is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import redis

from tests.system.blackbox import ChaosRun
from tests.system.blackbox.rules import ORDERS

pytestmark = pytest.mark.system

MUTANTS = Path(__file__).parent / "blackbox" / "mutants"
CHAOS_S = 60.0
USERS, CLIENTS_PER_USER = 8, 3
EVERYBODY = list(range(1, USERS * CLIENTS_PER_USER + 1))


def chaos_run(folder: Path, seed: int, mutant: str = "", push_workers: int = 2) -> ChaosRun:
    environ = {"PYTHONPATH": str(MUTANTS), "PUSHSERVER_MUTANT": mutant} if mutant else {}
    return ChaosRun(
        folder, push_workers=push_workers, users=USERS, clients_per_user=CLIENTS_PER_USER, node_phones=0,
        changes_per_s=20, seed=seed, intervals="balance=1,positions=1,pnl=1,orders=1", environ=environ,
    )  # fmt: skip


@contextmanager
def begun(folder: Path, mutant: str, push_workers: int) -> Iterator[ChaosRun]:
    """The mutation may strike while the first clients connect, before anybody judges: then all begin anew."""
    with ExitStack() as ends:
        for attempt in range(3):
            place = folder / str(attempt)
            place.mkdir()
            try:
                run = ends.enter_context(chaos_run(place, 2 + attempt, mutant, push_workers))
            except AssertionError as never_began:
                print(f"{mutant} kept clients from catching up at the start: {never_began}")
                continue
            yield run
            return
        raise AssertionError(f"{mutant}: no run could begin")


def clients_reconnect(run: ChaosRun) -> None:
    """Everybody comes back while everything changes for the last time."""
    run.load.stop()
    run.load.change_everybody()
    run.fault("N2", "all clients", lambda: run.clients.order(drop=EVERYBODY))
    run.settle(5)


def the_bus_is_cut(run: ChaosRun) -> None:
    """The connections of all subscribers, again and again, while everything changes for the last time."""
    run.load.stop()
    with run.during("R4", "bus"), closing(redis.Redis.from_url(run.stack.redis_url)) as client:
        run.load.change_everybody()
        for _ in range(30):
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            run.let_pass(0.05)
    run.settle(5)


def redis_is_full(run: ChaosRun) -> None:
    """Nothing can be written for a while. Rounds wait longest for their last answer, with only the commit ahead."""
    slow = run.exchange.fault("latency", {"seconds": 1.0}, endpoint=ORDERS)
    run.let_pass(1)
    run.load.stop()
    run.load.change_everybody()
    with run.during("R8", "Redis"), closing(redis.Redis.from_url(run.stack.redis_url)) as client:
        run.let_pass(run.chance.uniform(0.5, 0.9))
        client.config_set("maxmemory", 1)
        run.let_pass(1.2)
        client.config_set("maxmemory", 0)
        run.exchange.clear_faults(slow)
    run.settle(8)


def the_schedule_is_lost(run: ChaosRun) -> None:
    """Redis forgets who reads whom while rounds wait for their last answer: older ones end after newer ones.

    The wallet stands still: the first round after such a loss reads the parts of pnl once, one after the other, and
    has nothing to notice a change between them by.
    """
    run.load.stop()
    run.load.start(only=("positions", "orders"))
    for _ in range(2):
        with run.during("R2", "Redis"), closing(redis.Redis.from_url(run.stack.redis_url)) as client:
            slow = run.exchange.fault("latency", {"seconds": 1.5}, endpoint=ORDERS, probability=0.5)
            run.let_pass(run.chance.uniform(1.5, 2.5))
            client.flushall()
            run.clients.order(drop=EVERYBODY)
            run.let_pass(1.5)
            run.exchange.clear_faults(slow)
        run.wait_caught_up(15)
    run.settle(15)


Step = Callable[[ChaosRun], None]
STEPS: list[Step] = [clients_reconnect, the_bus_is_cut, redis_is_full, the_schedule_is_lost]


def chaos_until_caught(run: ChaosRun, first: Step) -> Counter[str]:
    """All steps in turn, beginning with ``first``; the verdicts as soon as there are any, or empty after CHAOS_S."""
    began_s, number = time.monotonic(), STEPS.index(first)
    while time.monotonic() - began_s < CHAOS_S:
        STEPS[number % len(STEPS)](run)
        if verdicts := run.verdicts():
            print(f"caught after {time.monotonic() - began_s:.1f} s: {dict(verdicts)}")
            return verdicts
        number += 1
    return Counter()


def test_the_product_as_it_is_stands_the_chaos(tmp_path: Path) -> None:
    with chaos_run(tmp_path, seed=1) as run:
        for step in STEPS:
            step(run)
        print(run.report())
        assert not run.verdicts(), run.report()


@pytest.mark.parametrize(
    ("mutant", "first", "verdict"),
    [
        ("no_as_of_check", the_schedule_is_lost, "regressed"),
        ("publish_before_store", clients_reconnect, "missing_final"),
        ("snapshot_before_subscribe", clients_reconnect, "missing_final"),
        ("no_reread", the_bus_is_cut, "missing_final"),
        ("remembered_although_not_published", redis_is_full, "missing_final"),
    ],
)
def test_a_mutant_is_caught(tmp_path: Path, mutant: str, first: Step, verdict: str) -> None:
    """Each begins with the step that is likeliest to show it, which only saves time."""
    # What one push worker wrongly remembers another puts right; with a single one nobody does.
    push_workers = 1 if mutant == "remembered_although_not_published" else 2
    with begun(tmp_path, mutant, push_workers) as run:
        assert mutant in run.stack.web.log() + run.stack.push_workers[0].log(), "the mutation was not applied"
        verdicts = chaos_until_caught(run, first)
        assert verdicts[verdict] > 0, f"{mutant} passed for the product: {run.report()}"
