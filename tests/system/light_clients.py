"""Thousands of cheap Socket.IO clients in one process, one epoll loop; ``herd.py`` is how tests drive it.

    python -m tests.system.light_clients --address 127.0.0.1:5000

It is told what to do on stdin and answers each line with one on stdout, JSON objects both. Clients are in groups
that behave alike; ``manners.Manner`` says what ``manner`` may contain:

    {"open": GROUP, "manner": {…}, "clients": [[user id, token], …], "per_s": 200, "within_s": 30}
        opens them, so many a second (0: all at once); answers when each has come as far as it goes, or in vain
    {"change": GROUP, "manner": {"reads": false}}                   they behave so from now on
    {"leave": GROUP, "how": "rst", "number": 10}                    so many (default: all) end, see ``Client.leave``
    {"send": GROUP, "text": "42[…]"}                                each sends that
    {"report": GROUP, "forget": true}                               what they met; begins to count anew
    {"wait": GROUP, "ready": 500, "within_s": 20}                   answers when so many are ready, or in vain;
        or {"sockets": 0, …}: are open

Each answer is ``report``'s: what ``Seen`` holds of the group, ``open`` and ``ready`` clients, ``latest``
([user id, {type: [seq, as_of, received ms]}] of each), latencies as ``p50_ms``, ``p99_ms``, ``max_ms``.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import itertools
import json
import os
import resource
import select
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.system.light_client import Client
from tests.system.manners import TEXT, Manner, Seen


class Group:
    """Clients that behave alike."""

    def __init__(self) -> None:
        self.manner = Manner()
        self.seen = Seen()
        self.clients: list[Client] = []

    def ready(self) -> int:
        return sum(client.ready for client in self.clients)

    def open(self) -> int:
        return sum(client.socket is not None for client in self.clients)

    def report(self) -> dict[str, Any]:
        seen = self.seen
        latencies = sorted(seen.latencies_ms) or [0.0]
        return {
            "open": self.open(), "ready": self.ready(),
            "updates": seen.updates, "torn": seen.torn, "regressed": seen.regressed, "pongs": seen.pongs,
            "ends": dict(seen.ends), "told": dict(seen.told), "gaps_s": sorted(seen.gaps_s),
            "ended_at_s": seen.ended_at_s, "p50_ms": latencies[len(latencies) // 2],
            "p99_ms": latencies[int(len(latencies) * 0.99)], "max_ms": latencies[-1],
            "latest": [[client.user_id, client.latest] for client in self.clients],
        }  # fmt: skip


class Herds:
    """The process: clients, timers and stdin in one loop."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self._poll = select.epoll()
        self._poll.register(0, select.EPOLLIN)
        self._watched: dict[int, Client] = {}
        self._timers: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._groups: dict[str, Group] = {}
        self._commands = b""
        self._awaited: tuple[Callable[[], bool], float, Group] | None = None

    # --- for clients -------------------------------------------------------------------------------------------

    def watch(self, client: Client, events: int) -> None:
        assert client.socket is not None
        number = client.socket.fileno()
        if number in self._watched:
            self._poll.modify(number, events)
        else:
            self._watched[number] = client
            self._poll.register(number, events)

    def forget(self, client: Client) -> None:
        assert client.socket is not None
        if self._watched.pop(client.socket.fileno(), None) is not None:
            self._poll.unregister(client.socket.fileno())

    def later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call, arguments))

    # --- the loop ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        while True:
            for number, events in self._poll.poll(self._pause_s(), 1024):
                if number == 0:
                    if not self._read_commands():
                        return
                elif number in self._watched:
                    self._watched[number].happened(events)
            now_s = time.monotonic()
            while self._timers and self._timers[0][0] <= now_s:
                _, _, call, arguments = heapq.heappop(self._timers)
                call(*arguments)
            if self._awaited is not None:
                condition, deadline_s, group = self._awaited
                if condition() or now_s >= deadline_s:
                    self._awaited = None
                    self._answer(group)

    def _pause_s(self) -> float:
        return 0.02 if not self._timers else min(0.02, max(0.0, self._timers[0][0] - time.monotonic()))

    def _read_commands(self) -> bool:
        data = os.read(0, 1 << 20)
        self._commands += data
        while b"\n" in self._commands:
            line, self._commands = self._commands.split(b"\n", 1)
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, command: dict[str, Any]) -> None:
        verb, name = next(iter(command.items()))
        group = self._groups.setdefault(name, Group())
        if verb in ("open", "wait"):
            if verb == "open":
                self._open(group, command)
            count = group.open if "sockets" in command else group.ready
            wanted = command.get("sockets", command.get("ready", len(group.clients)))
            deadline_s = time.monotonic() + command.get("within_s", 30)
            self._awaited = (lambda: count() == wanted), deadline_s, group
            return
        if verb == "change":
            self._change(group, command["manner"])
        elif verb == "leave":
            for client in group.clients[: command.get("number") or len(group.clients)]:
                client.leave(command["how"])
            if command["how"] != "dropped":
                group.clients = [client for client in group.clients if client.wanted]
        elif verb == "send":
            for client in group.clients:
                client.send(TEXT, command["text"].encode())
        self._answer(group)
        if command.get("forget"):
            group.seen = Seen()
            for client in group.clients:
                client.seen = group.seen

    def _open(self, group: Group, command: dict[str, Any]) -> None:
        group.manner = dataclasses.replace(group.manner, **command.get("manner", {}))
        per_s = command.get("per_s", 0)
        for number, (user_id, token) in enumerate(command["clients"]):
            client = Client(self, group.manner, group.seen, user_id, token)
            group.clients.append(client)
            self.later(number / per_s if per_s else 0, client.open)

    def _change(self, group: Group, changes: dict[str, Any]) -> None:
        for name, value in changes.items():
            setattr(group.manner, name, value)
        if changes.keys() & {"reads", "bytes_per_s"}:
            for client in list(group.clients):
                client.watch_reading()

    def _answer(self, group: Group) -> None:
        sys.stdout.write(json.dumps(group.report()) + "\n")
        sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    host, _, port = parser.parse_args().address.rpartition(":")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Herds(host, int(port)).run()


if __name__ == "__main__":
    main()
