"""One WebSocket to the exchange, on a socket that was connected before: bounded, and never blocking to send.

websocket-client does the handshake and the frames. What it leaves open is closed here: it follows redirects past a
proxy, collects a message of any size, and waits in ``send`` for a peer that does not read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import gevent
import orjson
import websocket

logger = logging.getLogger(__name__)

#: Far more than any message of an account with a thousand positions.
MAX_MESSAGE_BYTES = 1_000_000
#: What is read from the socket at once; it is kept only while a message is incomplete.
CHUNK_BYTES = 4096
#: For everything from the first packet to the end of the handshake.
OPEN_TIMEOUT_S = 10.0

#: ``(host, port, tls, timeout_s)`` to a connected socket; raises OSError.
Connect = Callable[[str, int, bool, float], Any]


class Loss(StrEnum):
    """Why a stream ended; a label of metrics.

    UNREACHABLE: no connection. HANDSHAKE: no WebSocket. AUTH, SUBSCRIPTION: refused. UNANSWERED: neither confirmed
    nor refused in time. SILENT: nothing heard, pings included. CLOSED: by the exchange. BROKEN: nonsense was received.
    STOPPED: by us.
    """

    UNREACHABLE = "unreachable"
    HANDSHAKE = "handshake"
    AUTH = "auth"
    SUBSCRIPTION = "subscription"
    UNANSWERED = "unanswered"
    SILENT = "silent"
    CLOSED = "closed"
    BROKEN = "broken"
    STOPPED = "stopped"


class StreamLost(Exception):
    """The stream is over. ``detail`` never holds what was sent."""

    def __init__(self, loss: Loss, detail: str = "") -> None:
        super().__init__(f"{loss.value}: {detail}" if detail else loss.value)
        self.loss = loss


class StreamSocket:
    """All methods but ``close`` raise StreamLost, and nothing else, when the stream is over."""

    def __init__(self, url: str, connect: Connect) -> None:
        """Connect and shake hands, within ``OPEN_TIMEOUT_S``."""
        parts = urlsplit(url)
        tls = parts.scheme == "wss"
        port = parts.port or (443 if tls else 80)
        self._guarded: _GuardedSocket | None = None
        self._websocket = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
        try:
            with gevent.Timeout(OPEN_TIMEOUT_S, StreamLost(Loss.UNREACHABLE, "it took too long")):
                self._open(url, parts.hostname or "", port, tls, connect)
        except BaseException:
            self.close()
            raise

    def _open(self, url: str, host: str, port: int, tls: bool, connect: Connect) -> None:
        try:
            self._guarded = _GuardedSocket(connect(host, port, tls, OPEN_TIMEOUT_S))
        except OSError as error:
            raise StreamLost(Loss.UNREACHABLE, type(error).__name__) from error
        try:
            # A redirect would lead past our proxy, and has no business here.
            self._websocket.connect(url, socket=self._guarded, redirect_limit=0, suppress_origin=True)
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise StreamLost(Loss.HANDSHAKE, type(error).__name__) from error
        self._guarded.settimeout(None)
        # Its headers would stay in memory as long as the stream does.
        self._websocket.handshake_response = None

    def send(self, message: Mapping[str, object]) -> None:
        """Send now, or not at all: a peer that has not read for so long that buffers are full is lost.

        Whoever waits in ``receive`` is told, too: half a frame may have been sent.
        """
        guarded = self._guarded
        if guarded is None:
            raise StreamLost(Loss.CLOSED)
        guarded.settimeout(0.0)
        try:
            self._websocket.send(orjson.dumps(message).decode())
        except (websocket.WebSocketException, OSError) as error:
            self.close()
            raise StreamLost(Loss.CLOSED, type(error).__name__) from error
        guarded.settimeout(None)

    def receive(self) -> bytes:
        """Wait for the next message; pings of the protocol are answered on the way."""
        guarded = self._guarded
        if guarded is None:
            raise StreamLost(Loss.CLOSED)
        try:
            guarded.next_message()
            opcode, frame = self._websocket.recv_data_frame()
        except (websocket.WebSocketProtocolException, websocket.WebSocketPayloadException) as error:
            raise StreamLost(Loss.BROKEN, type(error).__name__) from error
        except (websocket.WebSocketException, OSError) as error:
            raise StreamLost(Loss.CLOSED, type(error).__name__) from error
        except _TooLong as error:
            raise StreamLost(Loss.BROKEN, "a message is too long") from error
        except Exception as error:
            if self._guarded is None:
                # A TLS socket that is closed under its reader raises all kinds of things.
                raise StreamLost(Loss.CLOSED) from None
            # The library is not written for hostile peers; whatever it stumbles over ends this stream alone.
            logger.exception("a stream's frame could not be read")
            raise StreamLost(Loss.BROKEN, type(error).__name__) from error
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise StreamLost(Loss.CLOSED, "by the exchange")
        return bytes(frame.data)

    def close(self) -> None:
        """End it at once; whoever waits in ``receive`` gets StreamLost. Harmless when it is over."""
        guarded, self._guarded = self._guarded, None
        if guarded is not None:
            guarded.close()


class _TooLong(Exception):
    pass


class _GuardedSocket:
    """What websocket-client needs of a socket: reads in chunks, and no more than one message's worth."""

    __slots__ = ("_buffer", "_closed", "_read", "_socket")

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._buffer = b""
        self._read = 0
        self._closed = False

    def next_message(self) -> None:
        self._read = 0

    def recv(self, size: int) -> bytes:
        if not self._buffer:
            self._buffer = self._socket.recv(max(size, CHUNK_BYTES))
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        self._read += len(found)
        if self._read > MAX_MESSAGE_BYTES:
            raise _TooLong
        return found

    def send(self, data: bytes) -> int:
        sent = int(self._socket.send(data))
        if sent == 0:
            # What a TLS socket answers instead of raising; the library would try again for ever.
            raise BlockingIOError("the peer does not read")
        return sent

    def gettimeout(self) -> float | None:
        timeout: float | None = self._socket.gettimeout()
        return timeout

    def settimeout(self, timeout_s: float | None) -> None:
        if not self._closed:
            self._socket.settimeout(timeout_s)

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._socket.close()
