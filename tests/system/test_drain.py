"""Web workers that are replaced or stopped under a crowd of phones: closed a little apart, and nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pushserver.bus.connection import connect
from pushserver.bus.states import States
from pushserver.clock import SystemClock
from pushserver.model import DataType, Secret
from tests.system.crowds import Crowd, connections_per_worker
from tests.system.harness import ROOT, Stack, wait_until

pytestmark = pytest.mark.system

USERS = 200
DRAIN_S = 10
#: What gunicorn.conf.py makes of it.
GRACEFUL_S = DRAIN_S + 15


@contextmanager
def web_side(folder: Path, workers: int) -> Iterator[tuple[Stack, Crowd]]:
    """The web side alone, and a crowd that is not connected yet."""
    stack = Stack(folder, users=0, web_workers=workers, push_workers=0, environ={"DRAIN_S": str(DRAIN_S)})
    stack.start()
    crowd = Crowd(stack)
    try:
        wait_until(lambda: stack.web.log().count("component=web state=started") == workers, 20, "all workers")
        yield stack, crowd
    finally:
        crowd.close()
        stack.stop()


def publish(stack: Stack, seconds: float) -> subprocess.Popen[bytes]:
    """Commit 300 changed states a second."""
    command = [sys.executable, "-m", "bench.publish", "--redis-url", stack.redis_url, "--users", f"1-{USERS}"]
    command += ["--type", "positions", "--rate", "300", "--seconds", str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def newest_seqs(stack: Stack) -> dict[int, int]:
    client = connect(Secret(stack.redis_url))
    users = range(1, USERS + 1)
    states = States(client, SystemClock()).read([(user_id, DataType.POSITIONS) for user_id in users])
    client.close()
    return {user_id: state.seq for user_id, state in zip(users, states, strict=True)}


def most_in_a_second(moments_s: list[float]) -> int:
    return max(sum(start_s <= at_s < start_s + 1 for at_s in moments_s) for start_s in moments_s[::20])


def connections_counted(stack: Stack) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.web_metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.split()[0] == "push_connections_open")


def test_P7_a_reload_under_2000_phones_refuses_nobody_and_each_is_back_within_3_seconds(tmp_path: Path) -> None:
    with web_side(tmp_path, workers=2) as (stack, crowd):
        assert crowd.connect(2000, USERS, per_s=700)["connected"] == 2000
        crowd.forget()
        before = set(stack.web.children())
        publisher = publish(stack, seconds=DRAIN_S + 6)
        told_at_s = time.monotonic()
        os.kill(stack.web.pid, signal.SIGHUP)
        # Who comes for the first time meanwhile finds the door open too.
        assert crowd.connect(100, USERS, per_s=25)["connected"] == 100
        wait_until(lambda: not before & set(stack.web.children()), GRACEFUL_S, "the old workers to leave")
        assert time.monotonic() - told_at_s <= GRACEFUL_S
        assert publisher.wait(20) == 0
        newest = newest_seqs(stack)
        wait_until(
            lambda: all(seq == newest[user_id] for user_id, seq in crowd.report()["latest"]), 10, "the final states"
        )
        report = crowd.report()
        assert report["connected"] == 2100
        assert report["refused"] == []
        # Closed, never told of a Socket.IO disconnect.
        assert set(report["told"]) == {"1000"}
        assert 2000 <= len(report["closed_at_s"]) <= 2100
        assert max(report["gaps_s"]) <= 3
        # A tenth is 200; what came meanwhile goes too, and a busy machine bunches a little.
        assert most_in_a_second(sorted(report["closed_at_s"])) <= 260
        assert len(stack.web.children()) == 2
        assert sum(connections_per_worker(stack).values()) == 2100
        wait_until(lambda: connections_counted(stack) == 2100, 5, "the metrics to say so")


def test_P8_a_stop_closes_every_transport_and_leaves_nothing(tmp_path: Path) -> None:
    with web_side(tmp_path, workers=2) as (stack, crowd):
        assert crowd.connect(200, USERS)["connected"] == 200
        crowd.forget()
        workers = stack.web.children()
        told_at_s = time.monotonic()
        stack.web.popen.send_signal(signal.SIGTERM)
        assert stack.web.popen.wait(GRACEFUL_S + 2) == 0
        # Nobody takes these clients over, so a small crowd is not kept waiting.
        assert time.monotonic() - told_at_s < 8
        wait_until(lambda: crowd.report()["connected"] == 0, 5, "all transports to be closed")
        assert crowd.report()["told"] == {"1000": 200}
        assert not any(psutil.pid_exists(pid) for pid in workers)
        assert "Traceback" not in stack.web.log()


def test_E08_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with web_side(tmp_path, workers=1) as (stack, crowd):
        assert crowd.connect(900, USERS, per_s=600)["connected"] == 900
        crowd.forget()
        stack.web.popen.send_signal(signal.SIGTERM)
        wait_until(lambda: crowd.report()["closed_at_s"], 10, "the first transport to be closed")
        assert len(crowd.report()["closed_at_s"]) < 450
        told_at_s = time.monotonic()
        stack.web.popen.send_signal(signal.SIGTERM)
        assert stack.web.popen.wait(10) == 0
        # The others would have taken several seconds more.
        assert time.monotonic() - told_at_s < 3.5
