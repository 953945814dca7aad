"""The gunicorn worker class: gevent-websocket's, made safe to stand in the open.

gevent.pywsgi parses requests here, not gunicorn. It has no deadlines, takes ambiguous framing and logs the request
line with its token; the handler below reads the whole request itself, strictly and within limits, and gives
pywsgi what is left to do. It is imported by the gunicorn master, so it must know neither Flask nor the program.
"""

from __future__ import annotations

import logging
from typing import Any

import gevent
from geventwebsocket.gunicorn.workers import GeventWebSocketWorker
from geventwebsocket.handler import WebSocketHandler
from gunicorn.glogging import Logger

from pushserver.logs import masked_text

logger = logging.getLogger("pushserver.web.http")


class GunicornLogger(Logger):
    """gunicorn's own messages go through the root logger, as everybody's; there is no access log."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            log.handlers.clear()
            log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Requests are counted in metrics; their lines carry tokens."""


class RequestHandler(WebSocketHandler):
    @property
    def logger(self) -> logging.Logger:
        return logger

    def log_request(self) -> None:
        logger.debug("%s", masked_text(self.format_request()))


class PushServerWorker(GeventWebSocketWorker):
    wsgi_handler = RequestHandler

    def run(self) -> None:
        # What escapes from a greenlet is a record like any other: masked, on one line, within the line budget.
        gevent.get_hub().print_exception = _log_exception
        super().run()


def _log_exception(context: object, kind: Any, error: Any, traceback: Any) -> None:
    logger.error("a greenlet failed", exc_info=(kind, error, traceback))
