"""What becomes of the phones when the web side dies, freezes, reloads or stops at random moments, judged from outside.

Limits are those of the fault matrix. The moments follow from the seed; a night repeats each row three times.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.system.blackbox import ChaosRun, row
from tests.system.crowds import connections_per_worker
from tests.system.harness import Stack, wait_until

pytestmark = pytest.mark.system

EVERY_SECOND = "balance=1,positions=1,pnl=1,orders=1"
NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
REPETITIONS = 3 if NIGHTLY else 1
#: What is quick and depends on the moment is repeated in any case.
KILLS = 3
DRAIN_S = 3
#: Long enough that the pace shows.
RELOAD_S = 5
#: Workers look for their master every second; on an idle machine they are gone within 2 s.
FOLLOW_S = 4.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosRun]:
    """Eight users who change all the time. One deployment goes through all rows but the reload, one after the other."""
    with ChaosRun(
        tmp_path_factory.mktemp("chaos"), users=8, clients_per_user=3, changes_per_s=20, seed=40,
        intervals=EVERY_SECOND, environ={"DRAIN_S": str(DRAIN_S)},
    ) as run:  # fmt: skip
        yield run


def a_web_worker(run: ChaosRun) -> int:
    """The process id of one of the two, at random among those that have clients."""
    wait_until(lambda: len(run.stack.web.children()) == 2, 20, "two web workers")
    counts = connections_per_worker(run.stack)
    return run.chance.choice(sorted(pid for pid, count in counts.items() if count > 0))


def all_gone(pids: Sequence[int]) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def port_is_free(stack: Stack) -> bool:
    """Nobody listens there, whoever it may be."""
    return not any(
        end.status == psutil.CONN_LISTEN and end.laddr.port == stack.web_port for end in psutil.net_connections("tcp")
    )


def test_P4_clients_of_a_killed_web_worker_are_back_at_the_first_attempt(run: ChaosRun) -> None:
    with row(run, 3.0) as found:
        for _ in range(KILLS):
            run.random_moment()
            pid = a_web_worker(run)
            run.fault("P4", f"web worker {pid}", lambda pid=pid: os.kill(pid, signal.SIGKILL))
            run.wait_caught_up(15)
    assert not found.entries("refused")
    for aftermath in found.aftermaths:
        assert aftermath.away_s.count > 0, "the worker had no client"
        assert aftermath.away_s.p99 <= 2.0, run.report()


def test_P5_a_web_worker_frozen_for_10_seconds_keeps_its_sockets_and_catches_up(run: ChaosRun) -> None:
    with row(run, 2.0) as found:
        for _ in range(REPETITIONS):
            run.random_moment()
            pid = a_web_worker(run)
            run.fault(
                "P5", f"web worker {pid}", lambda pid=pid: os.kill(pid, signal.SIGSTOP),
                heal=lambda pid=pid: os.kill(pid, signal.SIGCONT), hold_s=10,
            )  # fmt: skip
            run.wait_caught_up(15)
    assert not found.entries("disconnect")


@pytest.mark.skipif(not NIGHTLY, reason="takes over a minute: PUSHSERVER_NIGHTLY=1")
def test_P5_a_web_worker_frozen_for_40_seconds_is_replaced_and_its_clients_come_back(run: ChaosRun) -> None:
    with row(run, 5.0):
        run.random_moment()
        pid = a_web_worker(run)
        with run.during("P5", f"web worker {pid}"):
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: all_gone([pid]), 40, "the arbiter to kill the worker after its timeout of 30 s")


def test_P6_a_killed_gunicorn_master_leaves_no_orphan_and_its_successor_serves_everybody(run: ChaosRun) -> None:
    with row(run, 10.0):
        for _ in range(REPETITIONS):
            run.random_moment()
            workers = run.stack.web.children()
            with run.during("P6", "gunicorn master"):
                run.stack.web.kill()
                wait_until(
                    lambda workers=workers: all_gone(workers) and port_is_free(run.stack),
                    FOLLOW_S, "the workers to follow their master",
                )  # fmt: skip
                run.stack.start_web()  # as a supervisor does
            run.wait_caught_up(15)


def test_P7_a_reload_refuses_nobody_and_every_client_is_back_within_3_seconds(tmp_path: Path) -> None:
    environ = {"DRAIN_S": str(RELOAD_S)}
    with (
        ChaosRun(tmp_path, users=30, clients_per_user=10, changes_per_s=10, seed=70, environ=environ) as run,
        row(run, RELOAD_S) as found,
    ):
        for _ in range(REPETITIONS):
            run.random_moment()
            old = run.stack.web.children()
            with run.during("P7", "web side"):
                run.stack.web.popen.send_signal(signal.SIGHUP)
                wait_until(lambda old=old: all_gone(old), RELOAD_S + 15, "the old workers to leave")
            run.wait_caught_up(15)
            left = [entry.t for entry in found.entries("disconnect") if entry.t >= run.faults[-1].t_start]
            assert len(left) >= 302, "not every connection was replaced"
            assert max(sum(t <= other < t + 1 for other in left) for t in left) <= 302 * 1.5 / RELOAD_S
            assert not found.entries("refused")
    for aftermath in found.aftermaths:
        assert aftermath.away_s.max <= 3.0, run.report()


def test_P8_a_stopped_web_side_closes_its_transports_exits_cleanly_and_leaves_nothing(run: ChaosRun) -> None:
    graceful_s = DRAIN_S + 15  # as gunicorn.conf.py has it
    with row(run, 10.0) as found:
        for _ in range(REPETITIONS):
            run.random_moment()
            workers = run.stack.web.children()
            with run.during("P8", "web side"):
                stopped_s = time.monotonic()
                assert run.stack.web.stop(timeout_s=graceful_s + 10) == 0
                assert time.monotonic() - stopped_s <= graceful_s + 2
                assert all_gone(workers) and port_is_free(run.stack)
                run.stack.start_web()
            run.wait_caught_up(15)
    # The clients reconnect by themselves after a transport that closed, not after a disconnect packet.
    ended = {entry.code for entry in found.entries("disconnect")}
    assert ended and not ended & {"disconnect packet", "io server disconnect"}
