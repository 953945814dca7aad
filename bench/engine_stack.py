"""Push workers, the simulated exchange with its real limits, and Valkey: what the engine's benchmarks run on."""

from __future__ import annotations

import os
import re
import secrets
import signal
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from bench import engine_overrides
from bench.fetching import START_TIMEOUT_S, UNLIMITED, provisioned
from bench.processes import Process, answers, cpu_s, free_port, pss_bytes, running
from bench.valkey import valkey, valkey_cpu_s
from pushserver.bus.budgets import ADDRESS_WINDOW_S, Budget
from pushserver.bus.connection import connect
from pushserver.exchange_sim.client import SimControl
from pushserver.model import Secret

EGRESS = "bench"
REQUESTS_PER_5S = 480
EXCHANGE_PER_5S = 600
STREAM_WINDOW_S = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``stream_connects`` per five minutes, 0 without streams; ``marks``: mark prices are followed.

    ``filling_per_5s``: the budget until ``be_strict`` is called, if another.
    ``activity_s`` is how often a customer acts, on average. ``environment`` is added to the workers' own.
    """

    users: int
    workers: int = 2
    stream_connects: int = 0
    marks: bool = False
    activity_s: float = 300.0
    requests_per_5s: int = REQUESTS_PER_5S
    filling_per_5s: int = 0
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Stack:
    plan: Plan
    redis_url: str
    sim: SimControl
    exchange: Process
    workers: Sequence[Process]
    metrics_urls: Sequence[str]

    def metric(self, name: str, labels: str = "") -> float:
        """The sum over all workers of the series whose labels match the pattern ``labels``."""
        pattern = re.compile(rf"^{name}(?:\{{[^}}]*{labels}[^}}]*\}})? (\S+)$", re.MULTILINE)
        total = 0.0
        for url in self.metrics_urls:
            with urllib.request.urlopen(url, timeout=10) as response:
                total += sum(float(value) for value in pattern.findall(response.read().decode()))
        return total

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of everybody; ``bench`` is the listener and measurer itself."""
        return {
            "workers": cpu_s(worker.pid for worker in self.workers),
            "exchange": cpu_s([self.exchange.pid]),
            "valkey": valkey_cpu_s(self.redis_url),
            "bench": cpu_s([os.getpid()]),
        }

    def worker_pss_bytes(self) -> list[int]:
        return [pss_bytes([worker.pid]) for worker in self.workers]

    def be_strict(self) -> None:
        """From now on the usual budget, and after a window without more the exchange's usual limit."""
        for worker in self.workers:
            os.kill(worker.pid, signal.SIGUSR1)
        time.sleep(ADDRESS_WINDOW_S + 2)
        self.sim.set_limits(requests=EXCHANGE_PER_5S)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)


@contextmanager
def engine(plan: Plan) -> Iterator[Stack]:
    """Everything started and idle: nobody is scheduled yet, and the budgets are full."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="bench-")))
        redis_url = opened.enter_context(valkey())
        accounts = provisioned(plan.users, folder)
        port = free_port()
        arguments = ["--port", str(port), "--users", str(plan.users), "--seed", "7"]
        arguments += ["--activity-s", str(plan.activity_s)]
        exchange = Process("exchange", ["-m", "pushserver.exchange_sim", *arguments], {}, folder)
        opened.enter_context(running(exchange))
        url = f"http://127.0.0.1:{port}"
        exchange.wait_for(lambda: answers(f"{url}/v5/market/time"), START_TIMEOUT_S, "the simulated exchange")
        sim = SimControl(url, timeout_s=30.0)
        if plan.stream_connects:
            sim.limit_streams(plan.stream_connects)
        if plan.filling_per_5s:
            sim.set_limits(requests=UNLIMITED)
        declare_unspent(redis_url, plan)
        environment = {
            "REDIS_URL": redis_url,
            "DATABASE_URL": accounts.database_url,
            "JWT_SECRETS": secrets.token_hex(32),
            "CREDENTIALS_KEYS": accounts.credentials_key,
            "BYBIT_REST_URL": url,
            "BYBIT_STREAM_URL": f"ws://127.0.0.1:{port}/v5/private" if plan.stream_connects else "",
            "BYBIT_TICKER_URL": f"ws://127.0.0.1:{port}/v5/public/linear" if plan.marks else "",
            "EGRESS_ID": EGRESS,
            "MAX_STREAMS_PER_WORKER": str(-(-plan.users // plan.workers) + 50),
            engine_overrides.VARIABLE: engine_overrides.written(overrides(plan)),
            **dict(plan.environment),
        }
        workers, metrics_urls = [], []
        for number in range(plan.workers):
            bind = f"127.0.0.1:{free_port()}"
            own = {**environment, "WORKER_METRICS_BIND": bind}
            worker = Process(f"push-worker-{number + 1}", ["-m", "bench.engine_worker"], own, folder)
            workers.append(opened.enter_context(running(worker)))
            metrics_urls.append(f"http://{bind}/metrics")
            worker.wait_for(lambda at=metrics_urls[-1]: answers(at), START_TIMEOUT_S, "the push worker's metrics")
        yield Stack(plan, redis_url, sim, exchange, workers, metrics_urls)


def overrides(plan: Plan) -> dict[str, int]:
    """What the settings would refuse."""
    wanted = {"bybit_ip_requests_per_5s": plan.filling_per_5s or plan.requests_per_5s}
    if plan.stream_connects:
        wanted["bybit_stream_connects_per_5min"] = plan.stream_connects
    return wanted


def declare_unspent(redis_url: str, plan: Plan) -> None:
    """Nobody asked this exchange before: the workers need not wait for a window to pass."""
    client = connect(Secret(redis_url))
    Budget(client, EGRESS, plan.requests_per_5s, ADDRESS_WINDOW_S).declare_unspent()
    if plan.stream_connects:
        Budget(client, EGRESS, plan.stream_connects, STREAM_WINDOW_S, kind="streams").declare_unspent()
