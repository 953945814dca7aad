"""Rows P1, P2, P3, P9 and M3 of the fault matrix: push workers that die, freeze, leave or lose the time of day.

One deployment goes through all rows, one after the other; each row is judged by its own part of the logs. Rounds are
made long enough that something is always under way.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from tests.conftest import require
from tests.system.blackbox import TYPES, ChaosRun, row
from tests.system.blackbox.ages import most_in_a_window
from tests.system.blackbox.figures import lag_within
from tests.system.blackbox.rules import ORDERS
from tests.system.harness import Process, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200 if os.environ.get("PUSHSERVER_NIGHTLY") == "1" else 120)]

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
INTERVAL_S = 1.0
USERS = 12
#: A claim that is never completed falls due again after this.
LEASE_S = 10.0
BACK_S = LEASE_S + INTERVAL_S + 2.0
#: What the noise of a machine with other things to do adds to that.
NOISE_S = 2.0
LIBFAKETIME = "usr/lib/*/faketime/libfaketimeMT.so.1"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosRun]:
    intervals = ",".join(f"{name}={INTERVAL_S:g}" for name in TYPES)
    with ChaosRun(
        tmp_path_factory.mktemp("workers"), users=USERS, changes_per_s=20.0, seed=21, intervals=intervals,
        environ={"DRAIN_S": "2"},
    ) as run:  # fmt: skip
        yield run


@pytest.fixture
def long_rounds(run: ChaosRun) -> Iterator[None]:
    """Every round waits a while for an answer, so that a process has users in hand whenever something befalls it."""
    fault = run.exchange.fault("latency", {"seconds": 0.4}, endpoint=ORDERS)
    yield
    run.exchange.clear_faults(fault)


@pytest.fixture
def admin(run: ChaosRun) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(run.stack.redis_url) as client:
        yield client


def living(run: ChaosRun) -> list[Process]:
    return [worker for worker in run.stack.push_workers if worker.popen.poll() is None]


def is_ready(worker: Process) -> bool:
    return "started" in worker.log()


def start_worker(run: ChaosRun, **environ: str) -> Process:
    worker = run.stack.start_push_worker(**environ)
    wait_until(lambda: is_ready(worker), 20, "the worker to start")
    return worker


@contextmanager
def frozen(worker: Process, admin: redis.Redis) -> Iterator[None]:
    """Stopped at a moment when it has users in hand."""

    def with_users() -> bool:
        os.kill(worker.pid, signal.SIGSTOP)
        held = [lease for key in admin.scan_iter("push:{due-*}:leases") for lease in admin.hvals(key)]
        if any(f"/{worker.pid}/".encode() in lease for lease in held):
            return True
        os.kill(worker.pid, signal.SIGCONT)
        return False

    wait_until(with_users, 20, "a moment when it has users in hand")
    try:
        yield
    finally:
        if worker.popen.poll() is None:
            os.kill(worker.pid, signal.SIGCONT)


def test_P1_I01_killed_push_workers_leave_nobody_behind(run: ChaosRun, long_rounds: None, admin: redis.Redis) -> None:
    with row(run, BACK_S + NOISE_S) as found:
        for _ in range(20 if NIGHTLY else 1):
            run.random_moment()
            victim = run.chance.choice(living(run))
            with frozen(victim, admin):
                run.fault("P1", victim.name, victim.kill)
            start_worker(run)
            run.wait_caught_up(BACK_S + 10)
    for aftermath in found.aftermaths:
        assert aftermath.reconvergence_s.p50 <= 6.0, run.report()
    assert not found.entries("disconnect")


def test_P2_all_push_workers_die_and_come_back_without_a_herd(run: ChaosRun, long_rounds: None) -> None:
    away_s = 5.0
    with row(run, BACK_S + NOISE_S):
        with run.during("P2", "all push workers", blocks=frozenset(TYPES)):
            for worker in living(run):
                worker.kill()
            run.let_pass(away_s)
            for _ in range(2):
                run.stack.start_push_worker()
        wait_until(lambda: all(is_ready(worker) for worker in living(run)), 20, "the workers to start")
    after = [answer for answer in run.logs().answers if answer.t_in >= run.faults[-1].t_end]
    print(f"P2 ramp: at most {most_in_a_window(after, 1.0)} requests in a second, {most_in_a_window(after)} in 5 s")
    assert most_in_a_window(after) <= run.rules.address_requests


def test_P3_I01_others_take_over_the_users_of_a_frozen_worker(
    run: ChaosRun, long_rounds: None, admin: redis.Redis
) -> None:
    zombie = run.chance.choice(living(run))
    with row(run, BACK_S + NOISE_S), run.during("P3", zombie.name), frozen(zombie, admin):
        frozen_s = time.monotonic()
        took_s = run.wait_caught_up(BACK_S + 5)
        print(f"P3 everybody was served by others after {took_s:.1f} s")
        assert took_s <= BACK_S + NOISE_S
        run.let_pass((30.0 if NIGHTLY else LEASE_S + 1.0) - (time.monotonic() - frozen_s))


def test_P3_I02_what_a_frozen_worker_brings_too_late_is_refused_by_the_store(
    run: ChaosRun, long_rounds: None, admin: redis.Redis
) -> None:
    """The leases are taken away while it sleeps, so that it wakes with answers in hand that it believes in."""
    zombie = run.chance.choice(living(run))
    refused = 0.0
    with row(run, BACK_S + NOISE_S):
        for _ in range(10 if NIGHTLY else 2):
            before = zombie.metric("commits_total", result="stale")
            with run.during("P3", zombie.name), frozen(zombie, admin):
                take_leases_away(admin)
                run.let_pass(1.5 * INTERVAL_S)
            run.let_pass(0.5)
            refused += zombie.metric("commits_total", result="stale") - before
    print(f"P3 late commits refused: {refused:.0f}")
    assert refused >= 1


def take_leases_away(admin: redis.Redis) -> None:
    """As if all of them were over: everybody is due and held by nobody."""
    for key in list(admin.scan_iter("push:{due-*}:leases")):
        admin.delete(key)
    for key in list(admin.scan_iter("push:{due-*}:due")):
        for user in admin.zrange(key, 0, -1):
            admin.zadd(key, {user: 1})


def test_P9_processes_are_replaced_in_turn_and_nobody_falls_behind(run: ChaosRun) -> None:
    """One of each kind; all of them, for ten minutes, at night."""
    turns, each, pause_s, calm_s = (12, 2, 5.0, 20.0) if NIGHTLY else (1, 1, 0.5, 4.0)
    run.let_pass(calm_s)
    calm = lag_within(run.logs(), run.now() - calm_s, run.now() - 2 * INTERVAL_S)
    began_s = run.now()
    with row(run, 15.0):
        for _ in range(turns):
            for worker in living(run)[:each]:
                with run.during("P9", worker.name):
                    assert worker.stop() == 0
                    start_worker(run)
                run.let_pass(pause_s)
            for pid in run.stack.web.children()[:each]:
                with run.during("P9", f"web worker {pid}"):
                    os.kill(pid, signal.SIGTERM)
                    wait_until(lambda pid=pid: not psutil.pid_exists(pid), 20, "the web worker to leave")
                    wait_until(lambda: len(run.stack.web.children()) == 2, 20, "its successor")
                run.let_pass(pause_s)
            run.wait_caught_up(15)
    rolling = lag_within(run.logs(), began_s, run.now() - 2 * INTERVAL_S)
    print(f"P9 lag p99 {calm.p99:.2f} s before, {rolling.p99:.2f} s while everything was replaced")
    assert rolling.p99 <= 2 * calm.p99


def in_use(run: ChaosRun) -> tuple[int, int]:
    """Bytes of memory and descriptors of all processes of the product that live."""
    masters = [psutil.Process(process.pid) for process in (run.stack.web, *living(run))]
    processes = [one for master in masters for one in (master, *master.children(recursive=True))]
    return sum(one.memory_info().rss for one in processes), sum(one.num_fds() for one in processes)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(not NIGHTLY, reason="takes ten minutes: PUSHSERVER_NIGHTLY=1")
def test_P10_ten_minutes_of_random_deaths_and_freezes(run: ChaosRun) -> None:
    until_s = run.now() + 600.0
    memory, descriptors = in_use(run)
    while run.now() < until_s:
        with row(run, 40.0):
            run.random_moment(20.0)
            how = run.chance.choice((signal.SIGKILL, signal.SIGSTOP))
            pid = run.chance.choice([worker.pid for worker in living(run)] + run.stack.web.children())
            with run.during("P10", f"{how.name} of {pid}"):
                os.kill(pid, how)
                if how == signal.SIGSTOP:
                    run.let_pass(run.chance.uniform(1.0, 15.0))
                    os.kill(pid, signal.SIGCONT)
                else:
                    wait_until(lambda pid=pid: not is_alive(pid), 10, "the process to die")
            while len(living(run)) < 2:
                start_worker(run)
    memory_after, descriptors_after = in_use(run)
    print(f"P10 memory {memory >> 20} to {memory_after >> 20} MiB, descriptors {descriptors} to {descriptors_after}")
    assert memory_after <= 1.1 * memory
    assert descriptors_after <= 1.1 * descriptors


def test_M3_I06_a_push_worker_whose_clock_jumps_by_an_hour_goes_on_as_before(run: ChaosRun) -> None:
    found = sorted(Path("/").glob(LIBFAKETIME))
    require(found, "libfaketime is not installed (Debian: faketime)")
    clock = run.folder / "clock-of-one-worker"
    clock.write_text("+0s\n")
    replaced = living(run)[0]
    jumping = start_worker(
        run, LD_PRELOAD=str(found[0]), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )  # fmt: skip
    assert replaced.stop() == 0
    run.let_pass(1.0)
    held_s = 20.0 if NIGHTLY else 3.0
    mark = run.exchange.mark_counters()
    run.let_pass(held_s)
    calm = run.exchange.counters(mark)["requests"]
    for hours in (1, -1):
        with row(run, 5.0):
            rounds = jumping.metric("fetch_rounds_total", result="ok")
            with run.during("M3", f"{jumping.name} {hours:+} h"):
                mark = run.exchange.mark_counters()
                clock.write_text(f"{hours:+}h\n")
                run.let_pass(held_s)
                jumped = run.exchange.counters(mark)["requests"]
            rounds = jumping.metric("fetch_rounds_total", result="ok") - rounds
            print(f"M3 {hours:+} h: {calm} requests before, {jumped} after; {rounds:.0f} good rounds of that worker")
            assert jumped <= 1.3 * calm, "no storm"
            assert rounds >= 3, "it does its share with any clock"
