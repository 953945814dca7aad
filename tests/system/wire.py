"""A WebSocket client down to its bytes: for frames no library would send, and for clients that hardly read."""

from __future__ import annotations

import base64
import os
import socket
import struct
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
MASK = b"\x01\x02\x03\x04"


class Frame(NamedTuple):
    final: bool
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """Of a close frame; 1005 when it names none."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else 1005


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, bits: int = 0) -> bytes:
    """A client's frame; ``bits`` are the reserved ones (1 to 7)."""
    masking = MASK if masked else b""
    body = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload)) if masked else payload
    return header(opcode, len(payload), final=final, masked=masked, bits=bits) + masking + body


def header(opcode: int, size: int, *, final: bool = True, masked: bool = True, bits: int = 0) -> bytes:
    """What declares a payload of ``size`` bytes, without mask and payload."""
    first, mark = (0x80 if final else 0) | bits << 4 | opcode, 0x80 if masked else 0
    if size < 126:
        return bytes((first, mark | size))
    if size < 65_536:
        return struct.pack("!BBH", first, mark | 126, size)
    return struct.pack("!BBQ", first, mark | 127, size)


def text(message: str) -> bytes:
    return frame(TEXT, message.encode())


class Wire:
    """One TCP connection, from ``source`` and with so small a receive buffer if that is asked for."""

    def __init__(self, port: int, source: str = "", receive_buffer: int = 0, timeout_s: float = 10) -> None:
        self.port = port
        self.socket = socket.socket()
        self.socket.settimeout(timeout_s)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self._reader = self.socket.makefile("rb")

    def upgrade(self, *headers: str, query: str = "EIO=4&transport=websocket") -> int:
        """Ask for a Socket.IO WebSocket; the status of the answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET /socket.io/?{query} HTTP/1.1", f"Host: 127.0.0.1:{self.port}",
            "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}", *headers,
        ]  # fmt: skip
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        return self.status()

    def status(self) -> int:
        """Read the head of an HTTP answer; its status, 0 when the server just hung up."""
        line = self._reader.readline()
        while self._reader.readline() not in (b"\r\n", b""):
            pass
        return int(line.split()[1]) if line else 0

    def sign_in(self, token: str, *headers: str) -> None:
        """From TCP to signed in; fails when the server does not agree."""
        assert self.upgrade(*headers) == 101
        assert self.read().payload.startswith(b"0{")
        self.send(text('40{"token":"' + token + '"}'))
        assert self.read().payload.startswith(b"40")
        assert self.read().payload.startswith(b'42["connected"')

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> Frame:
        """The next frame of the server, which must be well formed. Raises ConnectionError at the end of the stream."""
        first, second = self._exactly(2)
        assert not first & 0x70 and not second & 0x80, "the server's frame is broken"
        size = second
        if size == 126:
            size = int.from_bytes(self._exactly(2), "big")
        elif size == 127:
            size = int.from_bytes(self._exactly(8), "big")
        return Frame(bool(first & 0x80), first & 0x0F, self._exactly(size))

    def read_to_the_end(self) -> list[Frame]:
        """All frames until the server has closed the connection; TimeoutError if it does not."""
        frames = []
        try:
            while True:
                frames.append(self.read())
        except ConnectionError:
            return frames

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size) if size else b""
        if len(data) < size:
            raise ConnectionError("the server closed the connection")
        return data
