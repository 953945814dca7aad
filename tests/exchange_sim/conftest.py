"""The simulated exchange twice: in this process with a clock of ours, and as the real program behind real HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from pybit.unified_trading import HTTP

from pushserver.clock import ManualClock
from pushserver.exchange_sim.client import SimControl
from pushserver.exchange_sim.credentials import demo_credentials
from pushserver.exchange_sim.http_messages import Answer, Request
from pushserver.exchange_sim.run import Exchange
from pushserver.exchange_sim.signing import signature


class Desk:
    """An exchange in this process: requests without sockets, time by hand."""

    def __init__(self, users: int = 3, seed: int = 1, **options: Any) -> None:
        self.clock = ManualClock()
        self.exchange = Exchange(self.clock, seed, users, **options)
        self.world = self.exchange.world
        self.rest = self.exchange.rest

    def get(
        self, path: str, query: str = "", user: int | None = 1, address: str = "127.0.0.1", **headers: str
    ) -> Answer:
        """A request signed by a seeded user (None: unsigned); ``headers`` replace the right ones (_ for -)."""
        signed: dict[str, str] = {}
        if user is not None:
            api_key, secret = demo_credentials(user)
            timestamp = str(self.world.now_ms())
            signed = {
                "x-bapi-api-key": api_key,
                "x-bapi-timestamp": timestamp,
                "x-bapi-recv-window": "5000",
                "x-bapi-sign": signature(secret, timestamp, api_key, "5000", query),
            }
        signed.update({name.replace("_", "-"): value for name, value in headers.items()})
        return self.exchange.handle(Request("GET", path, query, signed, b"", address))

    def result(self, path: str, query: str = "", user: int = 1) -> dict[str, Any]:
        """The ``result`` of a request that must succeed."""
        answer = self.get(path, query, user)
        assert answer.status == 200 and answer.payload["retCode"] == 0, answer
        found: dict[str, Any] = orjson.loads(answer.body())["result"]
        return found

    def control(self, method: str, path: str, body: Any = None, address: str = "127.0.0.1") -> Answer:
        content = b"" if body is None else orjson.dumps(body)
        return self.exchange.handle(Request(method, f"/control/{path}", "", {}, content, address))

    def done(self, method: str, path: str, body: Any = None) -> Any:
        """A control call that must succeed."""
        answer = self.control(method, path, body)
        assert answer.status == 200, answer.payload
        return orjson.loads(answer.body())


@pytest.fixture
def desk() -> Desk:
    return Desk(frozen=True)


def start_process(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A running simulator and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pushserver.exchange_sim", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("exchange_sim listening on http://127.0.0.1:"), (line, process.poll())
    return process, line.split()[-1]


@pytest.fixture(scope="session")
def sim_url() -> Iterator[str]:
    process, url = start_process("--frozen", "--users", "3")
    try:
        yield url
    finally:
        process.terminate()
        _, complaints = process.communicate(timeout=10)
        assert process.returncode == 0 and complaints == "", complaints


@pytest.fixture
def sim(sim_url: str) -> SimControl:
    """A frozen exchange as the real program, with three seeded users, otherwise as new."""
    control = SimControl(sim_url)
    control.reset(users=3, seed=1)
    return control


def client_of(url: str, user: int = 1, **options: Any) -> HTTP:
    """pybit for a seeded user, with its sleeping retries off."""
    api_key, secret = demo_credentials(user)
    client = HTTP(api_key=api_key, api_secret=secret, retry_codes={999_999_999}, **options)
    client.endpoint = url
    return client
