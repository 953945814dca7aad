"""What a gunicorn worker does with an accepted connection: read requests, answer them, upgrade to WebSocket.

gevent.pywsgi and gevent-websocket stand below. Left to themselves they wait for ever, take ambiguous framing,
answer 101 to any upgrade before the program has seen it, and log the request line with its token.
"""

from __future__ import annotations

import _socket
import base64
import binascii
import logging
import socket
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qs

import gevent
import orjson
from gevent.pywsgi import Input, headers_factory
from geventwebsocket.handler import WebSocketHandler

from pushserver.clock import Clock
from pushserver.limits import DEFAULTS, Limits
from pushserver.logs import masked_text
from pushserver.observers import HttpRequestRefused
from pushserver.web.engine import WAITED_KEY
from pushserver.web.http_request import RequestHead, RequestRefused, read_body, read_head

T = TypeVar("T")

logger = logging.getLogger("pushserver.web.http")

#: How long a refused client may take to read why.
LINGER_S = 1.0

SOCKET_PATH = "/socket.io/"
WEBSOCKET_VERSION = "13"
MAX_QUERY_FIELDS = 100


class TakenOver(NamedTuple):
    """A client whose handshake is done. ``socket`` is plain and non-blocking; ``leave`` is due when it was closed."""

    socket: Any
    already_read: bytes
    leave: Callable[[], None]


class RequestHandler(WebSocketHandler):
    """One connection.

    Of the application's ``extensions``, if there, ``observer`` hears of refused requests, ``admission`` says whether
    one more WebSocket is taken, ``limits`` how long a client may take, by ``clock``.
    """

    websocket: Any
    #: None once the client was taken over.
    socket: Any
    rfile: Any
    _asked_before = False
    _waited_since_s = 0.0
    #: The address under which this connection was admitted as a WebSocket; None while it is none.
    _admitted: str | None = None

    def handle_one_request(self) -> bool | None:
        """Serve one request; True if the connection stays open for another."""
        try:
            if not self._receive():
                return None
        except RequestRefused as refusal:
            self._refuse(refusal)
            return None
        except OSError:
            return None  # the client went away
        self.application = self.server.application
        try:
            self.handle_one_response()
        finally:
            self._leave()
        return None if self.socket is None or self.close_connection or self.rfile.closed else True

    def _receive(self) -> bool:
        """Read a request into ``environ``; False when no other came."""
        limits: Limits = self._extensions.get("limits", DEFAULTS)
        if self._asked_before and not self._wait_for_next(limits.keep_alive_s):
            return False
        self._asked_before = True
        self._waited_since_s = self._now_s()
        head = _within(limits.request_head_s, lambda: read_head(self.rfile))
        if head is None:
            return False
        if head.body_bytes != 0 and [value.lower() for value in head.values("expect")] == ["100-continue"]:
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _within(limits.request_body_s, lambda: read_body(self.rfile, head.body_bytes))
        self._adopt(head, body)
        return True

    @property
    def _extensions(self) -> Mapping[str, Any]:
        extensions: Mapping[str, Any] = getattr(self.server.application, "extensions", {})
        return extensions

    def _now_s(self) -> float:
        clock: Clock | None = self._extensions.get("clock")
        return clock.monotonic_s() if clock else 0.0

    def _wait_for_next(self, seconds: float) -> bool:
        if self.server.leaving:
            return False
        arrived = b""
        self.server.idle.add(self)
        try:
            with gevent.Timeout(seconds, False):
                arrived = self.rfile.peek(1)
        finally:
            self.server.idle.discard(self)
        return bool(arrived)

    def _adopt(self, head: RequestHead, body: bytes) -> None:
        """Make ``environ`` of the request, and keep nothing else of it: a token must not live as long as a socket."""
        self.command, self.path, self.request_version = head.method, head.target, head.version
        self.close_connection = not head.keep_alive
        self.content_length = len(body)
        self.headers = headers_factory(BytesIO(b"\r\n"))
        for name, value in head.headers:
            self.headers[name] = value
        self.environ = self.get_environ()
        self.environ.pop("HTTP_TRANSFER_ENCODING", None)
        if head.body_bytes != 0:
            self.environ["CONTENT_LENGTH"] = str(len(body))
        self.wsgi_input = self.environ["wsgi.input"] = Input(BytesIO(body), len(body))
        self.environ["wsgi.input_terminated"] = True
        self.path = masked_text(head.target)
        self.requestline = f"{head.method} {self.path} {head.version}"
        self.headers = headers_factory(BytesIO(b"\r\n"))

    def _refuse(self, refusal: RequestRefused) -> None:
        """Say why and hang up; what else the client sent is thrown away unread."""
        self._report(refusal)
        body = _error_body(refusal)
        head = f"HTTP/1.1 {refusal.status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        # Closing with unread bytes in the buffer would make the kernel reset the connection, answer and all.
        with gevent.Timeout(LINGER_S, False):
            try:
                self.socket.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
                self.socket.shutdown(socket.SHUT_WR)
                while self.socket.recv(16_384):
                    pass
            except OSError:
                return  # the client did not wait for the answer

    def _report(self, refusal: RequestRefused) -> None:
        logger.info("request refused: %s (%s)", refusal.code, refusal.message)
        observer = self._extensions.get("observer")
        if observer is not None:
            observer.record(HttpRequestRefused(refusal.code))

    def upgrade_websocket(self) -> list[bytes] | None:
        """101 for a Socket.IO WebSocket that can work; a 4xx that names the mistake for any other upgrade."""
        if "websocket" not in self.environ.get("HTTP_UPGRADE", "").lower():
            return None
        try:
            self._check_upgrade()
        except RequestRefused as refusal:
            self._report(refusal)
            self.start_response(
                refusal.status,
                [
                    ("Content-Type", "application/json"),
                    ("Connection", "close"),
                    ("Sec-WebSocket-Version", WEBSOCKET_VERSION),
                ],
            )
            return [_error_body(refusal)]
        self.upgrade_connection()
        return None

    def _check_upgrade(self) -> None:
        environ = self.environ
        query = _query(environ["QUERY_STRING"])
        connection = {word.strip().lower() for word in environ.get("HTTP_CONNECTION", "").split(",")}
        if environ["PATH_INFO"] != SOCKET_PATH:
            raise RequestRefused("404 Not Found", "not_found", f"WebSockets are at {SOCKET_PATH}")
        if environ["REQUEST_METHOD"] != "GET" or self.request_version != "HTTP/1.1" or "upgrade" not in connection:
            raise _bad_upgrade("a WebSocket begins with GET, HTTP/1.1 and Connection: Upgrade")
        if environ["HTTP_UPGRADE"].lower() != "websocket":
            raise _bad_upgrade("the Upgrade header names something beside websocket")
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != WEBSOCKET_VERSION:
            raise RequestRefused("426 Upgrade Required", "websocket_version", "Sec-WebSocket-Version must be 13")
        if not _is_websocket_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
            raise _bad_upgrade("Sec-WebSocket-Key is not 16 bytes in base64")
        if query.get("EIO") != ["4"]:
            raise _bad_upgrade("the URL needs EIO=4: this server speaks Engine.IO 4 (Socket.IO 3 and newer)")
        if query.get("transport") != ["websocket"]:
            raise _bad_upgrade("the URL needs transport=websocket")
        if "sid" in query or "j" in query:
            raise _bad_upgrade("a session begins with its WebSocket: the URL takes neither sid nor j")
        if "admission" in self._extensions:
            self._admitted = self._extensions["admission"].enter(environ)
        environ[WAITED_KEY] = self._now_s() - self._waited_since_s

    def _leave(self) -> None:
        if self._admitted is not None:
            self._extensions["admission"].leave(self._admitted)
            self._admitted = None

    def take_over(self) -> TakenOver:
        """Give the client away; nothing here touches it again.

        So the greenlet, buffers and request of the handshake end with the handshake.
        """
        self.socket.settimeout(0)
        already_read = self.rfile.peek()
        self.rfile.close()
        self.server.take_over(self.socket)
        # The same descriptor, not a copy: closing the original would leave a dead number in the event loop's epoll
        # set, and the loop builds the whole set anew when such a number stirs.
        client = _socket.socket(fileno=self.socket.detach())
        client.setblocking(False)
        self.socket = None
        server, admitted = self.server, self._admitted
        admission: Any = self._extensions.get("admission")
        self._admitted = None

        def leave() -> None:
            server.gone()
            if admitted is not None:
                admission.leave(admitted)

        return TakenOver(client, already_read, leave)

    def run_websocket(self) -> None:
        # Not the library's: it keeps a table of clients by address, and all clients of a unix socket have the same.
        try:
            for _ in self.application(self.environ, lambda status, headers, exc_info=None: None):
                pass
        finally:
            if not self.websocket.closed:
                self.websocket.close()
            self.environ["wsgi.websocket"] = None
            self.websocket = None

    @property
    def logger(self) -> logging.Logger:
        return logger

    def log_request(self) -> None:
        logger.debug("%s", self.format_request())

    def log_error(self, msg: str, *args: object) -> None:
        logger.info(msg, *args)

    def _log_error(self, kind: Any, error: Any, traceback: Any) -> None:
        if not issubclass(kind, gevent.GreenletExit):
            logger.error("a request failed: %s", self.requestline, exc_info=(kind, error, traceback))


def _within(seconds: float, read: Callable[[], T]) -> T:
    with gevent.Timeout(seconds) as deadline:
        try:
            return read()
        except gevent.Timeout as expired:
            if expired is not deadline:
                raise
            raise RequestRefused("408 Request Timeout", "request_timeout", "the request came too slowly") from None


def _query(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise _bad_upgrade(f"the URL has more than {MAX_QUERY_FIELDS} parameters") from None


def _is_websocket_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _bad_upgrade(message: str) -> RequestRefused:
    return RequestRefused("400 Bad Request", "bad_upgrade", message)


def _error_body(refusal: RequestRefused) -> bytes:
    return orjson.dumps({"error": {"code": refusal.code, "message": refusal.message}})
