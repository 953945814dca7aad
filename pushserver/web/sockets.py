"""The Socket.IO layer: what becomes of each packet, and that nothing of a connection outlives it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import gevent

from pushserver.clock import Clock
from pushserver.errors import PayloadRefused, PushserverError, StoreUnavailable
from pushserver.events import CLIENT_EVENTS
from pushserver.limits import Limits
from pushserver.observers import ConnectionRefused, EventReceived, HttpRequestRefused, Observer
from pushserver.web import packets
from pushserver.web.attachments import MAX_ATTACHMENTS, Attachments
from pushserver.web.connection import Connection, ProtocolViolation
from pushserver.web.engine import Handshake
from pushserver.web.phones import Phone
from pushserver.web.sign_in import NAMESPACE, SignIn

logger = logging.getLogger(__name__)

#: Why a transport ended that nobody signed in on, where that is worth counting.
UNSIGNED_ENDS = {"never signed in": "never_signed_in", "protocol error": "protocol_error"}

#: Returns the body of the ack, and what is to follow it.
Handler = Callable[[Phone, Sequence[Any]], tuple[Any, Callable[[], None]]]


def nothing() -> None:
    """What follows an ack that says all there is."""


class Sockets:
    """All connections of this worker. ``handlers`` are set by the composition root."""

    handlers: dict[str, Handler]

    def __init__(self, sign_in: SignIn, limits: Limits, clock: Clock, observer: Observer) -> None:
        self._sign_in = sign_in
        self._limits = limits
        self._clock = clock
        self._observer = observer
        #: Ends when the worker leaves.
        self.accepting = True
        self._handshakes: dict[str, Handshake] = {}
        #: Announced attachments that have not all come, and when the transport ends without them.
        self._attachments: dict[str, tuple[Attachments, gevent.Greenlet]] = {}
        self.connections: dict[str, Connection] = {}

    @property
    def by_user(self) -> dict[int, set[Phone]]:
        """The signed-in phones of this worker."""
        return self._sign_in.by_user

    def kick(self, phone: Phone, code: str) -> None:
        """Tell a connected phone why, then close its transport."""
        self._sign_in.kick(phone, code)

    # --- Gate ------------------------------------------------------------------------------------------------

    def turned_away(self, code: str) -> None:
        """A request was refused before it became a connection."""
        self._observer.record(HttpRequestRefused(code))

    def opened(self, connection: Connection, handshake: Handshake) -> None:
        self.connections[connection.sid] = connection
        self._handshakes[connection.sid] = handshake

    def closed(self, connection: Connection, reason: str) -> None:
        """Take back everything the connection was given, whichever way it ended."""
        self.connections.pop(connection.sid, None)
        self._handshakes.pop(connection.sid, None)
        self._end_attachments(connection)
        if connection.phone is not None:
            self._sign_in.forget(connection.phone, reason)
        elif not connection.refused and reason in UNSIGNED_ENDS:
            self._observer.record(ConnectionRefused(connection.sid, UNSIGNED_ENDS[reason]))

    def message(self, connection: Connection, message: str | bytes) -> None:
        """One Engine.IO message: a Socket.IO packet or an attachment of one. Raises ProtocolViolation."""
        if connection.refused:
            raise ProtocolViolation
        if connection.phone is not None and connection.phone.kicked:
            # It has been told why; in the moment until its transport ends it gets nothing more.
            return
        if isinstance(message, bytes):
            self._attachment(connection, message)
            return
        if connection.sid in self._attachments:
            raise ProtocolViolation
        try:
            packet = packets.parse_packet(message)
        except packets.PacketMalformed as error:
            raise ProtocolViolation from error
        except packets.PayloadMalformed as refusal:
            self._bad_json(connection, refusal.ack_id)
            return
        if packet.kind == packets.CONNECT:
            self._connect(connection, packet)
        elif packet.kind == packets.DISCONNECT:
            if packet.namespace == NAMESPACE:
                connection.close(reason="client disconnect")
        elif packet.kind == packets.EVENT:
            self._event(self._signed_in(connection), packet)
        elif packet.kind == packets.BINARY_EVENT and 1 <= packet.attachments <= MAX_ATTACHMENTS:
            self._expect_attachments(connection, packet)
        elif packet.kind == packets.ACK:
            self._observer.record(EventReceived("other", "unasked_ack"))
        else:
            raise ProtocolViolation

    def _connect(self, connection: Connection, packet: packets.Packet) -> None:
        if packet.namespace != NAMESPACE:
            name = packet.namespace.encode()
            connection.send_message(b"44" + name + b',{"message":"Invalid namespace"}')
            if connection.phone is None:
                self._sign_in.close_refused(connection, "invalid_namespace")
            return
        if connection.phone is not None:
            connection.phone.emit_error("invalid_payload", "This connection is already open.")
            return
        handshake = self._handshakes.pop(connection.sid, Handshake(None, None))
        self._sign_in.sign_in(connection, packet.data, handshake)

    def _signed_in(self, connection: Connection) -> Phone:
        if connection.phone is None:
            raise ProtocolViolation
        phone: Phone = connection.phone
        return phone

    # --- binary events ---------------------------------------------------------------------------------------

    def _expect_attachments(self, connection: Connection, packet: packets.Packet) -> None:
        self._pace(self._signed_in(connection))
        if connection.closed:
            return
        attachments = Attachments(packet.attachments, self._limits.max_message_bytes, packet.ack_id)
        too_late = gevent.spawn_later(self._limits.attachments_s, connection.close, reason="protocol error")
        self._attachments[connection.sid] = attachments, too_late

    def _attachment(self, connection: Connection, data: bytes) -> None:
        attachments, _ = self._attachments.get(connection.sid, (None, None))
        if attachments is None or not attachments.take(len(data)):
            raise ProtocolViolation
        if attachments.complete:
            self._end_attachments(connection)
            refusal = PayloadRefused("Binary events are not taken.")
            self._answer_error(self._signed_in(connection), attachments.ack_id, "other", refusal)

    def _end_attachments(self, connection: Connection) -> None:
        _, too_late = self._attachments.pop(connection.sid, (None, None))
        if too_late is not None:
            too_late.kill(block=False)

    # --- events ----------------------------------------------------------------------------------------------

    def _bad_json(self, connection: Connection, ack_id: int | None) -> None:
        if connection.phone is None:
            # Before sign-in there is nobody to answer with an event.
            self._sign_in.refuse(connection, "token_invalid")
            return
        self._pace(connection.phone)
        self._answer_error(connection.phone, ack_id, "other", PayloadRefused("The payload is not usable JSON."))

    def _event(self, phone: Phone, packet: packets.Packet) -> None:
        self._pace(phone)
        data = packet.data
        if packet.namespace != NAMESPACE or not isinstance(data, list) or not data or not isinstance(data[0], str):
            self._answer_error(phone, packet.ack_id, "other", PayloadRefused("An event is [name, payload]."))
            return
        name = data[0]
        if name not in CLIENT_EVENTS:
            error = PayloadRefused(f"There is no event {name[:32]!r}.", code="unknown_event")
            self._answer_error(phone, packet.ack_id, "other", error)
            return
        try:
            answer, follow = self.handlers[name](phone, data[1:])
        except PushserverError as error:
            self._answer_error(phone, packet.ack_id, name, error)
            return
        except Exception:
            # One event that makes the program stumble must cost neither the connection nor the answer.
            logger.exception("event %s of connection %s failed", name, phone.connection.sid)
            self._answer_error(phone, packet.ack_id, name, StoreUnavailable("The server could not do that now."))
            return
        self._observer.record(EventReceived(name, "ok"))
        if packet.ack_id is not None:
            phone.connection.send_message(packets.encode_packet(packets.ACK, [answer], packet.ack_id))
        follow()

    def _answer_error(self, phone: Phone, ack_id: int | None, event: str, error: PushserverError) -> None:
        details = error.details if isinstance(error, PayloadRefused) else {}
        payload = phone.emit_error(error.code, error.message, retryable=error.code == "server_busy", **details)
        if ack_id is not None:
            phone.connection.send_message(packets.encode_packet(packets.ACK, [{"error": payload}], ack_id))
        self._observer.record(EventReceived(event, error.code))

    def _pace(self, phone: Phone) -> None:
        """Make a client that sends too fast wait: its reader stops, TCP pushes back, nobody else notices."""
        now_s = self._clock.monotonic_s()
        wait_s = phone.budget.spend(now_s)
        if wait_s <= 0:
            return
        if phone.budget.exhausted(now_s):
            phone.connection.close(reason="flood")
            raise ProtocolViolation
        if phone.budget.must_tell(now_s):
            text = f"Too many events; they are taken at {self._limits.event_rate} a second."
            phone.emit_error("rate_limited", text, retryable=True)
            self._observer.record(EventReceived("other", "rate_limited"))
        gevent.sleep(wait_s)
