"""HTTP/1.1 on gevent's plain sockets: keep-alive, one write per answer, and answers that go wrong on purpose.

A server of our own and not pywsgi because the faults need the raw socket: cut bodies, wrong lengths, dripping, resets.
"""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import Callable
from http import HTTPStatus

import gevent
from gevent.server import StreamServer

from pushserver.exchange_sim.http_messages import Answer, Request
from pushserver.exchange_sim.streams.hub import Hub
from pushserver.exchange_sim.streams.socket import is_upgrade

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024

#: Bodies from this size on are sent compressed and chunked to clients that accept it, as Bybit's edge does.
COMPRESS_FROM_BYTES = 8 * 1024
DRIP_STEP_S = 0.05
REASONS = {status.value: status.phrase for status in HTTPStatus}


class BadRequest(Exception):
    """The bytes are no HTTP request; the connection is closed."""


class Reader:
    """Requests from one socket, read through one buffer."""

    def __init__(self, sock: socket.socket, address: str) -> None:
        self._socket = sock
        self._address = address
        self._buffer = b""

    def next_request(self) -> Request | None:
        """None when the client is done. Raises BadRequest, OSError."""
        head = self._until_blank_line()
        if head is None:
            return None
        lines = head.decode("latin-1").split("\r\n")
        try:
            method, target, _ = lines[0].split(" ")
        except ValueError:
            raise BadRequest(lines[0][:80]) from None
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise BadRequest("chunked requests are not served")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_BODY_BYTES:
            raise BadRequest("content-length")
        path, _, query = target.partition("?")
        return Request(method, path, query, headers, self._exactly(int(length)), self._address)

    def rest(self) -> bytes:
        """What was read beyond the last request."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _until_blank_line(self) -> bytes | None:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest("head too large")
            received = self._socket.recv(65536)
            if not received:
                return None
            self._buffer += received
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return head

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            received = self._socket.recv(65536)
            if not received:
                raise BadRequest("body ends early")
            self._buffer += received
        body, self._buffer = self._buffer[:count], self._buffer[count:]
        return body


class HttpServer:
    """Serves ``answer`` and the streams on ``host:port``; port 0 takes a free one (then see ``port``)."""

    def __init__(self, host: str, port: int, answer: Callable[[Request], Answer], streams: Hub) -> None:
        self._answer = answer
        self._streams = streams
        self._server = StreamServer((host, port), self._serve_connection, backlog=1024)

    def start(self) -> None:
        """Raises OSError when the address is taken."""
        self._server.start()

    def stop(self) -> None:
        self._server.stop(timeout=0.5)

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def _serve_connection(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader(sock, peer[0])
        try:
            while (request := reader.next_request()) is not None:
                if is_upgrade(request) and self._streams.serves(request.path):
                    self._streams.serve(sock, request, reader.rest())
                    break
                if not deliver(sock, request, self._answer(request)):
                    break
        except (BadRequest, OSError):
            pass  # the client left or speaks no HTTP: either way this connection is over
        finally:
            sock.close()


def deliver(sock: socket.socket, request: Request, answer: Answer) -> bool:
    """Send one answer the way it asks for; whether the connection can serve another request."""
    if answer.cut_at_once:
        # Linger 0: close sends a reset instead of an orderly end.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
    if answer.hang_s is not None:
        sock.settimeout(answer.hang_s)
        sock.recv(1)  # ends when the client leaves; TimeoutError (an OSError) ends the connection too
        return False
    if answer.delay_s > 0:
        gevent.sleep(answer.delay_s)
    body = answer.body()
    headers = {"Content-Type": answer.content_type, **answer.headers}
    faulty = answer.bytes_per_s is not None or answer.send_only is not None
    if (
        len(body) >= COMPRESS_FROM_BYTES
        and not faulty
        and "Content-Encoding" not in headers
        and "gzip" in request.headers.get("accept-encoding", "")
    ):
        packed = gzip.compress(body, compresslevel=1)
        headers |= {"Content-Encoding": "gzip", "Transfer-Encoding": "chunked"}
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed)
    else:
        headers["Content-Length"] = str(len(body))
    closing = request.headers.get("connection", "").lower() == "close"
    headers["Connection"] = "close" if closing else "keep-alive"
    reason = REASONS.get(answer.status, "")
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    if answer.send_only is not None:
        sock.sendall(head + body[: answer.send_only])
        return False
    if answer.bytes_per_s is not None:
        drip(sock, head, body, answer.bytes_per_s)
    else:
        sock.sendall(head + body)
    return not closing


def drip(sock: socket.socket, head: bytes, body: bytes, bytes_per_s: float) -> None:
    """Send the body a few bytes at a time."""
    sock.sendall(head)
    step = max(1, round(bytes_per_s * DRIP_STEP_S))
    for start in range(0, len(body), step):
        sock.sendall(body[start : start + step])
        gevent.sleep(step / bytes_per_s)
