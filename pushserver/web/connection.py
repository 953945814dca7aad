"""One phone's transport: an Engine.IO session over one WebSocket.

Writing is the outbox's, pinging the ticker's, and a greenlet reads only while there is something to read: an idle
phone costs none, instead of the library's three.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

import engineio
import gevent
from engineio import packet as engineio_packet

from pushserver import correlation
from pushserver.clock import Clock
from pushserver.limits import DEFAULTS, Limits
from pushserver.web.outbox import Outbox
from pushserver.web.pace import Pace
from pushserver.web.socket_input import SocketInput
from pushserver.web.websocket import (
    BINARY,
    INTERNAL_ERROR,
    NORMAL,
    POLICY_VIOLATION,
    PONG,
    FrameError,
    MessageReader,
    PeerClosed,
    close_frame,
    encode_frame,
    is_pong,
    text_frame,
)

logger = logging.getLogger(__name__)

#: Frames of any kind: so many at once (a message has at most 64), then so many a second.
FRAME_BURST = 100
FRAMES_PER_S = 20.0
#: How long a close frame may take to leave before the socket is shut down all the same.
CLOSE_GRACE_S = 0.5

_PING_FRAME = text_frame(b"2")


class ProtocolViolation(Exception):
    """The client sent what no well-behaved client sends; its transport is closed."""


class Connection(engineio.socket.Socket):
    """The library's socket class, with its queue, writer and pinger replaced.

    ``client`` is the plain, non-blocking socket and belongs to the connection from now on. ``on_message(connection,
    message)`` is called in a greenlet for each Engine.IO message, one at a time, and may raise ProtocolViolation;
    ``on_closed(connection, reason)`` once, whichever way it ended, and ``on_released()`` when the socket is closed.
    """

    def __init__(
        self,
        server: Any,
        sid: str,
        client: Any,
        clock: Clock,
        on_message: Callable[[Connection, str | bytes], None],
        on_closed: Callable[[Connection, str], None],
        on_released: Callable[[], None] = lambda: None,
        limits: Limits = DEFAULTS,
    ) -> None:
        # Not the base class's: it makes a queue per connection and starts a greenlet per ping.
        self.server = server
        self.sid = sid
        self.session: dict[str, Any] = {}
        self.connected = self.upgraded = True
        self.upgrading = self.closing = self.closed = False
        self.opened_at_s = self.ponged_at_s = clock.monotonic_s()
        self.pinged_at_s: float | None = None
        #: Of the last ping, until it has been counted.
        self.round_trip_s: float | None = None
        #: When the ticker has something to do here again, monotonic; 0 asks it to look at once.
        self.look_again_s = 0.0
        #: Set by the Socket.IO layer: the signed-in phone behind this transport.
        self.phone: Any = None
        self.refused = False
        self._clock = clock
        self._frames = Pace(FRAME_BURST, FRAMES_PER_S, self.opened_at_s)
        self._max_message_bytes = limits.max_message_bytes
        self._on_message = on_message
        self._on_closed = on_closed
        self._on_released = on_released
        self._socket = client
        self._input = SocketInput(client)
        self._reading = self._released = False
        self.outbox = Outbox(client, clock, self._socket_died, limits.max_waiting_bytes)

    def send(self, pkt: Any) -> None:
        """Called by the library with an Engine.IO packet."""
        encoded = pkt.encode()
        if isinstance(encoded, bytes):
            self.outbox.send(encode_frame(BINARY, encoded))
        else:
            self.outbox.send(text_frame(encoded.encode()))

    def send_message(self, message: bytes) -> None:
        """Send a complete Engine.IO text message."""
        self.outbox.send(text_frame(message))

    def ping(self) -> None:
        self.pinged_at_s = self._clock.monotonic_s()
        self.outbox.send(_PING_FRAME)

    def start(self, already_read: bytes) -> None:
        """Read from now on; ``already_read`` came behind the upgrade request."""
        if already_read:
            self._input.put(already_read)
            self._read_on()
        else:
            self._input.when_readable(self._arrived)

    def _arrived(self) -> None:
        """Something came (called by the event loop); by far most often the answer to a ping."""
        try:
            data = self._input.receive()
        except OSError:
            data = b""
        if data is None:
            return
        if is_pong(data) and self._frames.spend(self._clock.monotonic_s()) <= 0:
            self._ponged()
            return
        self._input.pause()
        if data:
            self._input.put(data)
        self._read_on()

    def _read_on(self) -> None:
        self._reading = True
        gevent.spawn(self._read)

    def _read(self) -> None:
        """Handle messages until either side ends the connection, or until nothing more has come."""
        user = {} if self.phone is None else {"user": self.phone.user_id}
        correlation.bind(connection=self.sid, **user)
        reader = MessageReader(
            self._input.read,
            lambda payload: self.outbox.send(encode_frame(PONG, payload)),
            self._frame_arrived,
            self._max_message_bytes,
        )
        reason, code = "transport close", NORMAL
        try:
            while not self.closed:
                self._receive(reader.next_message())
                if self._input.is_empty and not self.closed:
                    self._reading = False
                    self._input.when_readable(self._arrived)
                    return
        except PeerClosed as end:
            code = end.close_code or NORMAL
        except FrameError as error:
            reason, code = "protocol error", error.close_code
        except ProtocolViolation:
            reason, code = "protocol error", POLICY_VIOLATION
        except OSError:
            reason = "transport error"
        except Exception:
            # Whatever it was, the phone must not stay behind as a ghost that is still served.
            logger.exception("connection %s met something unforeseen", self.sid)
            reason, code = "internal error", INTERNAL_ERROR
        self._reading = False
        self._end(reason)
        self._shut_down(close_frame(code))

    def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """End the connection from our side: last frames go out, then the socket is shut down. Never blocks."""
        if self.closed:
            return
        self._end(reason or "server disconnect")
        gevent.spawn(self._shut_down, close_frame(NORMAL))

    def check_ping_timeout(self) -> bool:
        """The ticker looks after that."""
        return not self.closed

    def _ponged(self) -> None:
        self.ponged_at_s = self._clock.monotonic_s()
        if self.pinged_at_s is not None:
            self.round_trip_s = self.ponged_at_s - self.pinged_at_s
            self.pinged_at_s = None

    def _frame_arrived(self) -> None:
        """Frames of any kind are paced, signed in or not: a flood waits in its own socket, and nobody else notices."""
        now_s = self._clock.monotonic_s()
        wait_s = self._frames.spend(now_s)
        if wait_s > 0:
            if self._frames.exhausted(now_s):
                raise FrameError(POLICY_VIOLATION, "too many frames")
            gevent.sleep(wait_s)

    def _receive(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._on_message(self, message)
            return
        kind = message[:1]
        if kind == "4":
            self._on_message(self, message[1:])
        elif kind == "3":
            self._ponged()
        elif kind == "1":
            raise PeerClosed
        else:
            raise ProtocolViolation

    def _socket_died(self, reason: str) -> None:
        # May be the event loop that calls: ending runs handlers, so it gets a greenlet of its own.
        gevent.spawn(self.close, reason=reason)

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closing = self.closed = True
        if not self._reading:
            self._input.pause()
        self._on_closed(self, reason)

    def _shut_down(self, last_frame: bytes) -> None:
        """Let the last frames leave, then make sure that reader, socket and slot are free."""
        self.outbox.finish(last_frame)
        deadline = self._clock.monotonic_s() + CLOSE_GRACE_S
        while self.outbox.open and not self.outbox.idle and self._clock.monotonic_s() < deadline:
            gevent.sleep(0.02)
        self.outbox.close()
        if self._released:
            return
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._reading:
            # Else the reader sees the end of the stream and comes here itself.
            self._released = True
            self._input.close()
            self._socket.close()
            self._on_released()


def open_packet(sid: str, ping_interval_s: int, ping_timeout_s: int, max_payload: int) -> Any:
    """Engine.IO's first packet: what the client must know of us."""
    return engineio_packet.Packet(
        engineio_packet.OPEN,
        {
            "sid": sid,
            "upgrades": [],
            "pingTimeout": ping_timeout_s * 1000,
            "pingInterval": ping_interval_s * 1000,
            "maxPayload": max_payload,
        },
    )
