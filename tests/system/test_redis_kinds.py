"""Sentinels and clusters, made of real servers: whoever dies, every phone is back at the truth soon after."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pushserver.exchange_sim.client import SimControl
from tests.system.harness import Stack, wait_until
from tests.system.phones import TYPES, NodePhone
from tests.system.redis_servers import DOWN_AFTER_MS, Cluster, SentinelTrio, redis_binary, valkey_binary
from tests.system.test_delivery import shows_truth
from tests.system.test_redis_loss import change, status_of, watch

pytestmark = pytest.mark.system

#: With three masters, the slots of these users' channels lie on all of them.
USERS = 4
CONVERGED_WITHIN_S = 15.0
DOWN_AFTER_S = DOWN_AFTER_MS / 1000


@contextmanager
def stack_on(url: str, folder: Path) -> Iterator[tuple[Stack, SimControl, dict[int, NodePhone]]]:
    """A small deployment on that Redis, with a phone per user, all at the truth."""
    stack = Stack(folder, users=USERS, push_workers=1, environ={"REDIS_URL": url})
    stack.start()
    phones: dict[int, NodePhone] = {}
    try:
        phones = watch(stack)
        yield stack, SimControl(stack.exchange_url), phones
    finally:
        for phone in phones.values():
            phone.close()
        stack.stop()


def reconverged_s(stack: Stack, exchange: SimControl, phones: dict[int, NodePhone], limit_s: float) -> float:
    """How long it took; nobody was disconnected for it, and nobody was shown anything older after anything newer."""
    started_s = time.monotonic()

    def all_show_it() -> bool:
        return all(shows_truth(phone, exchange, user) for user, phone in phones.items())

    wait_until(all_show_it, limit_s, f"the truth\n{stack.logs()}")
    for phone in phones.values():
        assert phone.count("disconnect") == 0
        assert all(phone.seqs_grow(name) for name in TYPES), [phone.updates(name) for name in TYPES]
    return time.monotonic() - started_s


def ready(stack: Stack) -> bool:
    return status_of(f"{stack.url}/readyz") == 200


def test_R10_sentinels_replace_a_killed_and_a_hung_master(tmp_path: Path) -> None:
    servers = SentinelTrio(tmp_path).start()
    try:
        with stack_on(servers.url, tmp_path) as (stack, exchange, phones):
            servers.master.kill()
            change(exchange, 1)
            reconverged_s(stack, exchange, phones, CONVERGED_WITHIN_S)
            assert servers.master_port() == servers.replica.port
            wait_until(lambda: ready(stack), 5, "readiness")

            # The first one comes back as a replica, and the second one stops answering with all connections open:
            # the publisher notices before the subscribers, who hear a silence that looks like peace.
            servers.master.start()
            wait_until(lambda: servers.master.client.info("replication")["role"] == "slave", 20, "a replica again")
            wait_until(lambda: servers.knows_a_good_replica(), 20, "Sentinels that could fail over again")
            servers.replica.send(signal.SIGSTOP)
            change(exchange, 2)
            reconverged_s(stack, exchange, phones, CONVERGED_WITHIN_S)
            assert servers.master_port() == servers.master.port

            # A master from before the failover does not bring its past back.
            servers.replica.send(signal.SIGCONT)
            change(exchange, 3)
            reconverged_s(stack, exchange, phones, 5.0)
            wait_until(lambda: ready(stack), 5, "readiness")
    finally:
        servers.stop()


@pytest.mark.parametrize("binary", [lambda: redis_binary("redis-server"), valkey_binary], ids=["redis", "valkey"])
def test_R10_a_cluster_replaces_the_owner_of_a_slot(tmp_path: Path, binary: Callable[[], str]) -> None:
    cluster = Cluster(tmp_path, binary()).start()
    try:
        with stack_on(cluster.url, tmp_path) as (stack, exchange, phones):
            assert len({cluster.owner(f"push:{{{user}}}:balance").port for user in phones}) == 3
            owner = cluster.owner("push:{4}:balance")
            owner.kill()
            change(exchange, 1)
            reconverged_s(stack, exchange, phones, DOWN_AFTER_S + 10)
            assert cluster.owner("push:{4}:balance") is not owner
            wait_until(lambda: ready(stack), 5, "readiness")

            owner.start()
            change(exchange, 2)
            reconverged_s(stack, exchange, phones, 5.0)
            for process in (stack.web, *stack.push_workers):
                assert "unforeseen" not in process.log()
    finally:
        cluster.stop()
