"""The push worker as a process: its door, its exit codes, and what is left when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from pushserver.accounts.store import AccountStore
from pushserver.bus import keys, signals
from pushserver.bus.connection import connect
from pushserver.bus.schedule import Schedule
from pushserver.clock import SystemClock
from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.model import DataType, Secret

ROOT = Path(__file__).resolve().parents[2]
ENCRYPTION_KEY = Fernet.generate_key().decode()
pytestmark = pytest.mark.system


def wait_until(condition: Callable[[], object], timeout_s: float) -> float:
    """Seconds until the condition held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "the condition was not met in time"
        time.sleep(0.05)
    return time.monotonic() - started


class Site:
    """Valkey, SQLite, the simulated exchange with two users, a listener for both, and any number of push workers."""

    def __init__(self, redis_url: str, directory: Path) -> None:
        command = [sys.executable, "-m", "pushserver.exchange_sim", "--port", "0", "--users", "2", "--frozen"]
        self.sim = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.sim.stdout is not None
        sim_url = self.sim.stdout.readline().split()[-1]
        self.control = SimControl(sim_url)
        self.client = connect(Secret(redis_url))
        self.schedule = Schedule(self.client)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.log = directory / "workers.log"
        database = f"sqlite:///{directory / 'test.db'}"
        self.environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "DATABASE_URL": database,
            "JWT_SECRETS": "0123456789abcdef0123456789abcdef",
            "CREDENTIALS_KEYS": ENCRYPTION_KEY,
            "BYBIT_REST_URL": sim_url,
            "BYBIT_STREAM_URL": "",
            "BYBIT_TICKER_URL": "",
            "PUSH_INTERVALS": "balance=1,positions=1,pnl=1,orders=1",
            "WORKER_METRICS_BIND": "127.0.0.1:0",
            "EGRESS_ID": "test",
            "LOG_LEVEL": "debug",
        }
        self.accounts = AccountStore.open(Secret(database), [Secret(ENCRYPTION_KEY)], SystemClock())
        self.accounts.upgrade()
        for user_id in (1, 2):
            self.accounts.add_user(f"user{user_id}", Secret("a long password"), user_id)
            self.store_key(user_id)
        self.listener: Any = self.client.pubsub()
        self.listener.ssubscribe(*(keys.update_channel(user, kind) for user in (1, 2) for kind in DataType))

    def store_key(self, user_id: int) -> None:
        api_key, secret = demo_credentials(user_id)
        self.accounts.set_key(user_id, api_key, Secret(secret))

    def start_worker(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "pushserver.workers"],
                cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.workers.append(worker)
        return worker

    def requests(self) -> int:
        return int(self.control.counters()["requests"])

    def requests_of(self, api_key: str) -> int:
        counted: dict[str, int] = self.control.counters()["by_key"].get(api_key, {})
        return sum(counted.values())

    def state(self, user_id: int, data_type: DataType, field: str) -> bytes | None:
        value: bytes | None = self.client.hget(keys.state(user_id, data_type), field)
        return value

    def orders_shown(self, user_id: int, order_id: str) -> bool:
        return order_id.encode() in (self.state(user_id, DataType.ORDERS, "frame") or b"")

    def stop(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait(10)
        self.sim.terminate()
        self.sim.wait(10)
        self.listener.close()
        self.accounts.close()


@pytest.fixture
def site(redis_url: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(redis_url, tmp_path)
    yield site
    site.stop()


def serve(site: Site) -> None:
    site.schedule.wake([1, 2])
    wait_until(lambda: all(site.state(user, kind, "frame") for user in (1, 2) for kind in DataType), 20)


def test_wrong_settings_end_the_worker_with_one_line_per_problem() -> None:
    environment = {**os.environ, "REDIS_URL": "ftp://x", "WORKER_CONCURRENCY": "0"}
    environment.pop("JWT_SECRETS", None)
    command = [sys.executable, "-m", "pushserver.workers"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) >= 4
    assert {"REDIS_URL", "WORKER_CONCURRENCY", "JWT_SECRETS"} <= {line.split()[0].rstrip(":") for line in lines}


def test_settings_that_turn_out_wrong_later_end_the_worker_the_same_way() -> None:
    changed = {
        "DATABASE_URL": "oracle+nosuchdriver://u:canary@127.0.0.1/x",
        "JWT_SECRETS": "0123456789abcdef0123456789abcdef",
        "CREDENTIALS_KEYS": ENCRYPTION_KEY,
    }
    command = [sys.executable, "-m", "pushserver.workers"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **changed}, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("DATABASE_URL: ") and "canary" not in line


def test_a_worker_serves_real_states_and_ends_in_order_when_told(site: Site) -> None:
    worker = site.start_worker()
    serve(site)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(12) == 0
    assert all(site.client.hlen(keys.leases(shard)) == 0 for shard in range(4)), "every user was given back"
    text = site.log.read_text()
    assert "state=started" in text and "state=stopped" in text
    assert not any(confidential in text for confidential in demo_credentials(1))


def test_a_worker_that_finds_no_redis_waits_for_it(site: Site) -> None:
    site.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    worker = site.start_worker()
    wait_until(lambda: "redis lost" in site.log.read_text(), 20)
    time.sleep(0.5)
    assert worker.poll() is None
    assert site.log.read_text().count("redis lost") == 1
    worker.send_signal(signal.SIGINT)
    assert worker.wait(12) == 0


def test_users_of_a_killed_worker_are_served_by_another_when_the_lease_ends(site: Site) -> None:
    victim = site.start_worker()
    serve(site)
    site.control.fault("latency", {"seconds": 2})
    wait_until(lambda: sum(site.client.hlen(keys.leases(shard)) for shard in range(4)) > 0, 10)
    victim.kill()
    site.control.clear_faults()
    site.start_worker()
    new_order = site.control.place_order(1, "BTCUSDT", "Buy", "1", "7")
    assert wait_until(lambda: site.orders_shown(1, new_order), 20) <= 12 + 1 + 2 + 3


def test_a_frozen_worker_is_replaced_and_changes_nothing_when_it_wakes(site: Site) -> None:
    zombie = site.start_worker()
    serve(site)
    site.control.fault("latency", {"seconds": 1})
    wait_until(lambda: sum(site.client.hlen(keys.leases(shard)) for shard in range(4)) == 2, 10)
    zombie.send_signal(signal.SIGSTOP)
    site.control.clear_faults()
    site.start_worker()
    new_order = site.control.place_order(1, "BTCUSDT", "Buy", "1", "7")
    wait_until(lambda: site.orders_shown(1, new_order), 20)
    seq = site.state(1, DataType.ORDERS, "seq")
    zombie.send_signal(signal.SIGCONT)
    wait_until(lambda: "result=lost" in site.log.read_text(), 10)
    assert site.orders_shown(1, new_order)
    assert site.state(1, DataType.ORDERS, "seq") == seq

    # Being late may have been told meanwhile; whoever told it last, it is taken back.
    def all_live() -> bool:
        return all(site.state(user, kind, "status") in (None, b"live") for user in (1, 2) for kind in DataType)

    wait_until(all_live, 75)


def test_a_revoked_key_stops_its_user_and_a_replaced_one_resumes_it(site: Site) -> None:
    site.start_worker()
    serve(site)
    old_key = demo_credentials(1)[0]
    site.control.revoke_key(old_key)
    wait_until(lambda: site.state(1, DataType.PNL, "status") == b"stopped", 5)
    asked = site.control.counters()["by_key"].get(old_key, 0)
    site.control.put_key("sim-key-new", "another-secret", user=1)
    site.accounts.set_key(1, "sim-key-new", Secret("another-secret"))
    signals.publish(site.client, signals.Signal(signals.SignalKind.KEY_CHANGED, 1))
    wait_until(lambda: site.state(1, DataType.PNL, "status") == b"live", 5)
    assert site.control.counters()["by_key"].get(old_key, 0) == asked


def test_H08_a_user_whose_every_answer_hangs_takes_no_connection_from_the_other(site: Site) -> None:
    """Two users at a time: one of them waits for several answers at once, each on a connection of its own."""
    site.environment["WORKER_CONCURRENCY"] = "2"
    site.start_worker()
    serve(site)
    site.control.fault("hang", user=1)
    hung, other = demo_credentials(1)[0], demo_credentials(2)[0]
    before = {key: site.requests_of(key) for key in (hung, other)}
    wait_until(lambda: site.requests_of(hung) >= before[hung] + 2, 10)
    new_order = site.control.place_order(2, "BTCUSDT", "Buy", "1", "7")
    assert wait_until(lambda: site.orders_shown(2, new_order), 20) <= 1 + 1
    assert site.requests_of(other) > before[other]
