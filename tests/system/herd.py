"""Drives a process of light clients (``light_clients.py``), and publishes to them."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any

from tests.system.harness import ROOT, Stack


class Herd:
    """Groups of clients of one stack; every method waits for the answer, the report of its group.

    with Herd(stack) as herd:
        herd.open("deaf", users=range(1, 101), reads=False, receive_buffer=4096)
        herd.change("deaf", reads=True)
        herd.report("deaf")["latest"]
    """

    def __init__(self, stack: Stack, port: int | None = None) -> None:
        self._stack = stack
        self._tokens: dict[int, str] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.light_clients", "--address", f"127.0.0.1:{port or stack.web_port}"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def open(
        self, group: str, users: range | list[int], *, per_s: float = 0, within_s: float = 30, token: str | None = None,
        **manner: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """One client for each of ``users``, with that user's token or the one given."""
        clients = [[user_id, token if token is not None else self._token(user_id)] for user_id in users]
        return self._ask(open=group, manner=manner, clients=clients, per_s=per_s, within_s=within_s)

    def change(self, group: str, **manner: Any) -> dict[str, Any]:
        return self._ask(change=group, manner=manner)

    def leave(self, group: str, how: str, number: int = 0) -> dict[str, Any]:
        """``how``: see ``light_client.Client.leave``; all of the group unless ``number`` says how many."""
        return self._ask(leave=group, how=how, number=number)

    def send(self, group: str, text: str) -> dict[str, Any]:
        return self._ask(send=group, text=text)

    def report(self, group: str, *, forget: bool = False) -> dict[str, Any]:
        return self._ask(report=group, forget=forget)

    def wait(self, group: str, ready: int, within_s: float) -> dict[str, Any]:
        """Until so many of the group are as far as they go, or the time is up."""
        return self._ask(wait=group, ready=ready, within_s=within_s)

    def wait_closed(self, group: str, within_s: float) -> dict[str, Any]:
        """Until none of the group has a socket open, or the time is up."""
        return self._ask(wait=group, sockets=0, within_s=within_s)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def __enter__(self) -> Herd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _token(self, user_id: int) -> str:
        return self._tokens.get(user_id) or self._tokens.setdefault(user_id, self._stack.token(user_id))

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


class Publishing:
    """``python -m bench.publish`` for a while; ``finish`` waits for its end. Ends with the block in any case."""

    def __init__(self, stack: Stack, users: str, rate: float, seconds: float, **options: object) -> None:
        """``users`` as ``1-10``; ``options``: ``type="positions"``, ``rows=3``."""
        command = [sys.executable, "-m", "bench.publish", "--redis-url", stack.redis_url, "--users", users]
        command += ["--rate", str(rate), "--seconds", str(seconds)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def finish(self, timeout_s: float = 60) -> dict[str, int]:
        """What became of the states: ``published``, ``unchanged``, ``stale``, ``failed``."""
        said, _ = self._process.communicate(timeout=timeout_s)
        return {name: int(number) for name, _, number in (word.partition("=") for word in said.split())}

    def __enter__(self) -> Publishing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.running:
            self._process.kill()
        self._process.communicate()
