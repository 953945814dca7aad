"""Clients that read slowly, by the byte or not at all: they get the newest state, and nobody else notices them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import wait_until
from tests.system.herd import Herd, Publishing
from tests.system.phones import NodePhone
from tests.system.probes import ProbedStack, footprint, metric, pss_bytes, wait_until_back
from tests.system.proxy import Direction, Proxy

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"

pytestmark = [pytest.mark.system, pytest.mark.timeout(900 if NIGHTLY else 120)]

STUCK_S = 6
DEAF = 100
#: For how long the accounts of those who do not read change.
DEAF_S = 600 if NIGHTLY else 8
SLOW_S = 600 if NIGHTLY else 7
#: What a machine that is busy with other things may add to anybody's latency.
SLACK_MS = 25
KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProbedStack]:
    folder = tmp_path_factory.mktemp("slow")
    stack = ProbedStack(folder, users=0, push_workers=0, web_workers=1, environ={"STUCK_S": str(STUCK_S)}).start()
    yield stack
    stack.stop()


@pytest.fixture
def herd(stack: ProbedStack) -> Iterator[Herd]:
    with Herd(stack) as herd:
        yield herd


def kernel_bytes(stack: ProbedStack) -> int:
    """What the kernel keeps for all clients because they have not taken it yet."""
    waiting = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == stack.web_port:
            waiting += int(fields[4].partition(":")[0], 16)
    return waiting


def highest_bytes_while(stack: ProbedStack, publishing: Publishing) -> int:
    """What the web worker and the kernel took at most for clients, beyond what the worker has now."""
    [worker] = stack.workers()
    before = pss_bytes(worker)
    highest = 0
    while publishing.running:
        highest = max(highest, pss_bytes(worker) - before + kernel_bytes(stack))
        time.sleep(0.1)
    return highest


def conflated(stack: ProbedStack) -> float:
    return metric(stack, "push_updates_conflated_total")


def newest(report: dict[str, Any]) -> dict[int, int]:
    """User to the ``seq`` of the positions it holds."""
    return {user_id: latest.get("positions", [0])[0] for user_id, latest in report["latest"]}


def wait_for_newest(herd: Herd, group: str, told: dict[int, int], within_s: float) -> dict[str, Any]:
    wait_until(lambda: newest(herd.report(group)) == told, within_s, f"the newest states to reach {group}")
    return herd.report(group)


def test_E05_who_never_reads_while_its_account_changes_ten_thousand_times_gets_the_newest_state(stack, herd):
    herd.open("twin", [100])
    herd.open("deaf", [100], receive_buffer=4 * KIB)
    before = conflated(stack)
    herd.change("deaf", reads=False)
    with Publishing(stack, "100", 4000, 2.5) as publishing:
        took = highest_bytes_while(stack, publishing)
        assert publishing.finish()["published"] == 10_000
    assert took < 5 * MIB
    assert kernel_bytes(stack) < 256 * KIB
    herd.change("deaf", reads=True)
    told = newest(herd.report("twin"))
    report = wait_for_newest(herd, "deaf", told, 3)
    assert report["updates"] < 500, "it was sent states that were long outdated"
    assert report["regressed"] == report["torn"] == 0
    wait_until(lambda: conflated(stack) - before > 9_000, 5, "the metric to count what was left out")


def test_N4_a_hundred_never_readers_cost_little_disturb_nobody_and_are_closed(stack, herd):
    before = footprint(stack)
    closed = metric(stack, "push_connections_closed_total", reason="slow_client")
    herd.open("well", range(101, 121))
    herd.open("deaf", range(1, DEAF + 1), receive_buffer=4 * KIB)
    with Publishing(stack, "1-120", 2000, 3) as publishing:
        publishing.finish()
    calm = herd.report("well", forget=True)
    herd.change("deaf", reads=False)
    with Publishing(stack, "1-120", 2000, DEAF_S) as publishing:
        took = highest_bytes_while(stack, publishing)
        publishing.finish(DEAF_S + 30)
    assert took / DEAF < 256 * KIB
    disturbed = herd.report("well")
    assert disturbed["p99_ms"] <= 1.1 * calm["p99_ms"] + SLACK_MS, (calm["p99_ms"], disturbed["p99_ms"])
    assert disturbed["ready"] == 20 and not disturbed["ends"]

    def all_closed() -> bool:
        return metric(stack, "push_connections_closed_total", reason="slow_client") - closed == DEAF

    wait_until(all_closed, STUCK_S + 8, "those who never read to be closed")
    assert 'reason="slow client"' in stack.web.log()
    herd.leave("well", "fin")
    wait_until_back(stack, before, 25)


def test_E05_one_byte_a_second_is_no_progress(stack, herd):
    herd.open("crawling", [130], receive_buffer=4 * KIB)
    herd.change("crawling", bytes_per_s=1)
    before = metric(stack, "push_connections_open")
    with Publishing(stack, "130", 500, STUCK_S + 1) as publishing:
        publishing.finish()
    wait_until(lambda: metric(stack, "push_connections_open") == before - 1, STUCK_S + 5, "the crawling client's end")


def test_N5_D13_slow_readers_that_ping_get_the_newest_state_and_no_torn_frame(stack, herd):
    with Proxy(stack.web_port, receive_buffer=4 * KIB) as proxy, Herd(stack, proxy.port) as slow:
        proxy.bandwidth(2 * KIB, Direction.TO_CLIENT)
        herd.open("twin", [200, 201])
        report = slow.open("slow", [200, 201], receive_buffer=4 * KIB, ping_every_s=0.3)
        assert report["ready"] == 2
        before = conflated(stack)
        # About 5 KB each, which takes 2.5 s.
        with Publishing(stack, "200-201", 10, SLOW_S, rows=35) as publishing:
            publishing.finish(SLOW_S + 30)
        told = newest(herd.report("twin"))
        report = wait_for_newest(slow, "slow", told, 15)
        wait_until(lambda: conflated(stack) > before, 5, "older states to be left out")
        assert report["torn"] == report["regressed"] == 0
        assert not report["ends"]
        assert report["updates"] >= 4 and report["pongs"] >= 4
        # Behind a state that is being sent wait at most what the proxy and two kernels hold of another one.
        assert report["max_ms"] < 12_000


def test_N6_all_works_by_the_byte(stack, herd):
    with Proxy(stack.web_port) as proxy, Herd(stack, proxy.port) as sliced:
        proxy.slicer(1)
        herd.open("twin", [300, 301])
        report = sliced.open("sliced", [300, 301], ping_every_s=0.2)
        assert report["ready"] == 2
        phone = NodePhone(f"http://127.0.0.1:{proxy.port}", stack.token(300))
        phone.wait_for("connected")
        assert phone.call("whoami")["user_id"] == 300
        with Publishing(stack, "300-301", 4, 3) as publishing:
            publishing.finish()
        report = wait_for_newest(sliced, "sliced", newest(herd.report("twin")), 10)
        assert report["torn"] == report["regressed"] == 0
        assert report["updates"] == 12 and report["pongs"] > 4
        assert phone.call("subscribe_trading", {"types": ["positions"]})["subscribed"] == ["positions"]
        assert phone.wait_for("positions_update")["seq"] == newest(report)[300]
        phone.close()
