"""Looks after all connections of a worker once a second, in one greenlet: pings, deadlines, token expiry.

One pass over plain objects costs less than a timer greenlet per connection, and nothing is forgotten when the
process slept over a moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import gevent

from pushserver.clock import Clock
from pushserver.events import utc_instant
from pushserver.limits import DEFAULTS, Limits
from pushserver.tokens import LEEWAY_S
from pushserver.web.connection import Connection
from pushserver.web.engine import PING_INTERVAL_S, PING_TIMEOUT_S
from pushserver.web.phones import Phone
from pushserver.web.sockets import Sockets

logger = logging.getLogger(__name__)

TICK_S = 0.5
ANNOUNCE_EXPIRY_S = 60
#: All connections are looked at so often, in the same pass; in between only those for which something is due. So
#: pings leave in large batches, a little late, and their answers come together, which costs a third of one at a time.
LOOK_EVERY_S = min(5.0, PING_INTERVAL_S / 5)
LOOK_AFTER_EVERY_S = 1.0


class Ticker:
    """``look_after_schedule`` is called every second whatever happened to Redis, ``report`` with every pass."""

    def __init__(
        self,
        sockets: Sockets,
        look_after_schedule: Callable[[], None],
        report: Callable[[], None],
        clock: Clock,
        limits: Limits = DEFAULTS,
    ) -> None:
        self._sockets = sockets
        self._limits = limits
        self._report = report
        self._look_after_schedule = look_after_schedule
        self._clock = clock
        self._looked_after_at_s = clock.monotonic_s()

    def start(self) -> None:
        gevent.spawn(self._run)

    def tick(self) -> None:
        """One pass, at the clock's time."""
        now_s = self._clock.monotonic_s()
        now_wall_s = self._clock.wall_ms() / 1000
        next_look_s = (now_s // LOOK_EVERY_S + 1) * LOOK_EVERY_S
        for connection in list(self._sockets.connections.values()):
            if connection.look_again_s > now_s:
                continue
            connection.look_again_s = next_look_s
            try:
                due_in_s = self._look_at(connection, now_s, now_wall_s)
                connection.look_again_s = min(now_s + due_in_s, next_look_s)
            except Exception:
                # One connection must not keep the ticker from all those after it.
                logger.exception("connection %s could not be looked after", connection.sid)

    def _run(self) -> None:
        while True:
            gevent.sleep(TICK_S)
            try:
                self._report()
                self.tick()
                if self._clock.monotonic_s() - self._looked_after_at_s >= LOOK_AFTER_EVERY_S:
                    self._looked_after_at_s = self._clock.monotonic_s()
                    gevent.spawn(self._look_after_schedule)
            except Exception:
                # Without the ticker no dead phone would ever be noticed again.
                logger.exception("a pass over the connections failed")

    def _look_at(self, connection: Connection, now_s: float, now_wall_s: float) -> float:
        """Do what is due; the seconds until something may be due again."""
        phone: Phone | None = connection.phone
        due_in_s = self._keep_alive(connection, now_s)
        stuck_since_s = connection.outbox.stuck_since_s
        if stuck_since_s is not None:
            left_s = stuck_since_s + self._limits.stuck_s - now_s
            if left_s < 0:
                connection.close(reason="slow client")
            due_in_s = min(due_in_s, left_s)
        if phone is None:
            left_s = connection.opened_at_s + self._limits.sign_in_s - now_s
            if left_s < 0:
                connection.close(reason="never signed in")
            due_in_s = min(due_in_s, left_s)
        elif not phone.gone:
            due_in_s = min(due_in_s, self._look_at_token(phone, now_wall_s))
        return due_in_s

    def _keep_alive(self, connection: Connection, now_s: float) -> float:
        if connection.pinged_at_s is None:
            if now_s - connection.ponged_at_s >= PING_INTERVAL_S:
                connection.ping()
            return LOOK_EVERY_S
        left_s = connection.pinged_at_s + PING_TIMEOUT_S - now_s
        if left_s < 0:
            connection.close(reason="ping timeout")
        return left_s

    def _look_at_token(self, phone: Phone, now_wall_s: float) -> float:
        left_s = phone.claims.expires_at_s - now_wall_s
        if left_s > ANNOUNCE_EXPIRY_S:
            return left_s - ANNOUNCE_EXPIRY_S
        if left_s > 0 and not phone.expiry_announced:
            phone.expiry_announced = True
            expires_at = utc_instant(phone.claims.expires_at_s * 1000)
            phone.emit("token_expiring", {"expires_in": max(1, round(left_s)), "token_expires_at": expires_at})
        # A token that was let in when it had just expired has never been announced, and counts for the leeway.
        counts_for_s = left_s if phone.expiry_announced else left_s + LEEWAY_S - TICK_S
        if counts_for_s <= 0:
            self._sockets.kick(phone, "token_expired")
        return counts_for_s
