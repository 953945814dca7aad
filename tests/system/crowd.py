"""Many phones in one small process, each of which comes back by itself when its transport is closed.

    python -m tests.system.crowd --address 127.0.0.1:5000

It is told what to do on stdin and answers each line with one on stdout, JSON objects both:

    {"connect": [[user id, token], …], "per_s": 100}    opens them, so many a second (0 = all at once), and answers
        when each has subscribed to its positions, or after ``within_s``: {"connected": …, "seconds": …}
    {"forget": true}       begins to count anew
    {"report": true}       {"connected": …, "closed_at_s": […], "gaps_s": […], "refused": […], "told": {code: n},
                            "latest": [[user id, seq], …]}
    {"close": 10}          closes that many for good, the oldest first

Like the Swift client a phone comes back at once when its transport is closed, and only later when it was refused.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import contextlib
import json
import os
import resource
import sys
import time
from typing import Any

RETRY_AFTER_REFUSAL_S = 1.0


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame; an all-zero mask is a mask."""
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


class Phone(asyncio.Protocol):
    """One phone over all its connections."""

    def __init__(self, crowd: Crowd, user_id: int, token: str) -> None:
        self.crowd, self.user_id, self.token = crowd, user_id, token
        self.ready = False
        self.lost_at_s: float | None = None
        self.latest_seq = 0
        self.wanted = True
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._upgraded = False

    async def open(self) -> None:
        self._buffer, self._upgraded = b"", False
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, *self.crowd.address)
        except OSError as error:
            self._refused(type(error).__name__)
            self._lost()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._upgraded:
            if b"\r\n\r\n" not in self._buffer:
                return
            head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self._refused(head.split(b"\r\n", 1)[0].decode())
                self._close()
                return
            self._upgraded = True
        while len(self._buffer) >= 2:
            length, start = self._buffer[1], 2
            if length == 126:
                length, start = int.from_bytes(self._buffer[2:4], "big"), 4
            if len(self._buffer) < start + length or start > len(self._buffer):
                return
            opcode, body = self._buffer[0] & 15, self._buffer[start : start + length]
            self._buffer = self._buffer[start + length :]
            if opcode == 8:
                self.crowd.told[str(int.from_bytes(body[:2], "big"))] += 1
                self._close()
                return
            self._message(body)

    def _message(self, message: bytes) -> None:
        if message == b"2":
            self._send(b"3")
        elif message[:1] == b"0":
            self._send(b"40" + json.dumps({"token": self.token}).encode())
        elif message[:2] == b"40":
            self._send(b'42["subscribe_trading",{"types":["positions"]}]')
        elif message[:2] == b"44":
            self._refused(message[2:].decode())
        elif message[:2] == b"41":
            self.crowd.told["disconnect packet"] += 1
        elif message.startswith(b'42["subscribed"'):
            self.ready = True
            if self.lost_at_s is not None:
                self.crowd.gaps_s.append(time.monotonic() - self.lost_at_s)
                self.lost_at_s = None
        elif message.startswith(b'42["positions_update"'):
            update = json.loads(message[2:])[1]
            assert update["user_id"] == self.user_id and update["seq"] >= self.latest_seq
            self.latest_seq = update["seq"]

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def _lost(self) -> None:
        if not self.wanted:
            return
        refused = not self._upgraded
        if self.ready:
            self.ready = False
            self.crowd.closed_at_s.append(time.monotonic())
        if self.lost_at_s is None:
            self.lost_at_s = time.monotonic()
        loop = asyncio.get_running_loop()
        loop.call_later(RETRY_AFTER_REFUSAL_S if refused else 0, lambda: loop.create_task(self.open()))

    def _refused(self, why: str) -> None:
        self.crowd.refused.append(why)

    def _send(self, payload: bytes) -> None:
        if self.transport is not None:
            self.transport.write(masked(1, payload))

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def leave(self) -> None:
        self.wanted = False
        self._close()


class Crowd:
    """All phones, and what they met since counting began."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.phones: list[Phone] = []
        self.forget()

    def forget(self) -> None:
        self.closed_at_s: list[float] = []
        self.gaps_s: list[float] = []
        self.refused: list[str] = []
        self.told: collections.Counter[str] = collections.Counter()

    async def connect(self, wanted: list[list[Any]], per_s: float, within_s: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        started_at_s = time.monotonic()
        phones = [Phone(self, user_id, token) for user_id, token in wanted]
        self.phones += phones
        tasks = []
        for number, phone in enumerate(phones):
            if per_s:
                await asyncio.sleep(started_at_s + number / per_s - time.monotonic())
            tasks.append(loop.create_task(phone.open()))
        while not all(phone.ready for phone in phones) and time.monotonic() - started_at_s < within_s:
            await asyncio.sleep(0.01)
        return {"connected": sum(phone.ready for phone in phones), "seconds": time.monotonic() - started_at_s}

    def report(self) -> dict[str, Any]:
        return {
            "connected": sum(phone.ready for phone in self.phones),
            "closed_at_s": self.closed_at_s,
            "gaps_s": self.gaps_s,
            "refused": self.refused,
            "told": dict(self.told),
            "latest": [[phone.user_id, phone.latest_seq] for phone in self.phones],
        }

    async def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        if "connect" in command:
            return await self.connect(command["connect"], command.get("per_s", 0), command.get("within_s", 30))
        if "close" in command:
            leaving, self.phones = self.phones[: command["close"]], self.phones[command["close"] :]
            for phone in leaving:
                phone.leave()
            return {"closed": len(leaving)}
        if "forget" in command:
            self.forget()
        return self.report()


async def serve(crowd: Crowd) -> None:
    commands = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        print(json.dumps(await crowd.obey(json.loads(line))), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    host, _, port = parser.parse_args().address.rpartition(":")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Crowd(host, int(port))))


if __name__ == "__main__":
    main()
