"""Many light clients in one process, which write down everything that happens to them.

    python -m tests.system.blackbox.recorder --address 127.0.0.1:5000 --log clients.jsonl --seed 1

Each line of the log is an Entry (logs.py). Orders come on stdin, one JSON object a line; each is answered by ``{}``:

    {"connect": [[client, user, token, [types]], …]}
    {"subscribe": [client, …], "types": […]}     and "unsubscribe", likewise
    {"resync": [client, …], "since": {type: seq}}
    {"drop": [client, …]}      their transports are cut, and they come back like after any loss
    {"leave": [client, …]}     for good

A client comes back after 0 to 1 s, at random, and subscribes again to what it had, as the app does.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from tests.system.blackbox.logs import digest

FLUSH_S = 0.05
RETURN_WITHIN_S = 1.0
#: Until the whole greeting has come; then the server's own ping timing holds.
GREETING_S = 10.0
UPDATE = '42["'


class Log:
    """Lines wait in memory until the next flush."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", buffering=1 << 20)

    def write(self, fields: dict[str, Any]) -> None:
        self._file.write(json.dumps(fields, separators=(",", ":")) + "\n")

    async def flush_for_ever(self) -> None:
        while True:
            self._file.flush()
            await asyncio.sleep(FLUSH_S)


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame; an all-zero mask is a mask."""
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


class Client(asyncio.Protocol):
    """One client over all its connections."""

    def __init__(self, recorder: Recorder, number: int, user: int, token: str, types: list[str]) -> None:
        self.recorder, self.number, self.user, self.token = recorder, number, user, token
        self.types = list(types)
        self.conn = 0
        self.wanted = True
        self.ready = False
        self.heard_s = time.monotonic()
        self.silence_s = GREETING_S
        self.transport: asyncio.Transport | None = None
        self._reset()

    def _reset(self) -> None:
        self._buffer = bytearray()
        self._upgraded = False
        self._end = "eof"
        self.ready = False

    def note(self, event: str, **fields: Any) -> None:
        entry = {"client": self.number, "user": self.user, "conn": self.conn, "t": time.monotonic(), "event": event}
        self.recorder.log.write(entry | fields)

    async def open(self) -> None:
        if not self.wanted:
            return
        self.conn += 1
        self._reset()
        self.heard_s, self.silence_s = time.monotonic(), GREETING_S
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, *self.recorder.address)
        except OSError as error:
            self.note("refused", code=type(error).__name__)
            self._come_back()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {self.recorder.address[0]}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.heard_s = time.monotonic()
        self._buffer += data
        if not self._upgraded and not self._upgrade():
            return
        while (frame := self._next_frame()) is not None:
            opcode, body, size = frame
            if opcode == 8:
                self._end = str(int.from_bytes(body[:2], "big"))
                self.cut()
                return
            if opcode == 1:
                self._message(body.decode(), size)

    def _upgrade(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        status = bytes(self._buffer).split(b"\r\n", 1)[0].decode()
        del self._buffer[: end + 4]
        if " 101 " not in status:
            self.note("refused", code=status)
            self.cut()
            return False
        self._upgraded = True
        return True

    def _next_frame(self) -> tuple[int, bytes, int] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1] & 0x7F, 2
        extra = {126: 2, 127: 8}.get(length, 0)
        if len(buffer) < start + extra:
            return None
        if extra:
            length, start = int.from_bytes(buffer[2 : 2 + extra], "big"), 2 + extra
        if len(buffer) < start + length:
            return None
        opcode, body = buffer[0] & 15, bytes(buffer[start : start + length])
        del buffer[: start + length]
        return opcode, body, start + length

    def _message(self, text: str, size: int) -> None:
        if text == "2":
            self.send("3")
        elif text.startswith("0"):
            opening = json.loads(text[1:])
            self.silence_s = (opening["pingInterval"] + opening["pingTimeout"]) / 1000
            self.send("40" + json.dumps({"token": self.token}))
        elif text.startswith("40"):
            self.ready = True
            self.note("connect")
            self.subscribe(self.types)
        elif text.startswith("44"):
            self.note("refused", code=json.loads(text[2:]).get("message", ""))
        elif text.startswith("41"):
            self._end = "disconnect packet"
        elif text.startswith(UPDATE):
            name, *payload = json.loads(text[2:])
            self._event(name, payload[0] if payload else {}, size)

    def _event(self, name: str, payload: dict[str, Any], size: int) -> None:
        if name.endswith("_update") and name != "status_update":
            fields = {"seq": payload["seq"], "as_of": payload["as_of"], "told_user": payload["user_id"], "size": size}
            self.note("update", type=name.removesuffix("_update"), digest=digest(payload["data"]), **fields)
        elif name == "status_update":
            self.note("status", type=payload["type"], state=payload["state"], code=payload["reason"])
        elif name in ("subscribed", "unsubscribed"):
            self.note(name, types=payload["types"])
        elif name == "error":
            self.note("error", code=payload["code"])

    def subscribe(self, types: list[str]) -> None:
        if types:
            self.note("subscribe", types=types)
            self.emit("subscribe_trading", {"types": types})

    def unsubscribe(self, types: list[str]) -> None:
        self.note("unsubscribe", types=types)
        self.emit("unsubscribe_trading", {"types": types})

    def resync(self, since: dict[str, int]) -> None:
        self.note("resync", types=self.types)
        self.emit("resync", {"since": since})

    def emit(self, name: str, payload: dict[str, Any]) -> None:
        self.send("42" + json.dumps([name, payload]))

    def send(self, text: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(masked(1, text.encode()))

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        self.note("leave")
        self.wanted = False
        self.cut()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.wanted:
            return
        if self.ready:
            self.note("disconnect", code=self._end)
        elif self._upgraded:
            self.note("refused", code=self._end)
        self.ready = False
        self._come_back()

    def _come_back(self) -> None:
        if self.wanted:
            loop = asyncio.get_running_loop()
            pause_s = self.recorder.chance.uniform(0.0, RETURN_WITHIN_S)
            loop.call_later(pause_s, lambda: self.recorder.start(self.open()))


class Recorder:
    """All clients of this process."""

    def __init__(self, address: tuple[str, int], log: Log, seed: int) -> None:
        self.address, self.log = address, log
        self.chance = random.Random(seed)
        self.clients: dict[int, Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drop_the_silent(self) -> None:
        """As every client of the protocol does: no ping in time means that the connection is dead."""
        while True:
            await asyncio.sleep(0.5)
            now_s = time.monotonic()
            for client in self.clients.values():
                if client.wanted and now_s - client.heard_s > client.silence_s:
                    client.heard_s = now_s
                    client.cut()

    def obey(self, order: dict[str, Any]) -> None:
        for number, user, token, types in order.get("connect", ()):
            client = self.clients[number] = Client(self, number, user, token, types)
            self.start(client.open())
        for client in self._named(order, "subscribe"):
            client.types = sorted({*client.types, *order["types"]})
            client.subscribe(order["types"])
        for client in self._named(order, "unsubscribe"):
            client.types = [name for name in client.types if name not in order["types"]]
            client.unsubscribe(order["types"])
        for client in self._named(order, "resync"):
            client.resync(order.get("since", {}))
        for client in self._named(order, "drop"):
            client.cut()
        for client in self._named(order, "leave"):
            client.leave()

    def _named(self, order: dict[str, Any], what: str) -> list[Client]:
        return [self.clients[number] for number in order.get(what, ())]


async def serve(recorder: Recorder) -> None:
    recorder.start(recorder.log.flush_for_ever())
    recorder.start(recorder.drop_the_silent())
    orders = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        recorder.obey(json.loads(line))
        print("{}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--log", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    host, _, port = given.address.rpartition(":")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Recorder((host, int(port)), Log(given.log), given.seed)))


if __name__ == "__main__":
    main()
