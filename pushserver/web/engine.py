"""Fits our connections into the Socket.IO libraries: what they would do per client with queues and greenlets.

``EngineServer`` accepts WebSockets and nothing else, ``SocketServer`` is the ``socketio.Server`` on top whose
incoming messages go to one ``Gate``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import engineio
import socketio

from pushserver.clock import Clock
from pushserver.limits import DEFAULTS, Limits
from pushserver.web.connection import Connection, open_packet

PING_INTERVAL_S = 25
PING_TIMEOUT_S = 20
#: Where the request handler leaves how many seconds the client took until its upgrade was answered.
WAITED_KEY = "pushserver.waited_s"

_NOT_WEBSOCKET = (
    b'{"error":{"code":"transport_not_supported","message":"This server speaks Socket.IO over WebSocket only,'
    b" because its workers share no sessions. Connect with transports: ['websocket'] (Swift: forceWebsockets)." + b'"}}'
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What is kept of the request that opened a connection, until its token was checked."""

    authorization: str | None
    query_token: str | None


class Gate(Protocol):
    """Who decides about connections and their messages."""

    def opened(self, connection: Connection, handshake: Handshake) -> None: ...

    def message(self, connection: Connection, message: str | bytes) -> None: ...

    def closed(self, connection: Connection, reason: str) -> None: ...

    def turned_away(self, code: str) -> None: ...


class EngineServer(engineio.Server):
    """Engine.IO 4 over WebSocket; sessions are Connections, kept in ``sockets`` as the library does."""

    gate: Gate
    clock: Clock
    limits: Limits
    #: Origins that may connect beside our own pages'.
    other_origins: tuple[str, ...] = ()

    def handle_request(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        query = parse_qs(environ.get("QUERY_STRING", ""))
        if query.get("transport", ["polling"])[-1] != "websocket" or "wsgi.websocket" not in environ:
            self.gate.turned_away("transport_not_supported")
            return _refuse(start_response, "400 Bad Request", _NOT_WEBSOCKET)
        allowed = self._cors_allowed_origins(environ)
        if allowed is not None and "HTTP_ORIGIN" in environ and environ["HTTP_ORIGIN"] not in allowed:
            # The upgrade is answered already: the socket just ends, before any packet.
            self.gate.turned_away("origin_not_allowed")
            return []
        response: Iterable[bytes] = super().handle_request(environ, start_response)
        return response

    def _cors_allowed_origins(self, environ: dict[str, Any]) -> list[str] | None:
        """The library's same-origin rule and the configured origins together; None = every origin."""
        own: list[str] | None = super()._cors_allowed_origins(environ)
        return None if own is None else [*own, *self.other_origins]

    def _handle_connect(
        self, environ: dict[str, Any], start_response: Any, transport: str, jsonp_index: int | None = None
    ) -> list[bytes]:
        websocket = environ["wsgi.websocket"]
        handshake = _handshake(environ)
        for request in (environ, websocket.environ):
            _forget_token(request)
        # From here on the connection alone writes; the library's object would send a close frame of its own.
        websocket.closed = True
        sid = self.generate_id()
        client = websocket.handler.take_over()
        connection = Connection(
            self, sid, client.socket, self.clock, self.gate.message, self._closed, client.leave, self.limits
        )
        connection.opened_at_s -= environ.get(WAITED_KEY, 0.0)
        self.sockets[sid] = connection
        connection.send(open_packet(sid, PING_INTERVAL_S, PING_TIMEOUT_S, self.limits.max_message_bytes))
        self.gate.opened(connection, handshake)
        connection.start(client.already_read)
        return []

    def _closed(self, connection: Connection, reason: str) -> None:
        self.sockets.pop(connection.sid, None)
        self.gate.closed(connection, reason)


class SocketServer(socketio.Server):
    """The library's server: rooms, emits and the manager are its, the wire is ours."""

    def __init__(
        self,
        gate: Gate,
        clock: Clock,
        manager: Any,
        cors_origins: tuple[str, ...] | None,
        limits: Limits = DEFAULTS,
    ) -> None:
        super().__init__(
            client_manager=manager,
            async_mode="gevent",
            # Loggers of the library's own choice would get handlers that write past our log format.
            logger=logging.getLogger("socketio"),
            engineio_logger=logging.getLogger("engineio"),
            async_handlers=False,
            always_connect=False,
            # None = same origin. An empty list would switch the check off.
            cors_allowed_origins="*" if cors_origins and "*" in cors_origins else None,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            max_http_buffer_size=limits.max_message_bytes,
            transports=["websocket"],
            monitor_clients=False,
            http_compression=False,
        )
        self.eio.gate = gate
        self.eio.clock = clock
        self.eio.limits = limits
        self.eio.other_origins = cors_origins or ()
        self.manager_initialized = True

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer


def _handshake(environ: dict[str, Any]) -> Handshake:
    tokens = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=100).get("token")
    return Handshake(environ.get("HTTP_AUTHORIZATION"), tokens[0] if tokens else None)


def _forget_token(environ: dict[str, Any] | None) -> None:
    """The request stays referenced for as long as the socket lives; its token must not."""
    if environ:
        for name in ("QUERY_STRING", "RAW_URI", "REQUEST_URI", "HTTP_AUTHORIZATION"):
            environ.pop(name, None)


def _refuse(start_response: Callable[..., Any], status: str, body: bytes) -> list[bytes]:
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
