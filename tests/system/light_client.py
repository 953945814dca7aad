"""One cheap Socket.IO client on a non-blocking socket, as well or as badly behaved as its ``Manner`` says."""

from __future__ import annotations

import base64
import json
import os
import random
import select
import socket
import struct
import time
from typing import Any, Protocol

from tests.system.manners import CLOSE, PING, PONG, TEXT, Manner, Seen, masked

READ_BYTES = 65_536
#: What a server may begin a frame with: final, unmasked, one of these.
FRAME_BEGINS = (0x81, 0x82, 0x88, 0x89, 0x8A)


class Loop(Protocol):
    """What a client needs of the process it lives in."""

    address: tuple[str, int]

    def watch(self, client: Client, events: int) -> None: ...

    def forget(self, client: Client) -> None: ...

    def later(self, seconds: float, call: Any, *arguments: Any) -> None: ...


class Client:
    """One client over all its connections."""

    __slots__ = (
        "_buffer", "_loop", "_lost_at_s", "_newest_of_connection", "_opened", "latest", "manner", "ready", "seen",
        "socket", "stage", "token", "user_id", "wanted",
    )  # fmt: skip

    def __init__(self, loop: Loop, manner: Manner, seen: Seen, user_id: int, token: str) -> None:
        self._loop, self.manner, self.seen, self.user_id, self.token = loop, manner, seen, user_id, token
        self.wanted = True
        self.socket: socket.socket | None = None
        self.stage = "closed"
        self.ready = False
        #: Type to ``[seq, as_of, received at (wall clock, ms)]``, over all connections.
        self.latest: dict[str, list[int]] = {}
        self._newest_of_connection: dict[str, int] = {}
        self._buffer = b""
        self._lost_at_s: float | None = None
        #: Distinguishes this connection from earlier ones in timers that come late.
        self._opened = 0

    # --- a connection's life -----------------------------------------------------------------------------------

    def open(self) -> None:
        self._buffer, self._newest_of_connection, self.stage = b"", {}, "tcp"
        self._opened += 1
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.manner.receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.manner.receive_buffer)
        self.socket.connect_ex(self._loop.address)
        self._loop.watch(self, select.EPOLLOUT)

    def happened(self, events: int) -> None:
        """epoll says so."""
        assert self.socket is not None
        if self.stage == "tcp" and events & (select.EPOLLOUT | select.EPOLLERR):
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.ended(f"connect: {os.strerror(error)}")
                return
            self._connected()
        elif events & (select.EPOLLIN | select.EPOLLERR | select.EPOLLHUP):
            self.read(READ_BYTES)

    def watch_reading(self) -> None:
        """Listen to the socket or not, as the manner says."""
        if self.socket is None or self.stage == "tcp":
            return
        pace = self.manner.bytes_per_s
        self._loop.watch(self, select.EPOLLIN if self.manner.reads and pace is None else 0)
        if self.manner.reads and pace is not None:
            self._read_slowly(self._opened)

    def read(self, most: int) -> None:
        assert self.socket is not None
        try:
            data = self.socket.recv(most)
        except BlockingIOError:
            return
        except OSError as error:
            self.ended(type(error).__name__)
            return
        if data:
            self._take(data)
        else:
            self.ended("end of stream")

    def ended(self, how: str) -> None:
        """The connection is over, whoever ended it."""
        if self.socket is None:
            return
        self._loop.forget(self)
        self.socket.close()
        self.socket = None
        self.stage, self.ready = "closed", False
        if not self.wanted:
            return
        self.seen.ends[how] += 1
        self.seen.ended_at_s.append(time.monotonic())
        if self._lost_at_s is None:
            self._lost_at_s = time.monotonic()
        if self.manner.reconnect_jitter_s is not None:
            self._loop.later(random.uniform(0, self.manner.reconnect_jitter_s), self._open_again)

    def leave(self, how: str) -> None:
        """End it from our side: ``fin``, ``rst``, ``close_frame``, ``disconnect_packet`` (then FIN), ``dropped``."""
        if self.socket is None:
            return
        if how == "close_frame":
            self.send(CLOSE, (1000).to_bytes(2, "big"))
        elif how == "disconnect_packet":
            self.send(TEXT, b"41")
        elif how in ("rst", "dropped"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wanted = how == "dropped"
        if how not in ("close_frame", "disconnect_packet"):
            self.ended(how)

    def send(self, opcode: int, payload: bytes) -> None:
        self._write(masked(opcode, payload))

    def _open_again(self) -> None:
        if self.wanted and self.socket is None:
            self.open()

    def _write(self, data: bytes) -> None:
        if self.socket is None:
            return
        try:
            self.socket.send(data)
        except BlockingIOError:
            self.seen.told["could not send"] += 1
        except OSError as error:
            self.ended(type(error).__name__)

    def _connected(self) -> None:
        self.stage = "upgrading"
        self.watch_reading()
        if self.manner.goes_to == "tcp":
            self._arrived()
            return
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        ).encode()
        if self.manner.goes_to == "half_head":
            self._write(head)
            self._arrived()
        else:
            self._write(head + b"\r\n")

    def _arrived(self) -> None:
        """As far as this client comes by itself."""
        self.ready = True
        if self._lost_at_s is not None:
            self.seen.gaps_s.append(time.monotonic() - self._lost_at_s)
            self._lost_at_s = None
        for every_s, act in ((self.manner.drip_every_s, self._drip), (self.manner.ping_every_s, self._ping)):
            if every_s is not None:
                self._loop.later(random.uniform(0, every_s), self._again, self._opened, every_s, act)

    def _again(self, opened: int, every_s: float, act: Any) -> None:
        if self.socket is not None and opened == self._opened:
            act()
            self._loop.later(every_s, self._again, opened, every_s, act)

    def _drip(self) -> None:
        self._write(b"x")

    def _ping(self) -> None:
        self.send(PING, b"still there?")

    def _read_slowly(self, opened: int) -> None:
        if self.socket is None or opened != self._opened or self.manner.bytes_per_s is None or not self.manner.reads:
            return
        pause_s = max(0.05, 1 / self.manner.bytes_per_s)
        self.read(max(1, int(self.manner.bytes_per_s * pause_s)))
        self._loop.later(pause_s, self._read_slowly, opened)

    # --- what the server says ----------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        self._buffer += data
        if self.stage == "upgrading":
            if b"\r\n\r\n" not in self._buffer:
                return
            head, self._buffer = self._buffer.split(b"\r\n\r\n", 1)
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self.ended("answer " + head.split(b"\r\n", 1)[0].decode(errors="replace"))
                return
            self.stage = "upgraded"
            if self.manner.goes_to == "upgraded":
                self._arrived()
        while self.socket is not None and len(self._buffer) >= 2:
            length, start = self._buffer[1], 2
            if length == 126:
                length, start = int.from_bytes(self._buffer[2:4], "big"), 4
            elif length == 127:
                length, start = int.from_bytes(self._buffer[2:10], "big"), 10
            if self._buffer[0] not in FRAME_BEGINS or self._buffer[1] & 0x80:
                self.seen.torn += 1
                self.ended("torn frame")
                return
            if len(self._buffer) < start + length or len(self._buffer) < start:
                return
            opcode, body = self._buffer[0] & 15, self._buffer[start : start + length]
            self._buffer = self._buffer[start + length :]
            self._frame(opcode, body)

    def _frame(self, opcode: int, body: bytes) -> None:
        if opcode == CLOSE:
            self.ended(f"close {int.from_bytes(body[:2], 'big')}")
        elif opcode == PONG:
            self.seen.pongs += 1
        elif opcode == PING:
            self.send(PONG, body)
        elif body.startswith(b"42["):
            try:
                name, *payload = json.loads(body[2:])
            except ValueError:
                self.seen.torn += 1
                return
            self._event(name, payload[0] if payload else None)
        else:
            self._packet(body)

    def _packet(self, body: bytes) -> None:
        if body == b"2":
            if self.manner.pongs:
                self.send(TEXT, b"3")
        elif body[:1] == b"0":
            if self.manner.goes_to == "half_frame":
                self._write(masked(TEXT, b"40" + b"x" * 80)[:20])
                self._arrived()
            elif self.manner.goes_to != "upgraded":
                self.send(TEXT, b"40" + json.dumps({"token": self.token}).encode())
        elif body[:2] == b"40":
            if self.manner.goes_to == "subscribed":
                self.send(TEXT, b'42["subscribe_trading",' + json.dumps({"types": self.manner.types}).encode() + b"]")
            else:
                self._arrived()
        elif body[:2] == b"44":
            self.seen.told[str(json.loads(body[2:])["message"])] += 1
        elif body[:2] == b"41":
            self.seen.told["disconnect packet"] += 1

    def _event(self, name: str, payload: Any) -> None:
        if name == "subscribed":
            self._arrived()
        elif name == "error":
            self.seen.told[payload["code"]] += 1
        elif name.endswith("_update") and name != "status_update":
            self._update(name.removesuffix("_update"), payload)

    def _update(self, data_type: str, update: dict[str, Any]) -> None:
        now_ms = time.time() * 1000
        seq, as_of = update["seq"], update["as_of"]
        self.seen.updates += 1
        self.seen.latencies_ms.append(now_ms - as_of)
        before = self.latest.get(data_type, [0, 0, 0])
        if seq <= self._newest_of_connection.get(data_type, 0) or seq < before[0] or as_of < before[1]:
            self.seen.regressed += 1
        if update["user_id"] != self.user_id:
            self.seen.told["another user's update"] += 1
        self._newest_of_connection[data_type] = seq
        self.latest[data_type] = [seq, as_of, round(now_ms)]
