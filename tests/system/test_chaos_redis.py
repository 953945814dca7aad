"""Rows R1 to R12 of the fault matrix: what Redis and the way to it do to a deployment under load.

One deployment goes through all rows, one after the other; each row is judged by its own part of the logs. Every
process reaches Redis through a proxy and as a user of its own, so that both can be made to misbehave.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.conftest import require
from tests.ports import free_ports
from tests.system.blackbox import TYPES, ChaosRun, count
from tests.system.harness import Stack, metric_sum, status_of, wait_until
from tests.system.proxy import Direction, Link, Proxy
from tests.system.redis_servers import Server, valkey_binary

pytestmark = pytest.mark.system

NIGHTLY = os.environ.get("PUSHSERVER_NIGHTLY") == "1"
INTERVAL_S = 1.0
PROCESSES = 4
#: What listens, claims, tells, and answers health checks.
LINKS_OF_A_PROCESS = 12
USERS = 12
REDIS_USER, REDIS_PASSWORD = "app", "password-of-this-test-alone"
MAY_ALL = ("resetchannels", "resetkeys", "~*", "&*", "+@all", "on")
LIBFAKETIME = "usr/lib/*/faketime/libfaketimeMT.so.1"


class Chaos:
    """The deployment and what can be done to its Redis."""

    def __init__(self, folder: Path) -> None:
        login = ("--user", REDIS_USER, f">{REDIS_PASSWORD}", *MAY_ALL)
        self.server = Server(valkey_binary(), folder, free_ports(1)[0], "--appendonly", "yes", *login)
        self.server.start()
        self.proxy = Proxy(self.server.port)
        url = f"redis://{REDIS_USER}:{REDIS_PASSWORD}@127.0.0.1:{self.proxy.port}/0"
        intervals = ",".join(f"{name}={INTERVAL_S:g}" for name in ("balance", "positions", "pnl", "orders"))
        self.stack = Stack(folder, users=USERS, intervals=intervals, environ={"REDIS_URL": url})
        self.stack.redis_url = f"redis://127.0.0.1:{self.server.port}/0"
        self.run = ChaosRun(folder, users=USERS, changes_per_s=6.0, seed=12, stack=self.stack)

    @property
    def admin(self) -> Any:
        return self.server.client

    def ready(self) -> bool:
        return status_of(f"{self.stack.url}/readyz") == 200

    def delivered(self) -> tuple[float, float]:
        """Updates that reached the sockets within a second of their commit, and all."""
        name = "update_latency_seconds"
        return self.metric(f"{name}_bucket", le="1.0"), self.metric(f"{name}_count")

    def loop_lags(self) -> tuple[float, float]:
        """Measurements of the web workers' event loops that were at most 50 ms late, and all."""
        return self.metric("loop_lag_seconds_bucket", le="0.05"), self.metric("loop_lag_seconds_count")

    def problems(self) -> str:
        """What readyz says when it is not ready."""
        try:
            with urllib.request.urlopen(f"{self.stack.url}/readyz", timeout=10):
                return ""
        except urllib.error.HTTPError as refused:
            return refused.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric of the web workers over all labels not named."""
        return metric_sum(f"http://127.0.0.1:{self.stack.web_metrics_port}/metrics", name, **labels)

    def restart(self, *, empty: bool = False, environ: dict[str, str] | None = None) -> None:
        """After a kill."""
        if empty:
            shutil.rmtree(self.server.folder / "appendonlydir", ignore_errors=True)
        self.server.start(environ=environ)

    def close(self) -> None:
        self.stack.stop()
        self.proxy.close()
        self.server.kill()


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    chaos = Chaos(tmp_path_factory.mktemp("chaos"))
    try:
        chaos.stack.start()
        with chaos.run:
            yield chaos
    finally:
        chaos.close()


@contextmanager
def row(chaos: Chaos, within_s: float) -> Iterator[None]:
    """One row: afterwards every promise was kept, no connection was lost, and each fault was over ``within_s``."""
    run = chaos.run
    started_s, faults_before = time.monotonic(), len(run.faults)
    yield
    run.wait_caught_up(max(within_s, 5.0) + 5.0)
    wait_until(chaos.ready, 10, "readiness")
    run.settle(15)
    findings = [finding for finding in run.findings() if finding.t >= started_s]
    assert not findings, (count(findings), findings[:10], run.report())
    lost = [entry for entry in run.logs().entries if entry.t >= started_s and entry.event in ("disconnect", "refused")]
    assert not lost, lost[:5]
    assert len(run.faults) > faults_before
    for aftermath in run.figures().faults[faults_before:]:
        print(aftermath.fault.kind, aftermath.reconvergence_s)
        assert aftermath.reconvergence_s.max <= within_s, run.report()


@pytest.mark.parametrize("outage_s", [2, 12, *([15, 90] if NIGHTLY else [])])
def test_R1_G04_a_restart_that_keeps_the_data(chaos: Chaos, outage_s: int) -> None:
    run = chaos.run
    told = frozenset(TYPES if outage_s > 10 else ())
    with row(chaos, 5.0), run.during("R1", "redis", blocks=told):
        started_s = time.monotonic()
        chaos.server.kill()
        wait_until(lambda: not chaos.ready(), min(10, outage_s), "readyz to say so")
        run.let_pass(outage_s - (time.monotonic() - started_s))
        chaos.restart()


@contextmanager
def wallet_that_stands_still(run: ChaosRun) -> Iterator[None]:
    """Where Redis forgets what former rounds saw: a user's first round reads the parts of pnl once, one after the
    other, and has nothing to notice a change between them by. It corrects itself with the next round."""
    run.load.stop()
    run.load.start(only=("positions", "orders"))
    try:
        yield
    finally:
        run.load.stop()
        run.load.start()


def test_R2_G04_G07_a_restart_that_loses_the_data(chaos: Chaos) -> None:
    run = chaos.run
    for _ in range(3 if NIGHTLY else 1):
        with row(chaos, INTERVAL_S + 3), wallet_that_stands_still(run):
            run.random_moment()
            run.fault("R2", "redis", chaos.admin.flushall)
            run.let_pass(2 * INTERVAL_S)
    with row(chaos, INTERVAL_S + 3), wallet_that_stands_still(run):
        with run.during("R2", "redis"):
            chaos.server.kill()
            chaos.restart(empty=True)
        run.let_pass(2 * INTERVAL_S)


def test_R3_an_empty_redis_whose_clock_is_a_minute_behind(chaos: Chaos) -> None:
    found = sorted(Path("/").glob(LIBFAKETIME))
    require(found, "libfaketime is not installed (Debian: faketime)")
    run = chaos.run
    late = {"LD_PRELOAD": str(found[0]), "FAKETIME": "-60s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with row(chaos, INTERVAL_S + 3), wallet_that_stands_still(run):
        with run.during("R3", "redis"):
            chaos.server.kill()
            chaos.restart(empty=True, environ=late)
            assert int(chaos.admin.time()[0]) < time.time() - 50
        run.let_pass(2 * INTERVAL_S)
    with row(chaos, INTERVAL_S + 3), run.during("R3", "redis"):
        chaos.server.kill()
        chaos.restart()


def test_R4_G05_a_bus_that_is_cut_again_and_again(chaos: Chaos) -> None:
    run = chaos.run
    reread = chaos.metric("bus_changes_total", state="connected")
    cuts = 30 if NIGHTLY else 4
    with row(chaos, 3.0), run.during("R4", "bus"):
        for _ in range(cuts):
            chaos.admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            run.let_pass(1.0)
    assert chaos.metric("bus_changes_total", state="connected") >= reread + 2 * cuts


def test_R5_a_bus_that_falls_silent(chaos: Chaos) -> None:
    run = chaos.run
    with row(chaos, 12.0):
        silent = {link for link in chaos.proxy.links if b"SUBSCRIBE" in link.first_bytes}
        assert len(silent) == 4

        def is_silent(link: Link) -> bool:
            return link in silent

        chaos.proxy.affects = is_silent
        run.fault("R5", "bus", chaos.proxy.timeout)
        wait_until(lambda: not chaos.ready(), 10, "readyz to say so")
        run.wait_caught_up(12)
        chaos.proxy.passes()
        chaos.proxy.affects = lambda link: True


@pytest.mark.parametrize("how", ["sleep", "stop"])
def test_R6_G04_a_hung_redis(chaos: Chaos, how: str) -> None:
    run = chaos.run
    hung_s = 30 if NIGHTLY else 7
    began_s = time.monotonic()
    quick, all_ = chaos.loop_lags()
    with row(chaos, 5.0), run.during("R6", "redis"):
        if how == "sleep":
            with redis.Redis(port=chaos.server.port, socket_timeout=hung_s + 5) as patient:
                patient.execute_command("DEBUG", "SLEEP", hung_s)
        else:
            stopped_s = time.monotonic()
            chaos.server.send(signal.SIGSTOP)
            wait_until(lambda: not chaos.ready(), 10, "readyz to say so")
            run.let_pass(hung_s - (time.monotonic() - stopped_s))
            chaos.server.send(signal.SIGCONT)
    quick, all_ = (now - then for now, then in zip(chaos.loop_lags(), (quick, all_), strict=True))
    # A machine that stands still makes one measurement of each web worker late.
    stood_still = len(chaos.stack.web.children()) * run.stalls.count(began_s, time.monotonic())
    assert quick >= 0.99 * all_ - stood_still, (quick, all_, stood_still)


def test_R7_a_slow_way_to_redis(chaos: Chaos) -> None:
    run = chaos.run
    run.let_pass(4)
    before = chaos.delivered()
    with row(chaos, 5.0):
        with run.during("R7", "redis"):
            chaos.proxy.latency(0.2, Direction.TO_CLIENT)
            chaos.proxy.bandwidth(100_000)
            run.let_pass(60 if NIGHTLY else 6)
            wait_until(lambda: chaos.delivered()[1] > before[1] + 25, 20, "enough updates to judge by")
            links = len(chaos.proxy.links)
            chaos.proxy.passes()
        in_time, all_ = (now - then for now, then in zip(chaos.delivered(), before, strict=True))
        assert in_time >= 0.99 * all_, (in_time, all_)
    # Nothing piles up: each push worker may once have asked for all users at once, and keeps those connections.
    assert links <= len(chaos.stack.push_workers) * USERS * len(TYPES) + PROCESSES * LINKS_OF_A_PROCESS, links


def test_R8_G04_a_full_redis(chaos: Chaos) -> None:
    run = chaos.run
    lost = sum(worker.log().count("OutOfMemoryError") for worker in chaos.stack.push_workers)
    with row(chaos, INTERVAL_S + 3), run.during("R8", "redis", blocks=frozenset(TYPES)):
        chaos.admin.config_set("maxmemory", "100kb")
        run.let_pass(INTERVAL_S + 6)
        chaos.admin.config_set("maxmemory", "0")
    assert sum(worker.log().count("OutOfMemoryError") for worker in chaos.stack.push_workers) >= lost + 2


def test_R9_G06_a_subscriber_that_is_overrun(chaos: Chaos) -> None:
    run = chaos.run
    worker = chaos.stack.web.children()[0]
    with row(chaos, 3.0), run.during("R9", "web"):
        os.kill(worker, signal.SIGSTOP)
        try:
            for _ in range(50):
                chaos.admin.publish("push:signals", "x" * (1 << 20))
        finally:
            os.kill(worker, signal.SIGCONT)


def test_R11_rights_that_are_taken_away_and_given_back(chaos: Chaos) -> None:
    run, admin = chaos.run, chaos.admin
    logged = len(chaos.stack.web.log())
    with row(chaos, 5.0):
        with run.during("R11", "redis"):
            admin.execute_command("ACL", "SETUSER", REDIS_USER, "resetchannels", "-ssubscribe")
            wait_until(lambda: not chaos.ready(), 10, "readyz to say so")
            run.let_pass(2)
            admin.execute_command("ACL", "SETUSER", REDIS_USER, *MAY_ALL)
        run.wait_caught_up(10)
        with run.during("R11", "redis"):
            admin.execute_command("ACL", "SETUSER", REDIS_USER, "off")
            admin.execute_command("CLIENT", "KILL", "USER", REDIS_USER)
            wait_until(lambda: "AuthenticationError" in chaos.problems(), 10, "readyz to name it")
            run.let_pass(2)
            admin.execute_command("ACL", "SETUSER", REDIS_USER, *MAY_ALL)
    told = chaos.stack.web.log()[logged:]
    assert "the bus cannot be heard: subscribing was refused (NOPERM)" in told
    assert "the bus cannot be heard: AuthenticationError" in told
    assert REDIS_PASSWORD not in told


def test_R12_garbage_on_the_bus(chaos: Chaos) -> None:
    run, admin = chaos.run, chaos.admin
    now_ms = int(time.time() * 1000)
    foreign = b'42["balance_update",{"type":"balance_update","data":{"total_balance":1.0,"available_balance":1.0,'
    foreign += b'"used_margin":0.0},"timestamp":"2025-11-10T09:00:00","user_id":2,"seq":%d,"as_of":%d}]'
    foreign %= (now_ms + 1000, now_ms)
    calls = [
        {"method": "explode", "host_id": "x"},
        {"method": "disconnect", "sid": "x", "namespace": "/", "host_id": "x"},
        {"method": "close_room", "room": "balance_1", "namespace": "/", "host_id": "x"},
    ]
    plain = [b"5", b"[1]", b"\xff\x00", b"null", b"[" * 100_000, *(json.dumps(call).encode() for call in calls)]
    sharded = [b"5", b"[1]", b"\xff\x00", b"u x y\n" + foreign, b"u -1 1\n" + foreign, b"z 1 1\n" + foreign]
    sharded += [b"u 9999999999999 1\n" + foreign, b"u %d %d\n" % (now_ms + 1000, now_ms) + foreign]
    with row(chaos, 3.0):
        before = chaos.metric("bus_messages_dropped_total")
        with run.during("R12", "bus"):
            for payload in plain:
                admin.publish("pushserver", payload)
                admin.publish("push:signals", payload)
            for payload in sharded:
                admin.execute_command("SPUBLISH", "push:{1}:balance", payload)
            run.let_pass(0.5)
        assert chaos.metric("bus_messages_dropped_total") >= before + len(plain) + len(sharded)
        for channel in ("pushserver", "push:signals"):
            # More than Redis keeps for one subscriber: it ends the connection, and nobody but us notices.
            run.fault("R12", "bus", lambda channel=channel: admin.publish(channel, b"x" * 50_000_000))
            run.wait_caught_up(10)
