"""Commands to a Redis Cluster, on a real one: every one reaches the owner of its slot, also when that changes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
import redis

from pushserver.bus.access import AccessList
from pushserver.bus.budgets import ADDRESS_WINDOW_S, Budget
from pushserver.bus.cluster_client import ClusterClient
from pushserver.bus.connection import connect
from pushserver.bus.health import HealthStore
from pushserver.bus.key_checks import KeyCheck, KeyChecks
from pushserver.bus.key_counts import KeyCounts
from pushserver.bus.login_limits import LoginLimits, address_subjects
from pushserver.bus.memos import Memos
from pushserver.bus.pauses import Pauses
from pushserver.bus.schedule import Schedule
from pushserver.bus.signals import Signal, SignalKind, publish
from pushserver.bus.states import Commit, States
from pushserver.bus.topology import Node, Topology, slot_of
from pushserver.clock import SystemClock
from pushserver.errors import StoreUnavailable
from pushserver.events import EncodedUpdate, encode_update
from pushserver.feeds.key_health import health_of
from pushserver.model import Balance, DataType, Secret
from tests.system.harness import wait_until
from tests.system.redis_servers import Cluster, Server, valkey_binary

USERS = range(1, 13)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), valkey_binary()).start()
    yield cluster
    cluster.stop()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[ClusterClient]:
    client = connect(Secret(cluster.url))
    yield client
    client.close()


def balance(user_id: int, amount: int, as_of_ms: int) -> EncodedUpdate:
    figures = Balance(Decimal(amount), Decimal(amount), Decimal(0))
    return encode_update(DataType.BALANCE, user_id, figures, as_of_ms, as_of_ms)


def move_slot(cluster: Cluster, key: str, *, half_way: bool = False) -> Server:
    """Give the (empty) slot of a key to another master; the new owner. Half way: both only know that it will move."""
    old = cluster.owner(key)
    new = next(node for node in cluster.masters if node is not old)
    old_id, new_id = (node.client.execute_command("CLUSTER", "MYID") for node in (old, new))
    new.client.execute_command("CLUSTER", "SETSLOT", slot_of(key), "IMPORTING", old_id)
    old.client.execute_command("CLUSTER", "SETSLOT", slot_of(key), "MIGRATING", new_id)
    if not half_way:
        for node in (new, old):
            node.client.execute_command("CLUSTER", "SETSLOT", slot_of(key), "NODE", new_id)
    return new


def test_everything_the_workers_do_works_across_slots(client: ClusterClient) -> None:
    clock, rng = SystemClock(), random.Random(1)
    states, now_ms = States(client, clock), clock.wall_ms()
    commits = [Commit(user, DataType.BALANCE, balance(user, user, now_ms), now_ms) for user in USERS]
    assert [result.result for result in states.commit_many(commits)] == ["published"] * len(commits)
    assert [result.result for result in states.commit_many(commits)] == ["unchanged"] * len(commits)
    stored = states.read([(user, DataType.BALANCE) for user in USERS])
    assert all(f'"user_id":{user}'.encode() in (state.frame or b"") for user, state in zip(USERS, stored, strict=True))
    assert states.watched(USERS) == dict.fromkeys(USERS, frozenset())
    states.forget(1)

    schedule, memos = Schedule(client, rng=rng), Memos(client)
    schedule.wake(USERS)
    claims = schedule.claim(50, 5.0, "worker")
    assert {claim.user_id for claim in claims} == set(USERS)
    assert all(schedule.complete(claim, 5.0) for claim in claims)
    assert schedule.ensure(range(1, 20)) == 7
    assert schedule.depth() == 19
    memos.write(3, b"memo")
    assert memos.read([1, 2, 3]) == {1: None, 2: None, 3: b"memo"}

    budget, limits, access = (
        Budget(client, "here", 480, ADDRESS_WINDOW_S),
        LoginLimits(client),
        AccessList(client, clock),
    )
    assert Pauses(client, "here").pause(5.0, "exchange_address_banned")
    assert budget.spend(1).gate.verdict == "paused"
    budget.reopen(slowly=False)
    assert budget.spend(1).gate.verdict == "open"
    limits.failed(address_subjects("192.0.2.7"))
    access.disable(4)
    access.revoke_token("ab" * 16, now_ms // 1000 + 60)
    publish(client, Signal(SignalKind.KEY_CHANGED, 4))
    assert client.ping()
    assert client.info("server")["redis_version"]


def test_the_health_of_keys_is_kept_checked_and_counted_across_slots(client: ClusterClient) -> None:
    store, checks = HealthStore(client), KeyChecks(client)
    mighty = health_of({"readOnly": 0, "permissions": {"Wallet": ["Withdraw"]}}, 0)
    assert [store.record(user, 7, mighty, 0) for user in USERS] == [True] * len(USERS)
    assert [stored and stored.key_version for stored in store.read([*USERS, 999])] == [7] * len(USERS) + [None]
    assert KeyCounts(client).totals().can_withdraw == len(USERS)
    all_checks = {KeyCheck(user, 7) for user in USERS}
    checks.add(dict.fromkeys(all_checks, 0.0))
    assert set(checks.claim(100, 60.0)) == all_checks
    for check in all_checks:
        checks.again(check, 60.0)
        checks.remove(check)
        store.forget(check.user_id)
    assert KeyCounts(client).totals().can_withdraw == 0


def test_listeners_are_counted_at_the_owner_of_the_slot(cluster: Cluster, client: ClusterClient) -> None:
    with redis.Redis(port=cluster.owner("push:{4}:pnl").port) as owner, owner.pubsub() as heard:
        heard.ssubscribe("push:{4}:pnl")
        heard.get_message(timeout=5)
        assert States(client, SystemClock()).watched([4, 5]) == {4: frozenset({DataType.PNL}), 5: frozenset()}


def test_a_moved_slot_is_followed_alone_and_in_a_pipeline(cluster: Cluster, client: ClusterClient) -> None:
    client.set("push:{77}:x", b"before")
    client.delete("push:{77}:x")
    new = move_slot(cluster, "push:{77}:x")
    client.set("push:{77}:x", b"after")
    assert new.client.get("push:{77}:x") == "after"
    assert client.topology.owner(slot_of("push:{77}:x")) == Node("127.0.0.1", new.port)

    fresh = connect(Secret(cluster.url))
    fresh.get("push:{78}:x")
    new = move_slot(cluster, "push:{78}:x")
    pipeline = fresh.pipeline()
    for user in (1, 78, 2):
        pipeline.set(f"push:{{{user}}}:y", str(user))
    assert pipeline.execute() == [True, True, True]
    assert new.client.get("push:{78}:y") == "78"
    fresh.close()


def test_a_slot_under_way_is_asked_for_at_its_new_node(cluster: Cluster, client: ClusterClient) -> None:
    client.get("push:{91}:x")
    new = move_slot(cluster, "push:{91}:x", half_way=True)
    client.set("push:{91}:x", b"1")
    pipeline = client.pipeline()
    pipeline.get("push:{91}:x")
    assert pipeline.execute() == [b"1"]
    assert new.client.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot_of("push:{91}:x")) == 1


def test_a_failed_command_of_a_pipeline_stands_in_its_place_or_is_raised(client: ClusterClient) -> None:
    client.set("push:{5}:text", b"x")

    def asked() -> Any:
        pipeline = client.pipeline()
        pipeline.get("push:{4}:none")
        pipeline.hget("push:{5}:text", "field")
        return pipeline

    nothing, error = asked().execute(raise_on_error=False)
    assert nothing is None
    assert isinstance(error, redis.ResponseError)
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        asked().execute()


def test_a_cluster_of_which_nothing_answers_is_unavailable_at_once() -> None:
    client = connect(Secret("redis+cluster://127.0.0.1:1,127.0.0.1:2"))
    with pytest.raises(StoreUnavailable):
        States(client, SystemClock()).read([(4, DataType.PNL)])
    with pytest.raises(redis.ConnectionError):
        client.ping()


def test_a_server_that_is_no_cluster_is_unavailable(redis_url: str) -> None:
    client = connect(Secret(redis_url.replace("redis://", "redis+cluster://")))
    with pytest.raises(redis.ConnectionError):
        client.ping()


class Scripted:
    """A node that answers CLUSTER SLOTS as told."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0

    def execute_command(self, *_: str) -> object:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        return


@pytest.mark.parametrize("answer", [redis.ConnectionError(), [], [[0]], [[0, 5, [None, "x"]]], b"nonsense", None])
def test_a_node_that_does_not_know_is_passed_over(answer: object) -> None:
    good = Scripted([[0, 99, [b"", 7, b"id"]], [100, 16383, [b"other", 8, b"id"]]])
    nodes = {Node("bad", 1): Scripted(answer), Node("good", 2): good}
    for seed in range(4):
        topology = Topology(list(nodes), nodes.__getitem__, SystemClock(), random.Random(seed))
        topology.refresh()
        assert topology.owner(99) == Node("good", 7)
        assert topology.owner(100) == Node("other", 8)


def test_a_loss_noticed_by_many_is_asked_about_once() -> None:
    node = Scripted([[0, 16383, [b"h", 1, b"id"]]])
    topology = Topology([Node("h", 1)], lambda _: node, SystemClock(), random.Random(1))
    for _ in range(20):
        topology.refresh()
    assert node.asked == 1


def test_scripts_and_commits_survive_the_death_of_the_owner(cluster: Cluster, client: ClusterClient) -> None:
    """The last test here: it costs the cluster a node. A promoted replica knows no script."""
    clock = SystemClock()
    states, now_ms = States(client, clock), clock.wall_ms()
    seq = states.commit(4, DataType.BALANCE, balance(4, 1, now_ms), now_ms).seq
    owner = cluster.owner("push:{4}:balance")
    owner.client.execute_command("WAIT", 1, 1000)
    owner.kill()

    def committed() -> bool:
        try:
            results = states.commit_many([Commit(4, DataType.BALANCE, balance(4, 2, now_ms + 1), now_ms + 1)])
            states.watched([4])
        except StoreUnavailable:
            return False
        return results[0].seq > seq

    wait_until(committed, 15, "a commit at the new owner")
    assert states.read([(4, DataType.BALANCE)])[0].seq > seq
