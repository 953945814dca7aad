"""Many Socket.IO clients in one small process: what the delivery benchmark listens with.

    python -m bench.clients --address 127.0.0.1:5000 [--address 127.0.0.1:5001 …]

It is told what to do on stdin and answers on stdout, a JSON object a line:

    {"connect": [[user id, connect packet, subscribe packet], …], "answer": "subscribed"}
        opens them one after another, in turn at the addresses; each has subscribed when this is answered:
        {"connected": 500}
    {"watch_s": 8}
        waits so long;
    {"collect": 10000, "patience_s": 10}
        waits until so many updates have come since the start, or none for so long. Both answer with
        {"received": …, "fewest": …, "most": … per client, "misdirected": …, "closed": …, "last_at_ms": …,
         "p50_ms": …, "p99_ms": …, "max_ms": … of those that came since the last such answer}
    end of input
        closes everything.

Latency is our clock minus the update's ``as_of`` (whole ms, so figures are up to 1 ms too high).
"""

from __future__ import annotations

import base64
import gc
import json
import os
import resource
import select
import socket
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import click

EVENT = b'["positions_update",'
AS_OF = b'"as_of":'
HANDSHAKE_TIMEOUT_S = 15.0
READ_BYTES = 65_536


def masked_text(payload: bytes) -> bytes:
    """A client's text frame; an all-zero mask is a mask."""
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE)) + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


PONG = masked_text(b"3")


class Disconnected(Exception):
    """The server ended the connection."""


class Client:
    """One connection: bytes in, whole messages out."""

    __slots__ = ("_buffer", "received", "socket", "user_mark")

    def __init__(self, address: tuple[str, int], user_id: int) -> None:
        self._buffer = b""
        self.received = 0
        self.user_mark = b'"user_id":%d,' % user_id
        self.socket = socket.create_connection(address, timeout=HANDSHAKE_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self, host: str, connect_packet: str, subscribe_packet: str, answer: str) -> None:
        """Upgrade, connect and subscribe, reading until the event ``answer`` has come."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise Disconnected(head.split(b"\r\n", 1)[0].decode())
        waiting = self.messages(b"")
        for packet, expected in [("", b"0"), (connect_packet, b"40"), (subscribe_packet, b'42["%s"' % answer.encode())]:
            if packet:
                self.socket.sendall(masked_text(packet.encode()))
            while not any(message.startswith(expected) for message in waiting):
                waiting = self.messages(self._more())
        self.socket.setblocking(False)

    def messages(self, data: bytes) -> list[bytes]:
        """The text messages that are complete with ``data``."""
        buffer = self._buffer + data if self._buffer else data
        found = []
        start, size = 0, len(buffer)
        while size - start >= 2:
            length, body = buffer[start + 1], start + 2
            if length == 126:
                length, body = int.from_bytes(buffer[start + 2 : start + 4], "big"), start + 4
            elif length == 127:
                length, body = int.from_bytes(buffer[start + 2 : start + 10], "big"), start + 10
            if size < body + length or body > size:
                break
            if buffer[start] == 0x88:
                raise Disconnected("close frame")
            found.append(buffer[body : body + length])
            start = body + length
        self._buffer = buffer[start:]
        return found

    def _more(self) -> bytes:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise Disconnected("end of stream")
        return data

    def _fill(self) -> None:
        self._buffer += self._more()


class Crowd:
    """All clients, one epoll loop; stdin is one more thing to listen to."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._hosts = addresses
        self._clients: dict[int, Client] = {}
        self._poll = select.epoll()
        self._poll.register(0, select.EPOLLIN)
        self._commands = b""
        self._latencies_ms = array("d")
        self._misdirected = 0
        self._closed = 0
        self._received = 0
        self._last_at_s = time.time()
        self._done: Callable[[], bool] | None = None

    def run(self) -> None:
        while True:
            for number, _ in self._poll.poll(0.1):
                if number == 0:
                    if not self._command():
                        return
                else:
                    self._read(number)
            if self._done is not None and self._done():
                self._done = None
                self._answer()

    def _command(self) -> bool:
        data = os.read(0, 1 << 20)
        self._commands += data
        while b"\n" in self._commands:
            line, self._commands = self._commands.split(b"\n", 1)
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, command: dict[str, Any]) -> None:
        if "connect" in command:
            for user_id, connect_packet, subscribe_packet in command["connect"]:
                self._connect(user_id, connect_packet, subscribe_packet, command["answer"])
            gc.collect()
            gc.freeze()
            say({"connected": len(self._clients)})
        elif "watch_s" in command:
            end_s = time.monotonic() + command["watch_s"]
            self._done = lambda: time.monotonic() >= end_s
        else:
            self._last_at_s = time.time()
            self._done = lambda: self._collected(command["collect"], command["patience_s"])

    def _connect(self, user_id: int, connect_packet: str, subscribe_packet: str, answer: str) -> None:
        host = self._hosts[len(self._clients) % len(self._hosts)]
        name, _, port = host.rpartition(":")
        client = Client((name, int(port)), user_id)
        client.open(host, connect_packet, subscribe_packet, answer)
        self._clients[client.socket.fileno()] = client
        self._poll.register(client.socket.fileno(), select.EPOLLIN)

    def _read(self, number: int) -> None:
        client = self._clients[number]
        try:
            data = client.socket.recv(READ_BYTES)
            if not data:
                raise Disconnected("end of stream")
            messages = client.messages(data)
        except BlockingIOError:
            return
        except (OSError, Disconnected):
            self._poll.unregister(number)
            client.socket.close()
            self._closed += 1
            return
        now_s = time.time()
        for message in messages:
            if message == b"2":
                client.socket.send(PONG)
            elif message.startswith(EVENT, 2):
                self._update(client, message, now_s)

    def _update(self, client: Client, message: bytes, now_s: float) -> None:
        client.received += 1
        self._received += 1
        self._last_at_s = now_s
        if client.user_mark not in message:
            self._misdirected += 1
        start = message.rindex(AS_OF) + len(AS_OF)
        digits = message[start:].rstrip(b"}]").split(b",", 1)[0]
        self._latencies_ms.append(now_s * 1000 - int(digits))

    def _collected(self, updates: int, patience_s: float) -> bool:
        return self._received >= updates or time.time() - self._last_at_s >= patience_s

    def _answer(self) -> None:
        counts = [client.received for client in self._clients.values()]
        latencies = sorted(self._latencies_ms) or [float("nan")]
        say(
            {
                "received": self._received, "fewest": min(counts), "most": max(counts),
                "misdirected": self._misdirected, "closed": self._closed,
                "p50_ms": latencies[len(latencies) // 2], "p99_ms": latencies[int(len(latencies) * 0.99)],
                "max_ms": latencies[-1], "last_at_ms": self._last_at_s * 1000,
            }
        )  # fmt: skip
        del self._latencies_ms[:]


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


@click.command()
@click.option("--address", "addresses", required=True, multiple=True, help="HOST:PORT of a Socket.IO server.")
def main(addresses: tuple[str, ...]) -> None:
    """Be many Socket.IO clients, as told on stdin."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Crowd(addresses).run()


if __name__ == "__main__":
    main()
