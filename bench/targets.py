"""The web servers that the delivery benchmark compares: how each is started, spoken to and published to."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from cryptography.fernet import Fernet

from bench.processes import Process, free_port
from pushserver.clock import SystemClock
from pushserver.model import Secret
from pushserver.tokens import SharedSecrets, Tokens

NODE_FOLDER = Path(__file__).with_name("peers") / "node"


class Target(Protocol):
    name: str

    def port_count(self, workers: int) -> int:
        """How many ports so many workers listen on; clients are spread evenly over them."""
        ...

    def start(self, redis_url: str, ports: Sequence[int], workers: int, folder: Path) -> Process:
        """The process whose children are the web workers, not yet ready."""
        ...

    def ready_url(self, port: int) -> str: ...

    def packets(self, user_id: int) -> tuple[str, str]:
        """What a client sends to connect and to subscribe to all types; the event ``subscribed`` answers it."""
        ...

    def publisher(self, redis_url: str, users: int, rate: float, seconds: float, folder: Path) -> Process:
        """Publishes positions for the users 1 to ``users``; its last line says ``published=N … elapsed_ms=N``."""
        ...


class Project:
    """This program, as the contract starts it."""

    name = "pushserver"
    app = "wsgi:app"

    def __init__(self) -> None:
        self.metrics_port = free_port()
        self._secret = Secret(secrets.token_hex(32))
        self._tokens = Tokens(SharedSecrets((self._secret,)), SystemClock(), signing_secret=self._secret)

    def port_count(self, workers: int) -> int:
        return 1

    def start(self, redis_url: str, ports: Sequence[int], workers: int, folder: Path) -> Process:
        environment = {
            "REDIS_URL": redis_url,
            "DATABASE_URL": f"sqlite:///{folder}/pushserver.db",
            "JWT_SECRETS": self._secret.reveal(),
            "CREDENTIALS_KEYS": Fernet.generate_key().decode(),
            "BYBIT_REST_URL": "http://127.0.0.1:9",
            "BYBIT_STREAM_URL": "",
            "BYBIT_TICKER_URL": "",
            "WEB_METRICS_BIND": f"127.0.0.1:{self.metrics_port}",
        }
        arguments = ["-m", "gunicorn", "-k", "geventwebsocket", "-w", str(workers), "-b", f"127.0.0.1:{ports[0]}"]
        return Process(f"web-{ports[0]}", [*arguments, self.app], environment, folder)

    def ready_url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/readyz"

    def packets(self, user_id: int) -> tuple[str, str]:
        return "40" + json.dumps({"token": self._tokens.mint(user_id)}), '42["subscribe_trading",{}]'

    def publisher(self, redis_url: str, users: int, rate: float, seconds: float, folder: Path) -> Process:
        arguments = ["-m", "bench.publish", "--type", "positions", *_publishing(redis_url, users, rate, seconds)]
        return Process("publisher", arguments, {}, folder)


class StockFlaskSocketIO:
    """Flask-SocketIO with its Redis message queue, nothing added."""

    name = "stock Flask-SocketIO"

    def port_count(self, workers: int) -> int:
        return 1

    def start(self, redis_url: str, ports: Sequence[int], workers: int, folder: Path) -> Process:
        arguments = ["-m", "gunicorn", "-c", "bench/peers/gunicorn_stock.py", "-w", str(workers)]
        arguments += ["-b", f"127.0.0.1:{ports[0]}", "bench.peers.stock_flask_socketio:app"]
        return Process("stock", arguments, {"REDIS_URL": redis_url}, folder)

    def ready_url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/readyz"

    def packets(self, user_id: int) -> tuple[str, str]:
        return _unchecked_packets(user_id)

    def publisher(self, redis_url: str, users: int, rate: float, seconds: float, folder: Path) -> Process:
        arguments = ["-m", "bench.peers.stock_publisher", *_publishing(redis_url, users, rate, seconds)]
        return Process("publisher", arguments, {}, folder)


class NodeSocketIO:
    """Node's socket.io with the sharded Redis adapter, one process a port."""

    name = "Node socket.io"

    def port_count(self, workers: int) -> int:
        return workers

    def start(self, redis_url: str, ports: Sequence[int], workers: int, folder: Path) -> Process:
        arguments = [str(NODE_FOLDER / "workers.mjs"), *(str(port) for port in ports)]
        return Process("node", arguments, {"REDIS_URL": redis_url, "NODE_ENV": "production"}, folder, program="node")

    def ready_url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}/readyz"

    def packets(self, user_id: int) -> tuple[str, str]:
        return _unchecked_packets(user_id)

    def publisher(self, redis_url: str, users: int, rate: float, seconds: float, folder: Path) -> Process:
        arguments = [str(NODE_FOLDER / "publisher.mjs"), *_publishing(redis_url, users, rate, seconds)]
        return Process("publisher", arguments, {"NODE_ENV": "production"}, folder, program="node")


def _unchecked_packets(user_id: int) -> tuple[str, str]:
    """The peers ask nobody for a token."""
    return "40", "42" + json.dumps(["subscribe_trading", {"user_id": user_id}])


def _publishing(redis_url: str, users: int, rate: float, seconds: float) -> Iterable[str]:
    options = {"--redis-url": redis_url, "--users": f"1-{users}", "--rate": rate, "--seconds": seconds}
    return [str(word) for option in options.items() for word in option]
