"""What becomes of the phones when the web side dies, freezes, reloads or stops at random moments, judged from outside.

Limits are those of the fault matrix. Three repetitions each; the moments follow from the seed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.system.blackbox import ChaosRun, Entry
from tests.system.crowds import connections_per_worker
from tests.system.harness import Stack, wait_until

pytestmark = pytest.mark.system

EVERY_SECOND = "balance=1,positions=1,pnl=1,orders=1"
REPETITIONS = 3
DRAIN_S = 3
#: Long enough that the pace shows.
RELOAD_S = 5
#: Workers look for their master every second; on an idle machine they are gone within 2 s.
FOLLOW_S = 4.0


@contextmanager
def chaos(folder: Path, seed: int, clients_per_user: int = 3) -> Iterator[ChaosRun]:
    """Eight users who change all the time; at the end everything must be settled and every promise kept."""
    with ChaosRun(
        folder, users=8, clients_per_user=clients_per_user, changes_per_s=20, seed=seed,
        intervals=EVERY_SECOND, environ={"DRAIN_S": str(DRAIN_S)},
    ) as run:  # fmt: skip
        yield run
        run.settle(20, resume=False)
        print(run.report())
        assert not run.verdicts(), run.report()


def entries_since(run: ChaosRun, t: float, event: str) -> list[Entry]:
    return [entry for entry in run.logs().entries if entry.event == event and entry.t >= t]


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


def test_P4_clients_of_a_killed_web_worker_are_back_at_the_first_attempt(tmp_path: Path) -> None:
    with chaos(tmp_path, seed=40) as run:
        started_s = time.monotonic()
        for _ in range(REPETITIONS):
            run.random_moment()
            pid = a_web_worker(run)
            run.fault("P4", f"web worker {pid}", lambda pid=pid: os.kill(pid, signal.SIGKILL))
            run.wait_caught_up(15)
        assert not entries_since(run, started_s, "refused")
        for aftermath in run.figures().faults:
            assert aftermath.away_s.count > 0, "the worker had no client"
            assert aftermath.away_s.p99 <= 2.0, run.report()
            assert aftermath.reconvergence_s.max <= 3.0, run.report()


def test_P5_a_web_worker_frozen_for_10_seconds_keeps_its_sockets_and_catches_up(tmp_path: Path) -> None:
    with chaos(tmp_path, seed=50) as run:
        started_s = time.monotonic()
        for _ in range(REPETITIONS):
            run.random_moment()
            pid = a_web_worker(run)
            run.fault(
                "P5", f"web worker {pid}", lambda pid=pid: os.kill(pid, signal.SIGSTOP),
                heal=lambda pid=pid: os.kill(pid, signal.SIGCONT), hold_s=10,
            )  # fmt: skip
            run.wait_caught_up(15)
        assert not entries_since(run, started_s, "disconnect")
        for aftermath in run.figures().faults:
            assert aftermath.reconvergence_s.max <= 2.0, run.report()


@pytest.mark.skipif(not os.environ.get("PUSHSERVER_NIGHTLY"), reason="takes over a minute: PUSHSERVER_NIGHTLY=1")
def test_P5_a_web_worker_frozen_for_40_seconds_is_replaced_and_its_clients_come_back(tmp_path: Path) -> None:
    with chaos(tmp_path, seed=51) as run:
        run.random_moment()
        pid = a_web_worker(run)
        with run.during("P5", f"web worker {pid}"):
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: all_gone([pid]), 40, "the arbiter to kill the worker after its timeout of 30 s")
        run.wait_caught_up(15)
        [aftermath] = run.figures().faults
        assert aftermath.reconvergence_s.max <= 5.0, run.report()


def test_P6_a_killed_gunicorn_master_leaves_no_orphan_and_its_successor_serves_everybody(tmp_path: Path) -> None:
    with chaos(tmp_path, seed=60) as run:
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
        for aftermath in run.figures().faults:
            assert aftermath.reconvergence_s.max <= 10.0, run.report()


def test_P7_a_reload_refuses_nobody_and_every_client_is_back_within_3_seconds(tmp_path: Path) -> None:
    environ = {"DRAIN_S": str(RELOAD_S)}
    with ChaosRun(tmp_path, users=30, clients_per_user=10, changes_per_s=10, seed=70, environ=environ) as run:
        for _ in range(REPETITIONS):
            run.random_moment()
            old = run.stack.web.children()
            with run.during("P7", "web side"):
                run.stack.web.popen.send_signal(signal.SIGHUP)
                wait_until(lambda old=old: all_gone(old), RELOAD_S + 15, "the old workers to leave")
            run.wait_caught_up(15)
            fault = run.faults[-1]
            left = [entry.t for entry in entries_since(run, fault.t_start, "disconnect")]
            assert len(left) >= 302, "not every connection was replaced"
            assert max(sum(t <= other < t + 1 for other in left) for t in left) <= 302 * 1.5 / RELOAD_S
            assert not entries_since(run, fault.t_start, "refused")
        run.settle(20, resume=False)
        print(run.report())
        assert not run.verdicts(), run.report()
        for aftermath in run.figures().faults:
            assert aftermath.away_s.max <= 3.0, run.report()


def test_P8_a_stopped_web_side_closes_its_transports_exits_cleanly_and_leaves_nothing(tmp_path: Path) -> None:
    graceful_s = DRAIN_S + 15  # as gunicorn.conf.py has it
    with chaos(tmp_path, seed=80) as run:
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
            ended = {entry.code for entry in entries_since(run, stopped_s, "disconnect")}
            # The clients reconnect by themselves after a transport that closed, not after a disconnect packet.
            assert "disconnect packet" not in ended and "io server disconnect" not in ended
