"""One WebSocket on a plain gevent socket: frames through wsproto, sends that never wait for the client."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterator

import gevent
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from pushserver.exchange_sim.http_messages import Request

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: A client that leaves so much unread is cut off, as the exchange does.
MOST_UNREAD_BYTES = 512 * 1024
MOST_TEXT = 64 * 1024


def is_upgrade(request: Request) -> bool:
    return request.headers.get("upgrade", "").lower() == "websocket" and "sec-websocket-key" in request.headers


def refuse(sock: socket.socket, status: int, text: str) -> None:
    """Answer the handshake with an HTTP status instead of 101."""
    body = text.encode()
    head = f"HTTP/1.1 {status} Refused\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    sock.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)


class StreamSocket:
    """Texts in (``texts``), texts out (``send``), after the handshake that the constructor answers."""

    def __init__(self, sock: socket.socket, request: Request, already_read: bytes = b"") -> None:
        accept = base64.b64encode(
            hashlib.sha1(request.headers["sec-websocket-key"].encode() + MAGIC, usedforsecurity=False).digest()
        )
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._socket = sock
        self._connection = Connection(ConnectionType.SERVER)
        self._received = already_read
        self._unsent = bytearray()
        self.closed = False
        #: Asked for every ping frame: whether it is answered.
        self.answers_ping: Callable[[], bool] = lambda: True

    def texts(self) -> Iterator[str]:
        """Every whole text message until the client leaves."""
        parts: list[str] = []
        while not self.closed:
            received, self._received = self._received or self._socket.recv(4096), b""
            if not received:
                return
            try:
                self._connection.receive_data(received)
                events = list(self._connection.events())
            except RemoteProtocolError:
                return
            for event in events:
                if isinstance(event, Ping):
                    if self.answers_ping():
                        self._write(self._connection.send(event.response()))
                elif isinstance(event, CloseConnection):
                    self._write(self._connection.send(event.response()))
                    return
                elif isinstance(event, TextMessage):
                    parts.append(event.data)
                    if sum(map(len, parts)) > MOST_TEXT:
                        return
                    if event.message_finished:
                        yield "".join(parts)
                        parts = []
                elif not isinstance(event, Pong):
                    return

    def send(self, text: str) -> None:
        """Never waits: what the client does not take yet is kept up to a bound, beyond it the client is cut off."""
        if self.closed:
            return
        try:
            self._write(self._connection.send(TextMessage(data=text)))
        except LocalProtocolError:
            self.cut()

    def close(self, code: int) -> None:
        """An orderly close frame, then the end."""
        if not self.closed:
            # The client may have closed first.
            with contextlib.suppress(LocalProtocolError):
                self._write(self._connection.send(CloseConnection(code=code, reason="")))
            self.cut()

    def cut(self) -> None:
        """The end without a word; the reader of ``texts`` sees it too."""
        if not self.closed:
            self.closed = True
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is gone already

    def _write(self, data: bytes) -> None:
        if self.closed:
            return
        if not self._unsent:
            try:
                data = data[os.write(self._socket.fileno(), data) :]
            except BlockingIOError:
                pass  # the client is slow: all of it waits
            except OSError:
                self.cut()
                return
            if data:
                gevent.spawn(self._flush)
        self._unsent += data
        if len(self._unsent) > MOST_UNREAD_BYTES:
            self.cut()

    def _flush(self) -> None:
        while self._unsent and not self.closed:
            try:
                sent = self._socket.send(self._unsent)
            except OSError:
                self.cut()
                return
            del self._unsent[:sent]
