"""Who may connect, what a signed-in phone is given, and that all of it is taken back at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import gevent

from pushserver import correlation
from pushserver.clock import Clock
from pushserver.errors import TokenRefused
from pushserver.events import utc_instant
from pushserver.limits import Limits
from pushserver.model import DataType
from pushserver.observers import ConnectionClosed, ConnectionOpened, ConnectionRefused, Observer
from pushserver.tokens import Claims
from pushserver.web import packets
from pushserver.web.connection import Connection
from pushserver.web.deliveries import Deliveries
from pushserver.web.engine import Handshake
from pushserver.web.payloads import carried_tokens
from pushserver.web.phones import EventBudget, Phone

logger = logging.getLogger(__name__)

NAMESPACE = "/"
#: A refused or kicked client gets its last packet, then the transport ends.
CLOSE_AFTER_REFUSAL_S = 0.1

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


class Verifier(Protocol):
    """Decides which of the carried tokens counts; raises TokenRefused."""

    def pick(self, carriers: Sequence[tuple[str, object]]) -> tuple[Claims, str]: ...


class AccessCheck(Protocol):
    """Raises TokenRefused when the token or its user was shut out, or when that cannot be known."""

    def check(self, claims: Claims) -> None: ...


class UserTally(Protocol):
    """Counts connections per user over all workers of the host."""

    def enter_user(self, user_id: int, most: int) -> bool: ...

    def leave_user(self, user_id: int) -> None: ...


class SignIn:
    """``manager`` keeps the ordinary rooms; ``resume`` subscribes to what the phone's auth payload names and returns
    what follows its ``connected``; ``greet`` is given each phone that was told that. All are set by the composition
    root."""

    manager: Any
    resume: Callable[[Phone, object], Callable[[], None]]
    greet: Callable[[Phone], None]

    def __init__(
        self,
        verifier: Verifier,
        access: AccessCheck,
        tally: UserTally,
        deliveries: Deliveries,
        limits: Limits,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._verifier = verifier
        self._access = access
        self._tally = tally
        self._deliveries = deliveries
        self._limits = limits
        self._clock = clock
        self._observer = observer
        self.by_user: dict[int, set[Phone]] = {}

    def sign_in(self, connection: Connection, auth: object, handshake: Handshake) -> None:
        """Answer CONNECT: with ``connected``, or with a refusal that ends the transport."""
        try:
            claims, carrier = self._identify(auth, handshake)
            if connection.closed:
                return
            phone = self._registered(connection, claims)
        except TokenRefused as refusal:
            self.refuse(connection, refusal.code)
            return
        except Exception:
            # Silence would leave a half-open client; whatever happened, it is refused, cleaned up and counted.
            logger.exception("connection %s could not be opened", connection.sid)
            self.refuse(connection, "server_busy")
            return
        connection.send_message(packets.encode_packet(packets.CONNECT, {"sid": phone.sid}))
        correlation.bind(connection=connection.sid, user=claims.user_id)
        self._observer.record(ConnectionOpened(connection.sid, claims.user_id, carrier))
        follow = self.resume(phone, auth)
        phone.emit("connected", connected_payload(phone))
        follow()
        self.greet(phone)

    def forget(self, phone: Phone, reason: str) -> None:
        """Take back everything the phone was given."""
        phone.connection.phone = None
        self._tally.leave_user(phone.user_id)
        self._deliveries.unsubscribe(phone, list(DataType))
        self.manager.disconnect(phone.sid, NAMESPACE, ignore_queue=True)
        phones = self.by_user.get(phone.user_id, set())
        phones.discard(phone)
        if not phones:
            self.by_user.pop(phone.user_id, None)
        duration_s = self._clock.monotonic_s() - phone.opened_at_s
        self._observer.record(ConnectionClosed(phone.connection.sid, phone.user_id, reason, duration_s))

    def refuse(self, connection: Connection, code: str) -> None:
        """Answer ``connect_error``, then close the transport (clients retry only a closed transport)."""
        message = REFUSALS.get(code, REFUSALS["server_busy"])
        body = {"message": code, "data": {"code": code, "message": message}}
        connection.send_message(packets.encode_packet(packets.CONNECT_ERROR, body))
        self.close_refused(connection, code)

    def close_refused(self, connection: Connection, code: str) -> None:
        """Count a refusal that was told, and close the transport as soon as it has left."""
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

    def _identify(self, auth: object, handshake: Handshake) -> tuple[Claims, str]:
        """Whose connection it is and where the token was. Raises TokenRefused."""
        carriers = carried_tokens(auth, handshake.authorization, handshake.query_token)
        try:
            with gevent.Timeout(self._limits.connect_s):
                claims, carrier = self._verifier.pick(carriers)
                self._access.check(claims)
                return claims, carrier
        except gevent.Timeout:
            raise TokenRefused(code="server_busy") from None

    def _registered(self, connection: Connection, claims: Claims) -> Phone:
        """The phone with everything that ``forget`` takes back. Nothing here waits. Raises TokenRefused."""
        if not self._tally.enter_user(claims.user_id, self._limits.max_connections_per_user):
            raise TokenRefused(code="too_many_connections")
        sid = None
        try:
            sid = self.manager.pre_connect(connection.sid, NAMESPACE)
            self.manager.connect(sid, NAMESPACE)
        except BaseException:
            self._tally.leave_user(claims.user_id)
            if sid is not None:
                self.manager.disconnect(sid, NAMESPACE, ignore_queue=True)
            raise
        now_s = self._clock.monotonic_s()
        budget = EventBudget(self._limits.event_burst, self._limits.event_rate, now_s)
        phone = Phone(sid, connection, claims, now_s, budget)
        connection.phone = phone
        connection.look_again_s = 0.0  # its token may expire before it would be looked at
        self.by_user.setdefault(claims.user_id, set()).add(phone)
        return phone


def connected_payload(phone: Phone) -> dict[str, object]:
    """The ``connected`` event, also the answer to ``authenticate``."""
    return {
        "user_id": phone.user_id,
        "message": "Connected. Subscribe with subscribe_trading.",
        "types": [data_type.value for data_type in DataType],
        "subscribed": phone.types(),
        "token_expires_at": utc_instant(phone.claims.expires_at_s * 1000),
    }
