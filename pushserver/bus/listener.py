"""The web worker's ears: one pub/sub connection on which every loss is noticed.

A connection can be dead while TCP is up, and a client library that reconnects silently hides what was missed.
So this listener reconnects by itself alone, sends itself a canary through the real path, treats silence as
deafness, and after every (re)connect tells its owner to read again whatever it cares for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import RLock

from pushserver.bus import keys
from pushserver.bus.canary import Canary
from pushserver.bus.connection import REDIS_FAILURES
from pushserver.bus.intake import Intake
from pushserver.clock import Clock
from pushserver.observers import BusStateChanged, CanaryHeard, Observer

logger = logging.getLogger(__name__)

#: How often the canary sings, and how long it may be unheard before the connection counts as deaf.
CANARY_INTERVAL_S = 2.0
DEAF_AFTER_S = 8.0
#: Pauses between attempts to reconnect: short, because subscribing again is cheap.
RETRY_PAUSES_S = (0.05, 0.2, 0.5, 1.0)
#: Late confirmations within so many seconds are caught up with together.
CATCH_UP_S = 0.1
#: Channels per SSUBSCRIBE command.
BATCH = 500


class SubscriptionRefused(ConnectionError):
    """By Redis; the text names its error code, such as NOPERM or MOVED."""


class Listener:
    """Receives channel messages and hands them to its owner, in order.

    ``on_message(channel, payload)`` must not block. ``on_restored()`` is called in a greenlet of its own after
    every connect, once all wanted channels are confirmed, and when a channel was confirmed after its subscriber had
    stopped waiting: messages may have been lost before it. ``plain_channels`` are heard beside the sharded ones.
    """

    def __init__(
        self,
        connection: Any,
        publisher: Any,
        clock: Clock,
        observer: Observer,
        on_message: Callable[[bytes, bytes], None],
        on_restored: Callable[[], None],
        plain_channels: Sequence[str] = (keys.EMITTER_CHANNEL, keys.SIGNALS_CHANNEL),
        canary_channel: bytes | None = None,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._clock = clock
        self._observer = observer
        self._on_message = on_message
        self._on_restored = on_restored
        self._canary = Canary(canary_channel or keys.new_canary_channel(), clock)
        self._plain_channels = plain_channels
        self._attempt = 0
        self._late: set[bytes] = set()
        self._catching_up = False
        self._wanted: set[bytes] = set()
        self._confirmed: set[bytes] = set()
        self._unanswered: dict[bytes, int] = {}
        self._waiters: dict[bytes, Event] = {}
        self._send_lock = RLock()
        self._connected = False
        self._deaf = False
        self._lost_at_s: float | None = None
        self._reason = ""
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Begin connecting; returns at once."""
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._sing)]

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self._connection.disconnect()

    @property
    def hears(self) -> bool:
        """True when the canary was heard lately: what is published now really arrives here."""
        age_s = self._canary.age_s
        return self._connected and age_s is not None and age_s < DEAF_AFTER_S

    @property
    def canary_age_s(self) -> float | None:
        """Seconds since the canary was last heard; None before the first time."""
        return self._canary.age_s

    def subscribe(self, channels: Iterable[bytes], timeout_s: float) -> bool:
        """Want these sharded channels, and wait until Redis has confirmed them all.

        False when that took longer: they stay wanted, and ``on_restored`` follows when they are there.
        """
        wanted = list(channels)
        self._want(wanted)
        deadline = self._clock.monotonic_s() + timeout_s
        for channel in wanted:
            if channel not in self._confirmed:
                waiter = self._waiters.setdefault(channel, Event())
                if not waiter.wait(max(0.0, deadline - self._clock.monotonic_s())):
                    self._late.update(self._wanted.intersection(wanted) - self._confirmed)
                    return False
        return True

    def unsubscribe(self, channels: Iterable[bytes]) -> None:
        gone = self._forget(channels)
        if gone and self._connected:
            self._send("SUNSUBSCRIBE", gone)

    def _want(self, channels: Iterable[bytes]) -> None:
        new = [channel for channel in channels if channel not in self._wanted]
        self._wanted.update(new)
        if new and self._connected:
            self._subscribe_now(new)

    def _forget(self, channels: Iterable[bytes]) -> list[bytes]:
        """Those that were wanted."""
        gone = [channel for channel in channels if channel in self._wanted]
        self._wanted.difference_update(gone)
        self._confirmed.difference_update(gone)
        self._late.difference_update(gone)
        for channel in gone:
            self._waiters.pop(channel, None)
        return gone

    def _subscribe_now(self, channels: list[bytes]) -> None:
        """A channel that was left and wanted again has two answers under way: only the last one counts."""
        for channel in channels:
            self._unanswered[channel] = self._unanswered.get(channel, 0) + 1
        self._send("SSUBSCRIBE", channels)

    def _send(self, command: str, channels: list[bytes]) -> None:
        """Send without waiting for the answer; a failure shows in the reading greenlet, which reconnects."""
        try:
            with self._send_lock:
                if self._connection._sock is None:
                    raise ConnectionError("gone: the library would connect anew, without what was subscribed")
                commands = [(command, *batch) for batch in self._batches(channels)]
                self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
        except REDIS_FAILURES:
            logger.debug("%s could not be sent; the reader reconnects", command)

    def _batches(self, channels: list[bytes]) -> Iterable[list[bytes]]:
        """What may be named in one command together."""
        return (channels[start : start + BATCH] for start in range(0, len(channels), BATCH))

    def _run(self) -> None:
        while True:
            try:
                self._open()
                self._read()
            except REDIS_FAILURES as error:
                self._lost(error)
            except Exception as error:
                # A listener that died of a surprise would leave every phone of this worker silently stale.
                logger.exception("the bus listener met something unforeseen; it reconnects")
                self._lost(error)
            gevent.sleep(RETRY_PAUSES_S[min(self._attempt, len(RETRY_PAUSES_S) - 1)])
            self._attempt += 1

    def _open(self) -> None:
        with self._send_lock:
            self._connection.disconnect()
            self._connection.connect()
        self._confirmed.clear()
        self._unanswered.clear()
        self._canary.begin()
        self._deaf = False
        self._connected = True
        if self._plain_channels:
            self._send("SUBSCRIBE", [channel.encode() for channel in self._plain_channels])
        # The canary's own channel goes last: its confirmation means that all the others are confirmed too.
        self._subscribe_now([*self._wanted, self._canary.channel])

    def _lost(self, error: Exception) -> None:
        with self._send_lock:
            self._connection.disconnect()
        self._confirmed.clear()
        self._connected = False
        reason = str(error) if isinstance(error, SubscriptionRefused) else type(error).__name__
        if reason != self._reason:
            self._reason = reason
            logger.warning("the bus cannot be heard: %s", reason)
        if self._lost_at_s is None:
            self._lost_at_s = self._clock.monotonic_s()
            self._observer.record(BusStateChanged("deaf" if self._deaf else "lost"))

    def _read(self) -> None:
        """Handle messages until the connection breaks; silence is noticed by the singer, who cuts it."""
        stream = self._connection._sock
        if stream is None:
            raise ConnectionError("closed while subscribing")
        intake = Intake(stream, self._wanted, self._on_message, self._clock)
        try:
            while True:
                self._handle(intake.next_reply())
        finally:
            intake.close()

    def _handle(self, message: Any) -> None:
        if isinstance(message, Exception):
            self._refused(str(message))
            raise SubscriptionRefused(f"subscribing was refused ({str(message).partition(' ')[0]})")
        kind, channel, payload = message
        if kind == b"smessage":
            if channel == self._canary.channel:
                lag_s = self._canary.heard()
                if lag_s is not None:
                    self._observer.record(CanaryHeard(lag_s))
        elif kind == b"message":
            self._on_message(channel, payload)
        elif kind == b"ssubscribe":
            self._confirm(channel)
        elif kind == b"sunsubscribe":
            self._left(channel)

    def _refused(self, error: str) -> None:
        """Subscribing was answered with an error; the connection is given up."""

    def _left(self, channel: bytes) -> None:
        """A channel is not heard any more."""

    def _confirm(self, channel: bytes) -> None:
        self._unanswered[channel] = self._unanswered.get(channel, 1) - 1
        if self._unanswered[channel] > 0:
            return
        del self._unanswered[channel]
        if channel == self._canary.channel:
            self._observer.record(BusStateChanged("connected", self._outage_s()))
            self._lost_at_s, self._reason = None, ""
            # Only now: a connection on which subscribing is refused must not be tried again at full speed.
            self._attempt = 0
            self._late.clear()
            gevent.spawn(self._sing_once)
            gevent.spawn(self._on_restored)
        elif channel in self._wanted:
            self._confirmed.add(channel)
            if channel in self._late:
                self._late.discard(channel)
                self._catch_up()
        waiter = self._waiters.pop(channel, None)
        if waiter is not None:
            waiter.set()

    def _catch_up(self) -> None:
        """What was published before a late confirmation must be read; once for all that come together."""
        if not self._catching_up:
            self._catching_up = True
            gevent.spawn_later(CATCH_UP_S, self._restore)

    def _restore(self) -> None:
        self._catching_up = False
        self._on_restored()

    def _outage_s(self) -> float:
        return 0.0 if self._lost_at_s is None else self._clock.monotonic_s() - self._lost_at_s

    def _sing(self) -> None:
        while True:
            gevent.sleep(CANARY_INTERVAL_S)
            try:
                self._sing_or_cut()
            except Exception:
                # Without the singer no deafness would ever be noticed again.
                logger.exception("the canary met something unforeseen")

    def _sing_or_cut(self) -> None:
        if not self._connected:
            return
        if self._canary.silent_s > DEAF_AFTER_S:
            self._cut()
        else:
            self._sing_once()

    def _cut(self) -> None:
        """Nothing is heard although the connection stands: end it under the reader, which then opens another."""
        self._deaf = True
        self._connection.disconnect()

    def _sing_once(self) -> None:
        self._canary.sung()
        try:
            self._publisher.execute_command("SPUBLISH", self._canary.channel, b"")
        except REDIS_FAILURES:
            logger.debug("the canary could not be sent; its silence will be noticed")
