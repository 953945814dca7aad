"""50 users on two devices each: requests per user and minute, with one worker and with three; none when all left.

A night watches a real minute at the default intervals; else the minute and all intervals are a third as long.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pushserver.exchange_sim.client import SimControl
from tests.system.harness import Stack, wait_until
from tests.system.raw_client import RawClient

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
USERS = 50
SCALE = 1 if NIGHTLY else 3
MINUTE_S = 60 / SCALE
DEFAULTS = {"balance": 10, "positions": 5, "pnl": 5, "orders": 15}
#: What was under way when the last one left may still be asked; a night waits for the end of the grace period too.
LEFT_S = 45 if NIGHTLY else 3
QUIET_S = 20 if NIGHTLY else 2 * DEFAULTS["orders"] / SCALE


class Crowd:
    """Two devices per user that read and answer pings until they leave."""

    def __init__(self, stack: Stack) -> None:
        self.clients = [RawClient(stack.url) for _ in range(USERS * 2)]
        for number, client in enumerate(self.clients):
            client.connect({"token": stack.token(number % USERS + 1)})
        for client in self.clients:
            client.send('42["subscribe_trading",{}]')
        for client in self.clients:
            threading.Thread(target=self._read, args=(client,), daemon=True).start()

    def _read(self, client: RawClient) -> None:
        try:
            while True:
                client._take(client.packet(120))
        except (ConnectionError, OSError, ValueError):
            return

    def each_has(self, name: str) -> bool:
        return all(any(kept == name for kept, _ in list(client.events)) for client in self.clients)

    def leave(self) -> None:
        for client in self.clients:
            # Closing alone says nothing to the server while the other thread still reads.
            client.socket.sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Stack]]:
    intervals = ",".join(f"{name}={interval_s / SCALE:.3f}" for name, interval_s in DEFAULTS.items())
    started = {
        workers: Stack(
            tmp_path_factory.mktemp(f"budget-{workers}"), users=USERS, push_workers=workers, intervals=intervals
        )
        for workers in (1, 3)
    }
    try:
        for stack in started.values():
            stack.start()
        yield started
    finally:
        for stack in started.values():
            stack.stop()


def test_at_most_23_5_requests_per_user_and_minute_and_none_when_everybody_left(stacks):
    exchanges = {workers: SimControl(stack.exchange_url) for workers, stack in stacks.items()}
    marks = {workers: exchange.mark_counters() for workers, exchange in exchanges.items()}
    start = time.monotonic()
    crowds = {workers: Crowd(stack) for workers, stack in stacks.items()}
    for workers, crowd in crowds.items():
        for name in ("balance", "positions", "pnl", "orders"):
            wait_until(lambda crowd=crowd, name=name: crowd.each_has(f"{name}_update"), 30, f"{name} with {workers}")
    wait_until(lambda: time.monotonic() - start >= MINUTE_S, MINUTE_S + 5, "a minute")
    per_user = {workers: exchanges[workers].counters(marks[workers])["requests"] / USERS for workers in stacks}
    print(f"requests per user and minute: {per_user}")
    for crowd in crowds.values():
        crowd.leave()
    left = time.monotonic()
    wait_until(lambda: time.monotonic() - left >= LEFT_S, LEFT_S + 5, "what was under way")
    after = {workers: exchange.mark_counters() for workers, exchange in exchanges.items()}
    wait_until(lambda: time.monotonic() - left >= LEFT_S + QUIET_S, QUIET_S + 10, "two more of the longest intervals")
    for workers, exchange in exchanges.items():
        assert 15 <= per_user[workers] <= 23.5, per_user
        assert exchange.counters(after[workers])["requests"] == 0
