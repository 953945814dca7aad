"""A WSGI application that is nothing but what the tests of the gunicorn worker need."""

from gevent import monkey

monkey.patch_all()

import logging
import os

from pushserver import logs
from pushserver.metrics import PrometheusObserver
from pushserver.observers import ConnectionOpened

logs.configure("text", os.environ.get("LOG_LEVEL", "info"))


class TrivialApp:
    """Echoes bodies and WebSocket messages; the observer hears of requests that never came here."""

    def __init__(self) -> None:
        observer = PrometheusObserver()
        self.extensions = {"observer": observer}
        observer.record(ConnectionOpened("c", 4, "payload"))

    def __call__(self, environ, start_response):
        if environ.get("wsgi.websocket"):
            return self.echo(environ["wsgi.websocket"])
        path = environ["PATH_INFO"]
        if path == "/fail":
            raise ValueError(f"failed with token={environ['QUERY_STRING']}")
        if path == "/greenlet-fail":
            import gevent

            gevent.spawn(lambda: {}["Bearer c4n4ry"])
            gevent.sleep(0.05)
        body = f"{os.getpid()} {path} ".encode() + environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    def echo(self, websocket):
        while (message := websocket.receive()) is not None:
            websocket.send(message)
        return []


app = TrivialApp()
logging.getLogger("trivial").warning("application loaded")
