"""Fetching: rounds per second and CPU per round of one push worker, beside plain pybit in the same run."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import redis
from cryptography.fernet import Fernet

from bench.processes import BenchmarkFailed, Process, answers, cpu_s, free_port, running
from bench.valkey import valkey
from pushserver.accounts.database import Database
from pushserver.accounts.passwords import Passwords
from pushserver.accounts.store import AccountStore
from pushserver.accounts.vault import Vault
from pushserver.bus import keys
from pushserver.bus.connection import connect
from pushserver.bus.schedule import Schedule
from pushserver.clock import SystemClock
from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.model import DataType, Secret

START_TIMEOUT_S = 60.0
#: No limit of the simulated exchange is to slow down what is measured.
UNLIMITED = 1_000_000
#: Every type as often as the settings allow, so that each round asks everything.
INTERVALS = "balance=1,positions=1,pnl=1,orders=1"
PROJECT = "pushserver push worker"
PLAIN = "plain pybit, 3 calls, a session per user"


@dataclass(slots=True)
class Run:
    """``requests`` is per round. ``problems`` make the run invalid."""

    target: str
    rounds: int = 0
    rounds_per_s: float = 0.0
    cpu_us_per_round: float = 0.0
    requests: float = 0.0
    cpu_us_per_request: float = 0.0
    worker_cores: float = 0.0
    exchange_cores: float = 0.0
    problems: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        figures = f"{self.rounds_per_s:.0f} rounds/s, {self.cpu_us_per_round:.0f} µs a round"
        remarks = "".join(f", INVALID: {each}" for each in self.problems)
        return f"{self.target}: {figures} ({self.requests:.2f} requests){remarks}"


@contextmanager
def exchange(users: int, folder: Path) -> Iterator[tuple[str, int]]:
    """URL and process id of a simulated exchange without limits, whose market moves."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = ["-m", "pushserver.exchange_sim", "--port", str(port), "--users", str(users), "--seed", "7"]
    with running(Process("exchange", arguments, {}, folder)) as process:
        process.wait_for(lambda: answers(f"{url}/v5/market/time"), START_TIMEOUT_S, "the simulated exchange")
        paths = ("wallet-balance", "position/list", "position/closed-pnl", "order/realtime")
        each = {f"/v5/{'account/' if path.startswith('wallet') else ''}{path}": UNLIMITED for path in paths}
        SimControl(url).call("POST", "limits", {"requests": UNLIMITED, "per_endpoint": each})
        yield url, process.pid


@contextmanager
def listeners(redis_url: str, users: int) -> Iterator[None]:
    """Somebody listens to everything of everybody, so that everything is fetched; what comes is thrown away."""
    client = redis.Redis.from_url(redis_url)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    for user_id in range(1, users + 1):
        pubsub.ssubscribe(*(keys.update_channel(user_id, data_type) for data_type in DataType))
    stopped = threading.Event()

    def drain() -> None:
        while not stopped.is_set():
            pubsub.get_sharded_message(timeout=0.2)

    thread = threading.Thread(target=drain, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        client.close()


@dataclass(frozen=True, slots=True)
class Accounts:
    """A database with the users 1 to ``users``, and the key that opens their exchange secrets."""

    users: int
    database_url: str
    credentials_key: str


def provisioned(users: int, folder: Path) -> Accounts:
    """Users with the simulated exchange's keys; their passwords are hashed cheaply, for nobody logs in."""
    database_url, credentials_key = f"sqlite:///{folder}/pushserver.db", Fernet.generate_key().decode()
    clock = SystemClock()
    passwords = Passwords(memory_kib=64, passes=1)
    store = AccountStore(Database(Secret(database_url), clock), passwords, Vault((Secret(credentials_key),)), clock)
    store.upgrade()
    for number in range(1, users + 1):
        store.add_user(f"user{number}", Secret(secrets.token_hex(8)), number)
        api_key, api_secret = demo_credentials(number)
        store.set_key(number, api_key, Secret(api_secret))
    store.close()
    return Accounts(users, database_url, credentials_key)


def measure_project(accounts: Accounts, seconds: float) -> Run:
    with TemporaryDirectory(prefix="bench-") as name, valkey() as redis_url:
        folder = Path(name)
        with exchange(accounts.users, folder) as (url, exchange_pid):
            environment = {
                "REDIS_URL": redis_url,
                "DATABASE_URL": accounts.database_url,
                "JWT_SECRETS": secrets.token_hex(32),
                "CREDENTIALS_KEYS": accounts.credentials_key,
                "BYBIT_REST_URL": url,
                "BYBIT_STREAM_URL": "",
                "BYBIT_TICKER_URL": "",
                "PUSH_INTERVALS": INTERVALS,
                "EGRESS_ID": "bench",
                "WORKER_METRICS_BIND": f"127.0.0.1:{free_port()}",
            }
            with (
                listeners(redis_url, accounts.users),
                running(Process("push-worker", ["-m", "pushserver.workers"], environment, folder)) as worker,
            ):
                return _measure_worker(worker, environment, exchange_pid, accounts.users, seconds)


def _measure_worker(worker: Process, environment: dict[str, str], exchange_pid: int, users: int, seconds: float) -> Run:
    metrics_url = f"http://{environment['WORKER_METRICS_BIND']}/metrics"
    worker.wait_for(lambda: answers(metrics_url), START_TIMEOUT_S, "the push worker's metrics")
    Schedule(connect(Secret(environment["REDIS_URL"]))).wake(range(1, users + 1))
    # The first rounds ask more (and load what is loaded once); measured is what follows.
    worker.wait_for(lambda: _counters(metrics_url)["rounds"] >= 2 * users, START_TIMEOUT_S, "two rounds of everybody")
    before, cpu_before_s, start_s = _counters(metrics_url), cpu_s([worker.pid]), time.monotonic()
    exchange_before_s = cpu_s([exchange_pid])
    ends_s = start_s + seconds
    while time.monotonic() < ends_s:
        time.sleep(min(0.1, max(0.0, ends_s - time.monotonic())))
    after, used_s, elapsed_s = _counters(metrics_url), cpu_s([worker.pid]) - cpu_before_s, time.monotonic() - start_s
    rounds = after["rounds"] - before["rounds"]
    run = Run(PROJECT, round(rounds), rounds / elapsed_s, used_s / max(1, rounds) * 1e6)
    run.requests = (after["requests"] - before["requests"]) / max(1, rounds)
    run.cpu_us_per_request = run.cpu_us_per_round / max(1e-9, run.requests)
    run.worker_cores = used_s / elapsed_s
    run.exchange_cores = (cpu_s([exchange_pid]) - exchange_before_s) / elapsed_s
    if after["failed"] > before["failed"]:
        run.problems.append(f"{after['failed'] - before['failed']:.0f} rounds failed")
    if not rounds:
        run.problems.append("there were no rounds")
    return run


def _counters(metrics_url: str) -> dict[str, float]:
    """``rounds`` (all that asked the exchange), ``requests`` and ``failed`` so far."""
    with urllib.request.urlopen(metrics_url, timeout=5) as response:
        text = response.read().decode()

    def total(pattern: str) -> float:
        return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.MULTILINE))

    return {
        "rounds": total(r'push_fetch_rounds_total\{[^}]*result="(?:ok|failed|lost)"[^}]*\}'),
        "failed": total(r'push_fetch_rounds_total\{[^}]*result="(?:failed|lost)"[^}]*\}'),
        "requests": total(r"push_fetch_round_requests_total"),
    }


def measure_plain_pybit(accounts: Accounts, seconds: float) -> Run:
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with exchange(accounts.users, folder) as (url, exchange_pid):
            exchange_before_s = cpu_s([exchange_pid])
            arguments = ["-m", "bench.peers.plain_pybit", "--url", url, "--users", str(accounts.users)]
            peer = Process("plain-pybit", [*arguments, "--seconds", str(seconds)], {}, folder)
            with running(peer):
                peer.popen.wait(seconds * 3 + START_TIMEOUT_S)
            try:
                told = json.loads(peer.log_end().strip().rpartition("\n")[2])
            except ValueError:
                raise BenchmarkFailed(f"plain pybit failed\n{peer.log_end()}") from None
            run = Run(PLAIN, told["rounds"], told["rounds"] / told["seconds"], told["cpu_s"] / told["rounds"] * 1e6, 3)
            run.cpu_us_per_request = run.cpu_us_per_round / 3
            run.worker_cores = told["cpu_s"] / told["seconds"]
            run.exchange_cores = (cpu_s([exchange_pid]) - exchange_before_s) / told["seconds"]
            return run


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    valid = [run for run in runs if not run.problems]
    figures = ("rounds_per_s", "cpu_us_per_round", "requests", "cpu_us_per_request", "worker_cores", "exchange_cores")
    return {
        "target": runs[0].target,
        "valid_runs": len(valid),
        "runs": len(runs),
        **{name: round(median(getattr(run, name) for run in valid), 3) if valid else None for name in figures},
        "problems": [problem for run in runs for problem in run.problems],
    }


def compare(users: int, seconds: float, runs: int, peers: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """All runs, interleaved; ``peers``: plain pybit too."""
    done: list[Run] = []
    with TemporaryDirectory(prefix="bench-") as folder:
        accounts = provisioned(users, Path(folder))
        for number in range(runs):
            for measure in (measure_project, measure_plain_pybit) if peers else (measure_project,):
                done.append(measure(accounts, seconds))
                tell(f"fetch {number + 1}/{runs}: {done[-1].in_words()}")
    targets = dict.fromkeys(run.target for run in done)
    summaries = [summarise([run for run in done if run.target == target]) for target in targets]
    cpu = {summary["target"]: summary["cpu_us_per_request"] for summary in summaries}
    ratios = {}
    if cpu.get(PLAIN) and cpu.get(PROJECT):
        ratios["plain pybit / pushserver CPU per request"] = round(cpu[PLAIN] / cpu[PROJECT], 2)
    return {
        "load": {"users": users, "seconds": seconds, "intervals": INTERVALS},
        "summary": summaries,
        "ratios": ratios,
        "runs": [asdict(run) for run in done],
    }
