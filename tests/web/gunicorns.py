"""A real gunicorn with the repository's configuration and a trivial application."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import urllib.request
from pathlib import Path

from cryptography.fernet import Fernet

from tests.system.harness import Process, free_port, wait_until


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return kept | {
        "JWT_SECRETS": secrets.token_hex(32),
        "CREDENTIALS_KEYS": Fernet.generate_key().decode(),
        "WEB_METRICS_BIND": "127.0.0.1:0",
        **more,
    }


class Gunicorn:
    """``gunicorn -k geventwebsocket -w WORKERS -b ADDRESS tests.web.trivial_app:app``, up and answering."""

    def __init__(self, folder: Path, workers: int = 1, bind: str = "", **environ: str) -> None:
        self.port = free_port()
        self.bind = bind or f"127.0.0.1:{self.port}"
        command = [str(Path(sys.executable).with_name("gunicorn")), "-k", "geventwebsocket", "-w", str(workers)]
        command += ["-b", self.bind, "tests.web.trivial_app:app"]
        self.process = Process("gunicorn", command, environment(**environ), folder)
        try:
            wait_until(lambda: self.log().count("application loaded") == workers and self.answers(), 20, "gunicorn")
        except AssertionError:
            self.process.stop()
            raise

    def workers(self) -> list[int]:
        return self.process.children()

    def answers(self) -> bool:
        return b"200 OK" in self.ask(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 1)

    def log(self) -> str:
        return self.process.log()

    def connect(self, timeout_s: float = 10) -> socket.socket:
        if self.bind.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(timeout_s)
            sock.connect(self.bind.removeprefix("unix:"))
            return sock
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def ask(self, raw: bytes, timeout_s: float = 10) -> bytes:
        """Everything the server says to these bytes until it closes; TimeoutError if it does not."""
        try:
            with self.connect(timeout_s) as sock:
                sock.sendall(raw)
                return read_all(sock)
        except (ConnectionRefusedError, FileNotFoundError):
            return b""

    def metrics_port(self) -> int:
        return int(re.findall(r"metrics on http://[^ ]+:(\d+)/metrics", self.log())[-1])

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port()}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def metric(self, series: str) -> float:
        match = re.search(rf"^{re.escape(series)} (\S+)$", self.metrics(), re.MULTILINE)
        return float(match[1]) if match else 0.0


def read_all(sock: socket.socket) -> bytes:
    answer = b""
    while data := sock.recv(65_536):
        answer += data
    return answer
