"""Where metrics are served and kept: an HTTP endpoint of its own, and the web workers' shared directory.

Knows HTTP and files, not Prometheus: whoever serves hands in a function that renders the page.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: Pause between attempts to get a busy port; it may belong to a former process that is just leaving.
RETRY_S = 2.0
#: A client of the endpoint that stalls this long is cut off.
CLIENT_TIMEOUT_S = 5.0

DIRECTORY_PREFIX = "pushserver-metrics-"
#: A place for metric files needs this much room: a full one kills the processes that write there.
MIN_FREE_BYTES = 16 * 1024 * 1024


class Address(Protocol):
    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class MetricsEndpoint:
    """``GET /metrics`` and ``GET /healthz`` on an address of their own, in daemon threads.

    (Greenlets where the process is patched.) Everything else is 404: nothing of the program is reachable here.
    """

    def __init__(self, render: Callable[[], bytes]) -> None:
        self._render = render
        self._server: _Server | None = None
        self._closing = threading.Event()

    def serve(self, host: str, port: int) -> int:
        """Listen; the port, chosen by the system if ``port`` is 0.

        Raises:
            OSError: the address cannot be had.
        """
        self._server = _Server(host, port, self._render)
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()
        logger.info("metrics on http://%s:%d/metrics", host, self._server.server_port)
        return self._server.server_port

    def serve_or_replace(self, address: Address) -> int:
        """Listen on the address or, if its port is busy, on a free one; the port."""
        try:
            return self.serve(address.host, address.port)
        except OSError as error:
            logger.warning("metrics address %s cannot be had (%s): taking a free port", address, error.strerror)
            return self.serve(address.host, 0)

    def serve_when_free(self, address: Address) -> None:
        """Listen on exactly this address: now, or as soon as whoever holds it has left. Does not wait for it."""
        try:
            self.serve(address.host, address.port)
        except OSError as error:
            logger.error(
                "metrics address %s cannot be had (%s): running without metrics, trying again every %g s",
                address, error.strerror, RETRY_S,
            )  # fmt: skip
            threading.Thread(target=self._retry, args=(address,), name="metrics-retry", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def close_inherited(self) -> None:
        """In a forked child: let go of the socket; its threads stayed with the parent."""
        if self._server is not None:
            self._server.socket.close()

    def _retry(self, address: Address) -> None:
        while not self._closing.wait(RETRY_S):
            with contextlib.suppress(OSError):
                self.serve(address.host, address.port)
                return


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, render: Callable[[], bytes]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.render = render
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: that asks the name service who we are.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("a metrics request failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_TIMEOUT_S
    server_version, sys_version = "pushserver", ""

    def do_GET(self) -> None:
        path = self.path.split("?", 1)[0]
        if path == "/metrics":
            try:
                self._answer(200, CONTENT_TYPE, self.server.render())
            except Exception:
                # The page is made of other processes' files; whatever is wrong there, the next scrape asks again.
                logger.exception("metrics could not be rendered")
                self._answer(500, "text/plain", b"metrics could not be rendered\n")
        elif path == "/healthz":
            self._answer(200, "text/plain", b"ok\n")
        else:
            self._answer(404, "text/plain", b"only /metrics and /healthz are here\n")

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""


class SharedDirectory:
    """A fresh private directory for metric files: in memory where there is room, else in the temporary directory.

    It is locked as long as its owner or a process forked from it lives, so that what a killed owner left behind can
    be told from what is in use, whatever process ids say.
    """

    def __init__(self, memory: Path = Path("/dev/shm")) -> None:  # noqa: S108 - mkdtemp makes a private one in it
        base = memory if _has_room(memory) else Path(tempfile.gettempdir())
        _remove_abandoned(base)
        self.path = Path(tempfile.mkdtemp(prefix=DIRECTORY_PREFIX, dir=base))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        os.close(self._lock)
        shutil.rmtree(self.path, ignore_errors=True)


def _has_room(directory: Path) -> bool:
    if not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        return False
    space = os.statvfs(directory)
    return space.f_bavail * space.f_frsize >= MIN_FREE_BYTES


def _remove_abandoned(base: Path) -> None:
    for path in base.glob(f"{DIRECTORY_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, or not ours
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
