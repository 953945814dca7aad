"""A WebSocket server in this thread's own hub that says exactly what a test wants, and remembers what it was told."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from gevent.server import StreamServer

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

Message = dict[str, Any]


class Peer:
    """The server's end of one connection. ``heard`` has the JSON messages of the client, ``pongs`` its pongs."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.heard: list[Message] = []
        self.pongs: list[bytes] = []
        self.over = Event()

    def say(self, message: Message | str, opcode: int = TEXT) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        self.frame(opcode, text.encode())

    def frame(self, opcode: int, payload: bytes, fin: bool = True, claimed_length: int | None = None) -> None:
        length = len(payload) if claimed_length is None else claimed_length
        head = bytes([(0x80 if fin else 0) | opcode])
        if length < 126:
            head += bytes([length])
        elif length < 65_536:
            head += b"\x7e" + struct.pack("!H", length)
        else:
            head += b"\x7f" + struct.pack("!Q", length)
        self.raw(head + payload)

    def raw(self, data: bytes) -> None:
        self._socket.sendall(data)

    def cut(self) -> None:
        self._socket.close()
        self.over.set()

    def wait_for(self, operation: str, number: int = 1) -> Message:
        """The ``number``-th message of the client with that ``op``."""
        with gevent.Timeout(5, AssertionError(f"no {number}. {operation}: {self.heard}")):
            while True:
                found = [message for message in self.heard if message.get("op") == operation]
                if len(found) >= number:
                    return found[number - 1]
                gevent.sleep(0.005)

    def read_all(self, on_message: Callable[[Peer, Message], None]) -> None:
        while not self.over.is_set():
            first, second = self._exactly(2)
            length = second & 127
            if length >= 126:
                length = int.from_bytes(self._exactly(2 if length == 126 else 8), "big")
            mask = self._exactly(4)
            payload = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self._exactly(length)))
            if first & 15 == TEXT:
                message = json.loads(payload)
                self.heard.append(message)
                on_message(self, message)
            elif first & 15 == PONG:
                self.pongs.append(payload)
            elif first & 15 == CLOSE:
                return

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError
            data += more
        return data


class StreamStub:
    """``on_message(peer, message)`` is the server's mind. ``refuse`` is an HTTP answer in place of the handshake."""

    def __init__(self, on_message: Callable[[Peer, Message], None] = lambda peer, message: None) -> None:
        self.on_message = on_message
        self.refuse: bytes | None = None
        self.peers: list[Peer] = []
        self.requests: list[str] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v5/private"

    def peer(self, number: int = 1) -> Peer:
        """The ``number``-th connection, awaited."""
        with gevent.Timeout(5, AssertionError("nobody connected")):
            while len(self.peers) < number:
                gevent.sleep(0.005)
        return self.peers[number - 1]

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def _serve(self, socket: Any, address: object) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = socket.recv(1024)
            if not data:
                return
            head += data
        self.requests.append(head.decode())
        if self.refuse is not None:
            socket.sendall(self.refuse)
            socket.close()
            return
        key = next(line[19:] for line in head.decode().split("\r\n") if line.lower().startswith("sec-websocket-key: "))
        accept = base64.b64encode(hashlib.sha1((key.strip() + GUID).encode()).digest()).decode()
        socket.sendall(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        peer = Peer(socket)
        self.peers.append(peer)
        try:
            peer.read_all(lambda peer, message: self.on_message(peer, message))
        except OSError:
            pass
        finally:
            peer.over.set()
            socket.close()
