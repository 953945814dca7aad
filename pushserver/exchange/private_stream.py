"""One user's private stream: it tells that something in the account changed, and when it cannot tell any more.

A stream is used once: it connects, authenticates, subscribes, and lives until it is lost. Whoever wants another
makes a new one; nothing here tries again.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections import deque
from collections.abc import Callable
from enum import StrEnum

from pushserver.clock import Clock
from pushserver.exchange.stream_messages import Happening, Message, Oddity, Pong, Reply, Topic, read
from pushserver.exchange.stream_socket import Connect, Loss, StreamLost, StreamSocket
from pushserver.model import Credentials
from pushserver.observers import Observer
from pushserver.stream_records import StreamOddity

logger = logging.getLogger(__name__)

PING_EVERY_S = 20.0
#: Of all messages, answers to pings included.
SILENT_AFTER_S = 30.0
#: For each of authentication and subscription.
ANSWER_WITHIN_S = 10.0
#: How far ahead an authentication is dated: a clock a few seconds off must not spoil it.
AUTH_VALID_MS = 10_000
#: The exchange repeats itself at most a few messages later.
REMEMBERED_IDS = 32


class StreamState(StrEnum):
    """A label of metrics."""

    CONNECTING = "connecting"
    AUTHENTICATING = "authenticating"
    SUBSCRIBING = "subscribing"
    LIVE = "live"
    OVER = "over"


class PrivateStream:
    """``run`` it once, in a greenlet of its own, and have ``tick`` called about once a second from another.

    ``on_live()`` is called when the stream is subscribed; ``on_happening(happening)`` for each change from then on, in
    the order of arrival and never twice for the same message. Both must not block. ``server_now_ms`` gives the
    exchange's time.
    """

    def __init__(
        self,
        url: str,
        connect: Connect,
        credentials: Credentials,
        server_now_ms: Callable[[], int],
        on_live: Callable[[], None],
        on_happening: Callable[[Happening], None],
        clock: Clock,
        observer: Observer,
    ) -> None:
        self._url = url
        self._connect = connect
        self._credentials = credentials
        self._server_now_ms = server_now_ms
        self._on_live = on_live
        self._on_happening = on_happening
        self._clock = clock
        self._observer = observer
        self._socket: StreamSocket | None = None
        self._state = StreamState.CONNECTING
        self._loss: Loss | None = None
        self._since_s = self._heard_s = self._pinged_s = clock.monotonic_s()
        self._recent: deque[str] = deque(maxlen=REMEMBERED_IDS)
        #: What the exchange said when it refused us.
        self.refusal = ""

    @property
    def state(self) -> StreamState:
        return self._state

    @property
    def key_version(self) -> int:
        return self._credentials.version

    def run(self) -> Loss:
        """Until the stream is lost; never raises what the exchange is to blame for."""
        try:
            if self._loss is None:
                self._socket = StreamSocket(self._url, self._connect)
                self._authenticate(self._socket)
            while self._loss is None:
                self._take(read(self._socket.receive()) if self._socket else Oddity.MALFORMED)
        except StreamLost as lost:
            # Whoever closed it from outside knows better why.
            self._loss = self._loss or lost.loss
        finally:
            self._state = StreamState.OVER
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        return self._loss or Loss.CLOSED

    def close(self, loss: Loss = Loss.STOPPED) -> None:
        """``run`` returns soon; may be called at any time, from any greenlet."""
        if self._loss is None:
            self._loss = loss
        if self._socket is not None:
            self._socket.close()

    def tick(self) -> None:
        """Pings when it is time, ends a stream that is silent or was not answered."""
        now_s, socket = self._clock.monotonic_s(), self._socket
        if socket is None or self._loss is not None:
            return
        if self._state is StreamState.LIVE:
            if now_s - self._heard_s > SILENT_AFTER_S:
                self.close(Loss.SILENT)
                return
        elif now_s - self._since_s > ANSWER_WITHIN_S:
            self.close(Loss.UNANSWERED)
            return
        if now_s - self._pinged_s >= PING_EVERY_S:
            self._pinged_s = now_s
            try:
                socket.send({"req_id": "ping", "op": "ping"})
            except StreamLost as lost:
                self.close(lost.loss)

    def _authenticate(self, socket: StreamSocket) -> None:
        self._enter(StreamState.AUTHENTICATING)
        expires = self._server_now_ms() + AUTH_VALID_MS
        secret = self._credentials.api_secret.reveal().encode()
        signature = hmac.new(secret, f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
        socket.send({"req_id": "auth", "op": "auth", "args": [self._credentials.api_key, expires, signature]})

    def _enter(self, state: StreamState) -> None:
        self._state = state
        self._since_s = self._heard_s = self._clock.monotonic_s()

    def _take(self, message: Message) -> None:
        if self._loss is not None:
            return
        self._heard_s = self._clock.monotonic_s()
        if isinstance(message, Happening):
            self._happened(message)
        elif isinstance(message, Reply):
            self._answered(message)
        elif not isinstance(message, Pong):
            self._observer.record(StreamOddity(message.value))

    def _happened(self, happening: Happening) -> None:
        if self._state is not StreamState.LIVE:
            self._observer.record(StreamOddity(Oddity.EARLY.value))
        elif happening.message_id and happening.message_id in self._recent:
            self._observer.record(StreamOddity(Oddity.DUPLICATE.value))
        else:
            if happening.message_id:
                self._recent.append(happening.message_id)
            self._on_happening(happening)

    def _answered(self, reply: Reply) -> None:
        """An answer that does not say to what is one to what we asked last."""
        waited_for = {StreamState.AUTHENTICATING: "auth", StreamState.SUBSCRIBING: "subscribe"}.get(self._state)
        if waited_for is None or reply.operation not in (waited_for, ""):
            self._observer.record(StreamOddity(Oddity.EARLY.value))
        elif not reply.succeeded:
            self.refusal = reply.text
            self.close(Loss.AUTH if self._state is StreamState.AUTHENTICATING else Loss.SUBSCRIPTION)
        elif self._state is StreamState.AUTHENTICATING:
            self._enter(StreamState.SUBSCRIBING)
            assert self._socket is not None
            self._socket.send({"req_id": "topics", "op": "subscribe", "args": [topic.value for topic in Topic]})
        else:
            self._enter(StreamState.LIVE)
            self._on_live()
