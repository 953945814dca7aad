"""Rows E3, H11 and I03: many users behind one address, and a start while nothing else is there."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from pushserver.exchange_sim.client import SimControl
from tests.ports import free_ports
from tests.system.blackbox import ChaosRun, count
from tests.system.blackbox.ages import most_in_a_window, unfairness, worst_ages
from tests.system.harness import Stack, status_of, wait_until
from tests.system.phones import PythonPhone
from tests.system.redis_servers import Server, valkey_binary
from tests.system.test_delivery import shows_truth

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
CROWD = 600
BUDGET = 480
CROWD_LIMITS = {
    "MAX_CONNECTIONS_PER_ADDRESS": "2000",
    "CONNECT_BURST_PER_ADDRESS": "2000",
    "CONNECT_RATE_PER_ADDRESS": "2000",
}


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[ChaosRun]:
    """600 users who are due every 2 s are some three times what the address may ask."""
    with ChaosRun(
        tmp_path, users=CROWD, clients_per_user=1, node_phones=0, changes_per_s=20.0, seed=3, push_workers=4,
        intervals="balance=2,positions=2,pnl=2,orders=2", types=["positions"], environ=CROWD_LIMITS,
    ) as run:  # fmt: skip
        yield run


def test_E3_H11_four_workers_share_one_budget_evenly_and_a_restart_of_all_keeps_to_it(crowd: ChaosRun) -> None:
    run, users = crowd, range(1, CROWD + 1)
    began_s = run.now()
    run.let_pass(60.0 if NIGHTLY else 10.0)
    ages = worst_ages(run.logs().answers, users, began_s, run.now())
    steady = sum(answer.t_in >= began_s for answer in run.logs().answers) / (run.now() - began_s)
    print(
        f"E3 age of {CROWD} users: median {median(ages.values()):.2f} s, max {max(ages.values()):.2f} s, "
        f"max/median {unfairness(ages):.2f}; {5 * steady:.0f} requests per 5 s"
    )
    assert unfairness(ages) <= 2.0
    assert 5 * steady >= 0.75 * BUDGET, "what may be asked is asked"
    with run.during("H11", "all push workers"):
        for worker in run.stack.push_workers:
            worker.kill()
        for _ in range(4):
            run.stack.start_push_worker()
    restarted_s = run.now()
    run.let_pass(20.0 if NIGHTLY else 5.0)
    answers = run.logs().answers
    herd = [answer for answer in answers if answer.t_in >= restarted_s]
    print(f"E3 at most {most_in_a_window(answers)} requests in any 5 s; {len(herd)} in 5 s after the restart")
    assert most_in_a_window(answers) <= BUDGET
    assert herd
    assert run.exchange.counters()["bans"] == 0
    findings = [finding for finding in run.findings() if finding.t < restarted_s or finding.verdict != "double_fetch"]
    assert not findings, (count(findings), findings[:5])


def not_ready(url: str) -> dict[str, str]:
    """What readyz says."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=10):
            return {}
    except urllib.error.HTTPError as refused:
        return {"error": refused.read().decode()}
    except OSError:
        return {}


def test_I03_everything_starts_without_redis_database_and_exchange_and_recovers(tmp_path: Path) -> None:
    later = tmp_path / "comes-later"
    server = Server(valkey_binary(), tmp_path, free_ports(1)[0])
    environ = {
        "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
        "DATABASE_URL": f"sqlite:///{later}/pushserver.db",
    }
    stack = Stack(tmp_path, users=2, environ=environ)
    try:
        stack.start_web()
        workers = [stack.start_push_worker(), stack.start_push_worker()]
        wait_until(lambda: "redis" in json.dumps(not_ready(stack.url)).lower(), 30, "readyz to name Redis")
        assert status_of(f"{stack.url}/healthz") == 200
        wait_until(lambda: all("started" in worker.log() for worker in workers), 30, "the workers to start")
        # Time enough for whatever gives up to give up.
        wait_until(lambda: all(lost(worker.log()) for worker in workers), 10, "the workers to notice")
        assert all(process.popen.poll() is None for process in stack.processes)
        assert len(stack.web.children()) == 2
        later.mkdir()
        stack.add_users()
        server.start()
        stack.declare_budget_unspent()
        wait_until(lambda: status_of(f"{stack.url}/readyz") == 200, 30, "readiness")
        phone = PythonPhone(stack.url, stack.token(1))
        phone.wait_for("connected")
        phone.call("subscribe_trading", {})
        # The exchange is the last to come.
        wait_until(lambda: phone.events("status_update"), 30, "a word on the exchange")
        stack.start_exchange()
        exchange = SimControl(stack.exchange_url)
        wait_until(lambda: shows_truth(phone, exchange, 1), 30, "the truth")
        phone.close()
        assert all(process.popen.poll() is None for process in stack.processes)
        assert all(worker.stop() == 0 for worker in workers)
    finally:
        stack.stop()
        server.kill()


def lost(log: str) -> bool:
    return "redis lost" in log
