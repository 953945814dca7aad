"""A crowd of phones in a process of its own (``crowd.py``), and how it is spread over the web workers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psutil

from tests.system.harness import ROOT, Stack


class Crowd:
    """Each method waits for the crowd's answer."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._tokens: dict[int, str] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.crowd", "--address", f"127.0.0.1:{stack.web_port}"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def connect(self, phones: int, users: int, per_s: float = 0, within_s: float = 30) -> dict[str, Any]:
        """``phones`` more, of users 1 to ``users`` in turn."""
        wanted = []
        for number in range(phones):
            user_id = number % users + 1
            token = self._tokens.get(user_id) or self._tokens.setdefault(user_id, self._stack.token(user_id))
            wanted.append([user_id, token])
        return self._ask(connect=wanted, per_s=per_s, within_s=within_s)

    def leave(self, phones: int) -> None:
        self._ask(close=phones)

    def forget(self) -> None:
        self._ask(forget=True)

    def report(self) -> dict[str, Any]:
        return self._ask(report=True)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def connections_per_worker(stack: Stack) -> dict[int, int]:
    """Process id of each web worker to the connections of clients it has open."""

    def count(pid: int) -> int:
        return sum(
            end.status == psutil.CONN_ESTABLISHED and end.laddr.port == stack.web_port
            for end in psutil.Process(pid).net_connections("tcp")
        )

    return {pid: count(pid) for pid in stack.web.children()}
