"""The Socket.IO layer: who may connect, what becomes of each packet, and that all of it is taken back at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent

from pushserver.clock import Clock
from pushserver.errors import PayloadRefused, PushserverError, StoreUnavailable, TokenRefused
from pushserver.events import CLIENT_EVENTS, utc_instant
from pushserver.model import DataType
from pushserver.observers import ConnectionClosed, ConnectionOpened, ConnectionRefused, EventReceived, Observer
from pushserver.tokens import Claims
from pushserver.web import packets
from pushserver.web.connection import Connection, ProtocolViolation
from pushserver.web.deliveries import Deliveries
from pushserver.web.engine import Handshake
from pushserver.web.payloads import carried_tokens
from pushserver.web.phones import EventBudget, Phone

logger = logging.getLogger(__name__)

NAMESPACE = "/"
#: Open transports of one worker, and of one user on one worker.
MAX_CONNECTIONS = 9_000
MAX_CONNECTIONS_PER_USER = 20
#: A refused or kicked client gets its last packet, then the transport ends.
CLOSE_AFTER_REFUSAL_S = 0.1
#: Binary attachments that are read (and refused with an ``error``); more closes the transport.
MAX_ATTACHMENTS = 2

#: What a person reads when a connection is refused.
REFUSALS = {
    "token_missing": "No token was sent. Log in and send it as auth payload, header or URL parameter.",
    "token_invalid": "The token cannot be accepted. Log in again.",
    "token_expired": "The token has expired. Log in again.",
    "token_revoked": "The token was revoked. Log in again.",
    "user_disabled": "This user is disabled.",
    "too_many_connections": "This user has too many open connections.",
    "server_busy": "The server cannot take the connection now. Try again shortly.",
}

#: Returns the body of the ack, and what is to follow it.
Handler = Callable[[Phone, Sequence[Any]], tuple[Any, Callable[[], None]]]


def nothing() -> None:
    """What follows an ack that says all there is."""


class Verifier(Protocol):
    """Decides which of the carried tokens counts; raises TokenRefused."""

    def pick(self, carriers: Sequence[tuple[str, object]]) -> tuple[Claims, str]: ...


class AccessCheck(Protocol):
    """Raises TokenRefused when the token or its user was shut out, or when that cannot be known."""

    def check(self, claims: Claims) -> None: ...


class Sockets:
    """All connections of this worker. ``manager`` and ``handlers`` are set by the composition root."""

    manager: Any
    handlers: dict[str, Handler]

    def __init__(
        self, verifier: Verifier, access: AccessCheck, deliveries: Deliveries, clock: Clock, observer: Observer
    ) -> None:
        self._verifier = verifier
        self._access = access
        self._deliveries = deliveries
        self._clock = clock
        self._observer = observer
        #: Ends when the worker leaves.
        self.accepting = True
        self._handshakes: dict[str, Handshake] = {}
        self.connections: dict[str, Connection] = {}
        self.by_user: dict[int, set[Phone]] = {}

    # --- Gate ------------------------------------------------------------------------------------------------

    def admit(self) -> bool:
        """Whether one more transport is taken."""
        return self.accepting and len(self.connections) < MAX_CONNECTIONS

    def opened(self, connection: Connection, handshake: Handshake) -> None:
        self.connections[connection.sid] = connection
        self._handshakes[connection.sid] = handshake

    def closed(self, connection: Connection, reason: str) -> None:
        """Take back everything the connection was given, whichever way it ended."""
        self.connections.pop(connection.sid, None)
        self._handshakes.pop(connection.sid, None)
        phone: Phone | None = connection.phone
        if phone is None:
            return
        connection.phone = None
        self._deliveries.unsubscribe(phone, list(DataType))
        self.manager.disconnect(phone.sid, NAMESPACE, ignore_queue=True)
        phones = self.by_user.get(phone.user_id, set())
        phones.discard(phone)
        if not phones:
            self.by_user.pop(phone.user_id, None)
        duration_s = self._clock.monotonic_s() - phone.opened_at_s
        self._observer.record(ConnectionClosed(connection.sid, phone.user_id, reason, duration_s))

    def message(self, connection: Connection, message: str | bytes) -> None:
        """One Engine.IO message: a Socket.IO packet or an attachment of one. Raises ProtocolViolation."""
        if connection.refused:
            raise ProtocolViolation
        if isinstance(message, bytes):
            self._attachment(connection, message)
            return
        if connection.attachments_due:
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
            connection.close(reason="client disconnect")
        elif packet.kind == packets.EVENT:
            self._event(self._signed_in(connection), packet)
        elif packet.kind == packets.BINARY_EVENT and 1 <= packet.attachments <= MAX_ATTACHMENTS:
            self._signed_in(connection)
            connection.attachments_due = packet.attachments
        elif packet.kind == packets.ACK:
            self._observer.record(EventReceived("other", "unasked_ack"))
        else:
            raise ProtocolViolation

    # --- connect ---------------------------------------------------------------------------------------------

    def _connect(self, connection: Connection, packet: packets.Packet) -> None:
        if packet.namespace != NAMESPACE:
            name = packet.namespace.encode()
            connection.send_message(b"44" + name + b',{"message":"Invalid namespace"}')
            if connection.phone is None:
                self._close_refused(connection, "invalid_namespace")
            return
        if connection.phone is not None:
            connection.phone.emit_error("invalid_payload", "This connection is already open.")
            return
        try:
            self._sign_in(connection, packet.data)
        except TokenRefused as refusal:
            self.refuse(connection, refusal.code)
        except Exception:
            # Silence would leave a half-open client; whatever happened, it is refused, cleaned up and counted.
            logger.exception("connection %s could not be opened", connection.sid)
            self.refuse(connection, "server_busy")

    def _sign_in(self, connection: Connection, auth: object) -> None:
        handshake = self._handshakes.pop(connection.sid, Handshake(None, None))
        carriers = carried_tokens(auth, handshake.authorization, handshake.query_token)
        claims, carrier = self._verifier.pick(carriers)
        self._access.check(claims)
        if connection.closed:
            return
        phones = self.by_user.setdefault(claims.user_id, set())
        if len(phones) >= MAX_CONNECTIONS_PER_USER:
            raise TokenRefused(code="too_many_connections")
        now_s = self._clock.monotonic_s()
        sid = self.manager.pre_connect(connection.sid, NAMESPACE)
        self.manager.connect(sid, NAMESPACE)
        phone = Phone(sid, connection, claims, now_s, EventBudget(now_s))
        connection.phone = phone
        phones.add(phone)
        connection.send_message(packets.encode_packet(packets.CONNECT, {"sid": sid}))
        phone.emit("connected", connected_payload(phone))
        self._observer.record(ConnectionOpened(connection.sid, claims.user_id, carrier))

    def refuse(self, connection: Connection, code: str) -> None:
        """Answer ``connect_error``, then close the transport (clients retry only a closed transport)."""
        message = REFUSALS.get(code, REFUSALS["server_busy"])
        body = {"message": code, "data": {"code": code, "message": message}}
        connection.send_message(packets.encode_packet(packets.CONNECT_ERROR, body))
        self._close_refused(connection, code)

    def _close_refused(self, connection: Connection, code: str) -> None:
        connection.refused = True
        self._observer.record(ConnectionRefused(connection.sid, code))
        gevent.spawn_later(CLOSE_AFTER_REFUSAL_S, connection.close, reason="refused")

    def kick(self, phone: Phone, code: str) -> None:
        """Tell a connected phone why, then close its transport."""
        if phone.kicked:
            return
        phone.kicked = True
        phone.emit_error(code, REFUSALS.get(code, code))
        self._deliveries.unsubscribe(phone, list(DataType))
        gevent.spawn_later(CLOSE_AFTER_REFUSAL_S, phone.connection.close, reason=code)

    # --- events ----------------------------------------------------------------------------------------------

    def _signed_in(self, connection: Connection) -> Phone:
        if connection.phone is None:
            raise ProtocolViolation
        phone: Phone = connection.phone
        return phone

    def _attachment(self, connection: Connection, _message: bytes) -> None:
        if not connection.attachments_due:
            raise ProtocolViolation
        connection.attachments_due -= 1
        if not connection.attachments_due:
            phone = self._signed_in(connection)
            self._answer_error(phone, None, "other", PayloadRefused("Binary events are not taken."))

    def _bad_json(self, connection: Connection, ack_id: int | None) -> None:
        if connection.phone is None:
            # Before sign-in there is nobody to answer with an event.
            self.refuse(connection, "token_invalid")
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
            raise ProtocolViolation
        if phone.budget.must_tell(now_s):
            phone.emit_error("rate_limited", "Too many events; they are taken at 5 a second.", retryable=True)
            self._observer.record(EventReceived("other", "rate_limited"))
        gevent.sleep(wait_s)


def connected_payload(phone: Phone) -> dict[str, object]:
    """The ``connected`` event, also the answer to ``authenticate``."""
    return {
        "user_id": phone.user_id,
        "message": "Connected. Subscribe with subscribe_trading.",
        "types": [data_type.value for data_type in DataType],
        "subscribed": phone.types(),
        "token_expires_at": utc_instant(phone.claims.expires_at_s * 1000),
    }
