"""All clients at once: they arrive, they drop, they come back; nobody waits long, Redis and the database are spared."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.harness import free_port, wait_until
from tests.system.herd import Herd, Publishing
from tests.system.probes import Footprint, ProbedStack, commands_processed, footprint, stalls, wait_until_back
from tests.system.proxy import Proxy

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"

pytestmark = [pytest.mark.system, pytest.mark.timeout(900 if NIGHTLY else 120)]

CLIENTS = 5000 if NIGHTLY else 2000
BACK_WITHIN_S = 10.0


@pytest.fixture(scope="module")
def database() -> Iterator[Proxy]:
    """Counts who asks for the database; there is none behind it."""
    with Proxy(free_port()) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, database: Proxy) -> Iterator[ProbedStack]:
    environ = {"DATABASE_URL": f"postgresql://nobody:nothing@127.0.0.1:{database.port}/nowhere", "LOG_LEVEL": "warning"}
    folder = tmp_path_factory.mktemp("herd")
    stack = ProbedStack(folder, users=0, push_workers=0, environ=environ).start()
    yield stack
    stack.stop()


def refused(report: dict[str, Any]) -> dict[str, int]:
    return {how: number for how, number in report["ends"].items() if how != "dropped"}


def assert_loop_kept_turning(stack: ProbedStack, before: tuple[int, int]) -> None:
    """200 ms is the promise; a machine that is busy with other things may break it now and then, and never for long."""
    now = (stalls(stack, 0.2), stalls(stack, 1.0))
    assert now[0] - before[0] <= 10 and now[1] == before[1], (before, now)


def everybody_has_a_state_since(herd: Herd, since_ms: float) -> bool:
    """Of after ``since_ms``: each user's state changed once, then."""
    latest = [state.get("positions", [0, 0, 0]) for _, state in herd.report("crowd")["latest"]]
    return all(as_of >= since_ms for _, as_of, _ in latest)


def publish_one_each(stack: ProbedStack) -> Publishing:
    return Publishing(stack, f"1-{CLIENTS}", CLIENTS, 1)


def test_E02_N7_E03_a_herd_that_comes_drops_and_returns_in_one_moment_waits_for_nothing(stack, database):
    with Herd(stack) as herd:
        herd.open("warm", range(CLIENTS + 1, CLIENTS + 21))
        herd.leave("warm", "fin")
        before = wait_until(lambda: calm(stack), 20)
        published_ms = time.time() * 1000
        with publish_one_each(stack) as publishing:
            assert publishing.finish()["published"] == CLIENTS
        lag = (stalls(stack, 0.2), stalls(stack, 1.0))
        asked, commands = database.accepted, commands_processed(stack)

        report = herd.open("crowd", range(1, CLIENTS + 1), reconnect_jitter_s=1.0, within_s=20)
        assert (report["ready"], refused(report), report["told"]) == (CLIENTS, {}, {})
        wait_until(lambda: everybody_has_a_state_since(herd, published_ms), 5, "the states to reach all")
        assert (commands_processed(stack) - commands) / CLIENTS <= 10
        assert_loop_kept_turning(stack, lag)

        commands = commands_processed(stack)
        herd.leave("crowd", "dropped")
        report = herd.wait("crowd", CLIENTS, 30)
        gaps_s = report["gaps_s"]
        assert (report["ready"], refused(report), report["told"]) == (CLIENTS, {}, {})
        assert gaps_s[int(CLIENTS * 0.99)] <= BACK_WITHIN_S
        assert (commands_processed(stack) - commands) / CLIENTS <= 10
        assert report["regressed"] == 0

        # What changes while they are away they have when they are back.
        changed_ms = time.time() * 1000
        herd.leave("crowd", "dropped")
        with publish_one_each(stack) as publishing:
            assert publishing.finish()["published"] == CLIENTS
        wait_until(lambda: everybody_has_a_state_since(herd, changed_ms), 20, "the newest states to reach all")
        assert herd.report("crowd")["regressed"] == 0

        herd.leave("crowd", "rst")
        wait_until_back(stack, before, 25)
        assert_loop_kept_turning(stack, lag)
        # Not one of them cost a look into the database; the workers themselves look now and then.
        assert database.accepted - asked < CLIENTS / 50


def calm(stack: ProbedStack) -> Footprint | None:
    now = footprint(stack)
    return now if now.connections == now.objects == 0 else None
