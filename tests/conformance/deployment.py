"""One real web worker behind a test's own WSGI module, with limits out of the way of a test that connects often."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.system.harness import Stack

WIDE_LIMITS = {
    "MAX_CONNECTIONS_PER_USER": "10000",
    "MAX_CONNECTIONS_PER_ADDRESS": "1000000",
    "CONNECT_BURST_PER_ADDRESS": "1000000",
    "CONNECT_BURST_PER_PROCESS": "1000000",
}


class OneWorker(Stack):
    """``application`` as for gunicorn; no users, no push workers."""

    def __init__(self, folder: Path, application: str = "wsgi:app", environ: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, users=0, web_workers=1, push_workers=0, environ={**WIDE_LIMITS, **(environ or {})})
        self._application = application

    def start_web(self) -> None:
        command = [sys.executable, "-m", "gunicorn", "-k", "geventwebsocket", "-w", "1"]
        self.web = self._spawn("web", [*command, "-b", f"127.0.0.1:{self.web_port}", self._application])

    def worker(self) -> int:
        """The process id of the worker."""
        (pid,) = self.web.children()
        return pid

    def clients(self) -> int:
        """Sockets of the worker whose other end is, or was, a client."""
        connections = psutil.Process(self.worker()).net_connections("tcp")
        return sum(each.laddr.port == self.web_port and each.status != psutil.CONN_LISTEN for each in connections)
