"""A WebSocket client of single frames: it sends any bytes, and says what came back and when the server hung up."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

TARGET = "/socket.io/?EIO=4&transport=websocket"


def client_frame(opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0) -> bytes:
    """One masked frame; ``reserved`` are the three RSV bits as a number."""
    size = len(payload)
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += struct.pack("!BH", 0x80 | 126, size)
    else:
        head += struct.pack("!BQ", 0x80 | 127, size)
    key = os.urandom(4)
    mask = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload) ^ int.from_bytes(mask)
    return head + key + masked.to_bytes(size)


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return client_frame(CLOSE, struct.pack("!H", code) + reason)


@dataclass(frozen=True, slots=True)
class Frame:
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int | None:
        """The code of a close frame; None when it has none."""
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None


class HungUp(Exception):
    """The server ended the TCP connection."""


class Refused(Exception):
    """The upgrade was answered with something else than 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body[:200]!r}")
        self.status = status
        self.body = body


class Wire:
    """One TCP connection, upgraded to a WebSocket; each frame of the server is checked for being one it may send."""

    def __init__(self, port: int, target: str = TARGET, headers: Iterable[str] = (), receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        try:
            self.socket.connect(("127.0.0.1", port))
            self._upgrade(target, headers)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> bool:
        """Send bytes as they are; False when the server has hung up already."""
        self.socket.settimeout(10)
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def send_text(self, text: str) -> bool:
        return self.send(client_frame(TEXT, text.encode()))

    def frame(self, timeout_s: float = 10.0) -> Frame:
        """The next frame. Raises HungUp, TimeoutError; AssertionError when it is not one that a server may send."""
        deadline = time.monotonic() + timeout_s
        first, second = self._exactly(2, deadline)
        assert first & 0x80, "the server fragmented a message"
        assert not first & 0x70, "the server set a reserved bit"
        assert not second & 0x80, "the server masked a frame"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2, deadline))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8, deadline))
        return Frame(first & 0x0F, self._exactly(size, deadline))

    def text(self, timeout_s: float = 10.0, *, pings: bool = False) -> str:
        """The next text message that is not an Engine.IO ping, which is answered; with ``pings`` the next of all."""
        while True:
            frame = self.frame(timeout_s)
            if frame.opcode == CLOSE:
                raise HungUp(f"close frame with {frame.close_code}")
            assert frame.opcode == TEXT, frame
            if frame.payload != b"2" or pings:
                return frame.payload.decode()
            self.send_text("3")

    def end(self, timeout_s: float = 1.0) -> int | None:
        """The code of the server's close frame, once it has hung up, too; None without one. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        code = None
        while True:
            try:
                frame = self.frame(max(0.001, deadline - time.monotonic()))
            except HungUp:
                return code
            assert code is None, f"{frame} after the close frame"
            if frame.opcode == CLOSE:
                code = frame.close_code

    def close(self) -> None:
        self.socket.close()

    def _upgrade(self, target: str, headers: Iterable[str]) -> None:
        lines = [
            f"GET {target} HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", *headers,
        ]  # fmt: skip
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        deadline = time.monotonic() + 10
        while b"\r\n\r\n" not in self._received:
            self._receive(deadline)
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status != 101:
            try:
                while True:
                    self._receive(deadline)
            except HungUp:
                raise Refused(status, self._received) from None

    def _exactly(self, size: int, deadline: float) -> bytes:
        while len(self._received) < size:
            self._receive(deadline)
        data, self._received = self._received[:size], self._received[size:]
        return data

    def _receive(self, deadline: float) -> None:
        self.socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = self.socket.recv(262_144)
        except ConnectionError:
            data = b""
        if not data:
            raise HungUp("the server closed the connection")
        self._received += data
