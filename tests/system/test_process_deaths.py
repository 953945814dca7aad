"""kill -9 of any one worker: every phone is back at the exchange's truth within 20 s, and seq only grows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pushserver.exchange_sim.client import SimControl
from tests.system.harness import Stack, wait_until
from tests.system.phones import TYPES, NodePhone, PythonPhone
from tests.system.test_delivery import shows_truth

pytestmark = pytest.mark.system

KILLS = 3 if os.environ.get("PUSHSERVER_NIGHTLY") == "1" else 1


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("deaths"), users=4, web_workers=2, push_workers=2).start()
    yield stack
    stack.stop()


def watch(stack: Stack) -> dict[int, NodePhone | PythonPhone]:
    phones: dict[int, NodePhone | PythonPhone] = {}
    for user in range(1, stack.users + 1):
        kind = NodePhone if user % 2 else PythonPhone
        phone = phones[user] = kind(stack.url, stack.token(user))
        phone.wait_for("connected")
        if isinstance(phone, NodePhone):
            phone.remember(*TYPES)
        phone.call("subscribe_trading", {})
        for name in TYPES:
            phone.wait_for(f"{name}_update")
    return phones


def change_everything(exchange: SimControl, users: list[int], step: int) -> None:
    for user in users:
        exchange.set_wallet(user, USDT=str(5_000 + 100 * step + user))
        exchange.place_order(user, "ETHUSDT", "Sell", "0.1", str(9_000 + 10 * step + user))


def all_show_truth(phones, exchange) -> bool:
    return all(shows_truth(phone, exchange, user) for user, phone in phones.items())


def test_P1_a_killed_push_worker_leaves_nobody_stale(stack):
    exchange = SimControl(stack.exchange_url)
    phones = watch(stack)
    for step in range(KILLS):
        stack.push_workers[-1].kill()
        change_everything(exchange, list(phones), step)
        wait_until(lambda: all_show_truth(phones, exchange), 20, "the truth after the kill")
        stack.start_push_worker()
    for phone in phones.values():
        assert all(phone.seqs_grow(name) for name in TYPES)
        assert phone.count("disconnect") == 0
        phone.close()


def test_P4_a_killed_web_worker_brings_its_phones_back_to_the_truth(stack):
    exchange = SimControl(stack.exchange_url)
    phones = watch(stack)
    nodes = {user: phone for user, phone in phones.items() if isinstance(phone, NodePhone)}
    for step in range(3, 3 + KILLS):
        before = {user: phone.count("connect") for user, phone in nodes.items()}
        for pid in stack.web.children():
            os.kill(pid, signal.SIGKILL)
            change_everything(exchange, list(nodes), step * 10 + pid % 7)
            wait_until(lambda: all_show_truth(nodes, exchange), 20, f"the truth after the kill {stack.logs()}")
            wait_until(lambda: len(stack.web.children()) == 2, 20, "gunicorn to replace the worker")
        # Both workers of before are dead, so each phone lost its connection at least once, and has one again.
        assert all(phone.count("connect") > before[user] for user, phone in nodes.items())
        assert all(phone.count("connect") == phone.count("disconnect") + 1 for phone in nodes.values())
    for phone in phones.values():
        assert all(phone.seqs_grow(name) for name in TYPES)
        phone.close()


def test_P8_a_stopped_web_side_closes_its_transports_and_leaves_nothing(stack):
    phone = NodePhone(stack.url, stack.token(1))
    phone.wait_for("connected")
    assert stack.web.stop() == 0
    assert phone.wait_kind("disconnect", timeout_s=5).name == "transport close"
    stack.start_web()
    stack.wait_ready()
    phone.wait_kind("connect", 2)
    phone.close()


def test_P8_a_stopped_push_worker_exits_cleanly(stack):
    worker = stack.start_push_worker()
    wait_until(lambda: "started" in worker.log() or "ready" in worker.log(), 15, "the worker")
    assert worker.stop() == 0
