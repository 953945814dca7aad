"""Sentinels and clusters of real servers, under load: whoever dies, every phone is back at the truth soon after."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.blackbox import ChaosRun
from tests.system.harness import Stack, status_of, wait_until
from tests.system.redis_servers import DOWN_AFTER_MS, Cluster, SentinelTrio, redis_binary, valkey_binary

pytestmark = pytest.mark.system

#: With three masters, the slots of these users' channels lie on all of them.
USERS = 4
INTERVALS = "balance=1,positions=1,pnl=1,orders=1"
SENTINELS_WITHIN_S = 15.0
CLUSTER_WITHIN_S = DOWN_AFTER_MS / 1000 + 10


@contextmanager
def run_on(url: str, folder: Path) -> Iterator[ChaosRun]:
    """A small deployment on that Redis, under load; afterwards every promise was kept and nobody was disconnected."""
    stack = Stack(folder, users=USERS, push_workers=1, intervals=INTERVALS, environ={"REDIS_URL": url})
    try:
        stack.start()
        with ChaosRun(folder, users=USERS, node_phones=1, changes_per_s=4.0, seed=10, stack=stack) as run:
            yield run
            wait_until(lambda: ready(stack), 5, "readiness")
            run.settle(15)
            assert not run.verdicts(), run.report()
            assert not [entry for entry in run.logs().entries if entry.event in ("disconnect", "refused")]
            assert max(each.reconvergence_s.max for each in run.figures().faults) <= SENTINELS_WITHIN_S, run.report()
            print(run.report())
        for process in (stack.web, *stack.push_workers):
            assert "unforeseen" not in process.log()
    finally:
        stack.stop()


def ready(stack: Stack) -> bool:
    return status_of(f"{stack.url}/readyz") == 200


def survives(run: ChaosRun, target: str, what: Callable[[], object], within_s: float) -> None:
    """The clock runs from the fault on, not from any healing: nothing is healed but by itself."""
    run.fault("R10", target, what)
    run.load.change_everybody()
    assert run.wait_caught_up(within_s) <= within_s


def test_R10_sentinels_replace_a_killed_and_a_hung_master(tmp_path: Path) -> None:
    servers = SentinelTrio(tmp_path).start()
    try:
        with run_on(servers.url, tmp_path) as run:
            survives(run, "master killed", servers.master.kill, SENTINELS_WITHIN_S)
            assert servers.master_port() == servers.replica.port

            # The first one comes back as a replica, and the second one stops answering with all connections open:
            # the publisher notices before the subscribers, who hear a silence that looks like peace.
            servers.master.start()
            wait_until(lambda: servers.master.role() == "slave", 20, "a replica again")
            wait_until(servers.knows_a_good_replica, 20, "Sentinels that could fail over again")
            survives(run, "master hung", lambda: servers.replica.send(signal.SIGSTOP), SENTINELS_WITHIN_S)
            assert servers.master_port() == servers.master.port

            # A master from before the failover does not bring its past back.
            survives(run, "old master back", lambda: servers.replica.send(signal.SIGCONT), 5.0)
    finally:
        servers.stop()


@pytest.mark.parametrize("binary", [lambda: redis_binary("redis-server"), valkey_binary], ids=["redis", "valkey"])
def test_R10_a_cluster_replaces_the_owner_of_a_slot(tmp_path: Path, binary: Callable[[], str]) -> None:
    cluster = Cluster(tmp_path, binary()).start()
    try:
        with run_on(cluster.url, tmp_path) as run:
            owners = {cluster.owner(f"push:{{{user}}}:balance").port for user in range(1, USERS + 1)}
            assert len(owners) == 3
            owner = cluster.owner("push:{4}:balance")
            survives(run, "owner killed", owner.kill, CLUSTER_WITHIN_S)
            assert cluster.owner("push:{4}:balance") is not owner
            survives(run, "old owner back", owner.start, 5.0)
    finally:
        cluster.stop()
