"""Accepts connections for one web worker: in turn with the others, and only while there are descriptors for them."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from typing import Any

from gevent.monkey import get_original
from gunicorn.workers.ggevent import PyWSGIServer

from pushserver.clock import Clock
from pushserver.web.taking_turns import Turns

logger = logging.getLogger(__name__)

#: Accepted in one go before others of the event loop have their turn.
MOST_AT_ONCE = 8
#: Descriptors that clients do not get: Redis, the database and the exchange must be reachable with the house full.
RESERVED_DESCRIPTORS = 32
LOOK_AGAIN_S = 0.5
TELL_EVERY_S = 60.0
#: What accept() says when the process or the machine has no room for one more connection.
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: gevent's own waits for the next turn of the event loop.
_close_now = get_original("os", "close")


class AcceptingServer(PyWSGIServer):
    """gunicorn's server on gevent's, with its own way of accepting.

    ``clients`` counts the connections that are not closed yet. ``idle`` holds the request handlers that wait for a
    client's next request; ``leaving`` is True when none is to be waited for any more.
    """

    def __init__(self, listener: Any, turns: Turns, clock: Clock, **options: Any) -> None:
        super().__init__(listener, **options)
        self.max_accept = 1
        self.idle: set[Any] = set()
        self.leaving = False
        self.clients = 0
        self._taken_over: set[Any] = set()
        self._turns = turns
        self._clock = clock
        self._told_at_s: float | None = None

    def leave(self) -> None:
        """Accept nobody more, and let go of clients that ask for nothing at the moment."""
        self.leaving = True
        self.close()
        for handler in list(self.idle):
            try:
                handler.socket.shutdown(socket.SHUT_RD)
            except OSError:
                continue  # the client was faster

    def take_over(self, client: Any) -> None:
        """The handling of this socket ends, its connection does not; ``gone`` is called when it does."""
        self._taken_over.add(client)

    def gone(self) -> None:
        """A connection is closed."""
        self.clients -= 1
        self._turns.closed()

    # Called by gevent's event loop when a client waits at the listener.
    def _do_read(self) -> None:
        for _ in range(MOST_AT_ONCE):
            wait_s = self._turns.wait_s() if self._room_for_one() else LOOK_AGAIN_S
            if wait_s > 0:
                # While a client waits, the event loop would call again at once.
                self._pause(wait_s)
                return
            accepted_before = self._accepted
            super()._do_read()
            if self._accepted == accepted_before:
                return

    def do_read(self) -> Any:
        try:
            return super().do_read()
        except ConnectionAbortedError:
            return None  # the client went before its turn came
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._tell_no_room()
            self._pause(LOOK_AGAIN_S)
            return None

    _accepted = 0

    def do_handle(self, *args: Any) -> None:
        self._accepted += 1
        self.clients += 1
        self._turns.opened()
        super().do_handle(*args)

    def do_close(self, client: Any, *args: Any) -> None:
        if client in self._taken_over:
            self._taken_over.discard(client)
        else:
            self.gone()
        super().do_close(client, *args)

    def _room_for_one(self) -> bool:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        try:
            # The lowest free number: so many are in use.
            probe = os.dup(self.socket.fileno())
        except OSError:
            probe = limit
        else:
            _close_now(probe)
        if probe < limit - RESERVED_DESCRIPTORS:
            return True
        self._tell_no_room()
        return False

    def _tell_no_room(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._told_at_s is None or now_s - self._told_at_s >= TELL_EVERY_S:
            self._told_at_s = now_s
            logger.error("no file descriptor is left for one more client: accepting pauses until some are free")

    def _pause(self, seconds: float) -> None:
        self.stop_accepting()
        self._timer = self.loop.timer(seconds)
        self._timer.start(self._start_accepting_if_started)
