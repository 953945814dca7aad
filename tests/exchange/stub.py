"""A local HTTP server that says exactly what a test wants, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

#: What a handler yields: bytes are sent, numbers are seconds to wait, None closes the connection.
Step = bytes | float | None

NOW_MS = 1_767_225_600_000


@dataclass(frozen=True, slots=True)
class Request:
    target: str
    headers: dict[str, str]
    connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        return urlsplit(self.target).query

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))


Handler = Callable[[Request], Iterable[Step]]


def http(body: bytes, status: int = 200, **headers: str) -> bytes:
    """A whole HTTP answer; header names are written with underscores."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def envelope(result: Any = None, code: Any = 0, message: str = "OK", time_ms: Any = NOW_MS, **more: Any) -> bytes:
    return json.dumps(
        {"retCode": code, "retMsg": message, "result": {} if result is None else result, "time": time_ms, **more}
    ).encode()


def page(*rows: Any, cursor: str = "", **more: Any) -> bytes:
    return envelope({"list": list(rows), "nextPageCursor": cursor, **more})


@dataclass
class Stub:
    """Serves until closed; ``handler`` may be replaced between requests."""

    handler: Handler
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closing.set()
        # Closing alone would leave the thread in accept, and the port open with it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._sockets:
            peer.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _address = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(peer)
            threading.Thread(target=self._serve, args=(peer, self.connections), daemon=True).start()

    def _serve(self, peer: socket.socket, number: int) -> None:
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                peer = self.tls.wrap_socket(peer, server_side=True)
            waiting = b""
            while True:
                while b"\r\n\r\n" not in waiting:
                    data = peer.recv(65_536)
                    if not data:
                        return
                    waiting += data
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                request = self._parsed(head.decode("latin-1"), number)
                self.requests.append(request)
                for step in self.handler(request):
                    if step is None:
                        return
                    if isinstance(step, bytes):
                        peer.sendall(step)
                    elif self._closing.wait(step):
                        return
        except OSError:
            return
        finally:
            peer.close()

    @staticmethod
    def _parsed(head: str, number: int) -> Request:
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Request(first.split(" ")[1], headers, number)


def always(*steps: Step) -> Handler:
    return lambda request: steps


def in_turn(*answers: bytes) -> Handler:
    """One answer per request, the last one for ever."""
    waiting = list(answers)
    return lambda request: [waiting.pop(0) if len(waiting) > 1 else waiting[0]]
