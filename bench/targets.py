"""The web servers that the delivery benchmark compares: how each is started, spoken to and published to."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from cryptography.fernet import Fernet

from bench.processes import Process, free_port
from pushserver.clock import SystemClock
from pushserver.model import Secret
from pushserver.tokens import SharedSecrets, Tokens


class Target(Protocol):
    name: str

    def start(self, redis_url: str, port: int, workers: int, folder: Path) -> Process:
        """gunicorn on that port, not yet ready."""
        ...

    def ready_url(self, port: int) -> str: ...

    def packets(self, user_id: int) -> tuple[str, str]:
        """What a client sends to connect and to subscribe; it is subscribed at the event ``subscribed``."""
        ...

    def publisher(self, redis_url: str, users: int, rate: float, seconds: float) -> list[str]:
        """Arguments for ``python`` that publish for the users 1 to ``users``."""
        ...


class Project:
    """This program, as the contract starts it."""

    name = "pushserver"

    def __init__(self) -> None:
        self._secret = Secret(secrets.token_hex(32))
        self._tokens = Tokens(SharedSecrets((self._secret,)), SystemClock(), signing_secret=self._secret)

    def start(self, redis_url: str, port: int, workers: int, folder: Path) -> Process:
        environment = {
            "REDIS_URL": redis_url,
            "DATABASE_URL": f"sqlite:///{folder}/pushserver.db",
            "JWT_SECRETS": self._secret.reveal(),
            "CREDENTIALS_KEYS": Fernet.generate_key().decode(),
            "BYBIT_REST_URL": "http://127.0.0.1:9",
            "BYBIT_STREAM_URL": "",
            "BYBIT_TICKER_URL": "",
            "WEB_METRICS_BIND": f"127.0.0.1:{free_port()}",
        }
        arguments = ["-m", "gunicorn", "-k", "geventwebsocket", "-w", str(workers), "-b", f"127.0.0.1:{port}"]
        return Process("web", [*arguments, "wsgi:app"], environment, folder)

    def ready_url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/readyz"

    def packets(self, user_id: int) -> tuple[str, str]:
        subscribe = '42["subscribe_trading",{"types":["positions"]}]'
        return "40" + json.dumps({"token": self._tokens.mint(user_id)}), subscribe

    def publisher(self, redis_url: str, users: int, rate: float, seconds: float) -> list[str]:
        arguments = ["-m", "bench.publish", "--type", "positions"]
        return [*arguments, *_publishing(redis_url, users, rate, seconds)]


class StockFlaskSocketIO:
    """Flask-SocketIO with its Redis message queue, nothing added."""

    name = "stock Flask-SocketIO"

    def start(self, redis_url: str, port: int, workers: int, folder: Path) -> Process:
        arguments = ["-m", "gunicorn", "-c", "bench/peers/gunicorn_stock.py", "-w", str(workers)]
        arguments += ["-b", f"127.0.0.1:{port}", "bench.peers.stock_flask_socketio:app"]
        return Process("stock", arguments, {"REDIS_URL": redis_url}, folder)

    def ready_url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/readyz"

    def packets(self, user_id: int) -> tuple[str, str]:
        return "40", json.dumps(["subscribe_trading", {"user_id": user_id}]).join(["42", ""])

    def publisher(self, redis_url: str, users: int, rate: float, seconds: float) -> list[str]:
        return ["-m", "bench.peers.stock_publisher", *_publishing(redis_url, users, rate, seconds)]


def _publishing(redis_url: str, users: int, rate: float, seconds: float) -> Iterable[str]:
    options = {"--redis-url": redis_url, "--users": f"1-{users}", "--rate": rate, "--seconds": seconds}
    return [str(word) for option in options.items() for word in option]
