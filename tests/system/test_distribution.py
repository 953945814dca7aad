"""Connections spread evenly over the web workers, however they come."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.system.crowds import Crowd, connections_per_worker
from tests.system.harness import Stack, wait_until

pytestmark = pytest.mark.system

WORKERS = 4
USERS = 200


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(
        tmp_path_factory.mktemp("stack"), users=0, web_workers=WORKERS, push_workers=0, environ={"DRAIN_S": "3"}
    )
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture
def crowd(stack: Stack) -> Iterator[Crowd]:
    wait_until(lambda: started(stack) % WORKERS == 0, 20, "all workers")
    crowd = Crowd(stack)
    try:
        yield crowd
    finally:
        crowd.close()
        wait_until(lambda: not any(connections_per_worker(stack).values()), 20, "the crowd to be gone")


def started(stack: Stack) -> int:
    """How many web workers have loaded since the stack was started."""
    return stack.web.log().count("component=web state=started")


def unevenness(stack: Stack) -> float:
    """Connections of the fullest worker by those of the emptiest."""
    counts = connections_per_worker(stack).values()
    assert len(counts) == WORKERS
    return max(counts) / max(1, min(counts))


def test_E02_a_storm_of_2000_connects_is_taken_at_once_and_spread_evenly(stack: Stack, crowd: Crowd) -> None:
    answer = crowd.connect(2000, USERS, within_s=30)
    assert answer["connected"] == 2000
    assert crowd.report()["refused"] == []
    # Two seconds on two cores that are shared with the crowd itself.
    assert answer["seconds"] < 12
    assert unevenness(stack) <= 1.2


def test_connections_that_come_one_by_one_are_spread_evenly_too(stack: Stack, crowd: Crowd) -> None:
    assert crowd.connect(400, USERS, per_s=100)["connected"] == 400
    assert unevenness(stack) <= 1.2


def test_after_a_reload_clients_are_spread_evenly_over_the_new_workers(stack: Stack, crowd: Crowd) -> None:
    crowd.connect(800, USERS)
    before, started_before = set(stack.web.children()), started(stack)
    os.kill(stack.web.pid, signal.SIGHUP)
    wait_until(lambda: started(stack) == started_before + WORKERS, 20, "the new workers")
    wait_until(lambda: not before & set(stack.web.children()), 25, "the old workers to leave")
    wait_until(lambda: crowd.report()["connected"] == 800, 20, "everybody back")
    assert unevenness(stack) <= 1.2


def test_a_frozen_worker_holds_up_nobody_and_the_others_share(stack: Stack, crowd: Crowd) -> None:
    frozen = psutil.Process(stack.web.children()[0])
    crowd.connect(40, USERS)
    frozen.suspend()
    try:
        # 300 connects would take 15 s if each waited for the frozen worker.
        answer = crowd.connect(300, USERS, per_s=100, within_s=20)
        assert answer["connected"] == 300
        assert answer["seconds"] < 8
        counts = sorted(count for pid, count in connections_per_worker(stack).items() if pid != frozen.pid)
        assert counts[-1] / counts[0] <= 1.2
    finally:
        frozen.resume()


def test_a_worker_that_comes_new_is_filled_first(stack: Stack, crowd: Crowd) -> None:
    crowd.connect(200, USERS)
    started_before = started(stack)
    os.kill(stack.web.children()[0], signal.SIGKILL)
    wait_until(lambda: started(stack) == started_before + 1, 20, "its replacement")
    wait_until(lambda: crowd.report()["connected"] == 200, 10, "its clients to come back")
    crowd.connect(200, USERS)
    assert unevenness(stack) <= 1.2
