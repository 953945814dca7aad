"""A Socket.IO client that says exactly what it is told to, for what no library would send."""

from __future__ import annotations

import json
import time
from typing import Any

import websocket


class RawClient:
    """Speaks frames; ``connect`` does the two handshakes."""

    def __init__(self, url: str, query: str = "", header: list[str] | None = None) -> None:
        address = url.replace("http://", "ws://") + "/socket.io/?EIO=4&transport=websocket" + query
        self.socket = websocket.create_connection(address, timeout=10, header=header or [])
        self.opening = json.loads(self.socket.recv()[1:])
        self.events: list[tuple[str, Any]] = []
        self._acks: dict[int, Any] = {}
        self._next_ack = 100

    def connect(self, auth: object | None = None) -> str:
        """Send CONNECT; the raw answer packet (``40…`` or ``44…``)."""
        self.send("40" + ("" if auth is None else json.dumps(auth)))
        answer = self.packet()
        if answer.startswith("40"):
            assert self.event("connected")
        return answer

    def send(self, text: str) -> None:
        self.socket.send(text)

    def send_binary(self, data: bytes) -> None:
        self.socket.send_binary(data)

    def packet(self, timeout_s: float = 10) -> str:
        """The next Engine.IO message that is not a ping; raises ConnectionError when the server closed."""
        self.socket.settimeout(timeout_s)
        while True:
            try:
                text = self.socket.recv()
            except (websocket.WebSocketConnectionClosedException, ConnectionError, OSError) as error:
                if isinstance(error, TimeoutError | websocket.WebSocketTimeoutException):
                    raise
                raise ConnectionError("closed by the server") from error
            if text == "":
                raise ConnectionError("closed by the server")
            if text == "2":
                self.socket.send("3")
                continue
            return str(text)

    def event(self, name: str, timeout_s: float = 10) -> Any:
        """The payload of the next event of that name; others are kept in ``events``."""
        for index, (kept, payload) in enumerate(self.events):
            if kept == name:
                del self.events[index]
                return payload
        deadline = time.monotonic() + timeout_s
        while True:
            self._take(self.packet(max(0.05, deadline - time.monotonic())))
            if self.events and self.events[-1][0] == name:
                return self.events.pop()[1]

    def call(self, name: str, *arguments: object) -> Any:
        """Emit with an ack; its first argument."""
        self._next_ack += 1
        ack_id = self._next_ack
        self.send(f"42{ack_id}" + json.dumps([name, *arguments]))
        while ack_id not in self._acks:
            self._take(self.packet())
        return self._acks.pop(ack_id)

    def closed_within(self, seconds: float) -> bool:
        """Whether the server ends the TCP connection in time; whatever it says before is kept."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self._take(self.packet(max(0.05, deadline - time.monotonic())))
            except ConnectionError:
                return True
            except (TimeoutError, websocket.WebSocketTimeoutException):
                return False
        return False

    def close(self) -> None:
        self.socket.close()

    def _take(self, text: str) -> None:
        if text.startswith("42"):
            name, *payload = json.loads(text[2:])
            self.events.append((name, payload[0] if payload else None))
        elif text.startswith("43"):
            start = text.index("[")
            arguments = json.loads(text[start:])
            self._acks[int(text[2:start])] = arguments[0] if arguments else None
