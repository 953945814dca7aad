"""The gunicorn worker class and logger.

The gunicorn master imports this file, so it imports nothing of the program: what handles requests is loaded in the
worker, after the fork, and comes anew with a reload.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

import gevent
from gevent.event import Event
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from gunicorn.glogging import Logger

#: How long bytes we sent may stay unacknowledged, or a peer's receive window closed, until its connection ends.
UNACKNOWLEDGED_MS = 30_000
#: Unsent bytes that the kernel keeps for one client. Left to itself it takes megabytes of states that are long
#: outdated by the time a slow client gets them; what waits with us is replaced by what is newer.
UNSENT_BYTES = 4_096


class GunicornLogger(Logger):
    """gunicorn's own messages go through the root logger, as everybody's; there is no access log."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Requests are counted in metrics; their lines carry tokens."""


class PushServerWorker(GeventWebSocketWorker):
    """gevent-websocket's worker with a life of our own, which comes anew with a reload."""

    told_to_stop: Event | None = None

    def run(self) -> None:
        from pushserver.web.serving import serve

        # What escapes from a greenlet is a record like any other: masked, on one line, within the line budget.
        gevent.get_hub().print_exception = _log_exception
        for listener in self.sockets:
            if listener.family in (socket.AF_INET, socket.AF_INET6):
                # Accepted connections inherit these.
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self.told_to_stop = Event()
        serve(self)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: leave in order."""
        super().handle_exit(sig, frame)
        if self.told_to_stop is not None:
            # Not here: a signal arrives in whatever greenlet is running, the event loop's included.
            gevent.spawn(self.told_to_stop.set)


def _log_exception(context: object, kind: Any, error: Any, traceback: Any) -> None:
    logging.getLogger("pushserver.web").error("a greenlet failed", exc_info=(kind, error, traceback))
