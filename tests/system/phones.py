"""Phones for system tests: the official JavaScript client in a node process, and python-socketio.

Both keep a log of what they were told, in order, and answer the same questions about it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import socketio

from tests.conftest import require
from tests.system.harness import wait_until

JS = Path(__file__).resolve().parents[1] / "js"
TYPES = ("balance", "positions", "pnl", "orders")


@dataclass(frozen=True)
class Told:
    """``kind``: connect, disconnect, connect_error, event or ack."""

    kind: str
    name: str
    payload: Any


class Phone:
    """What a phone was told so far."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def events(self, name: str) -> list[Any]:
        return [told.payload for told in list(self.told) if told.kind == "event" and told.name == name]

    def updates(self, data_type: str) -> list[Any]:
        return self.events(f"{data_type}_update")

    def latest(self, data_type: str) -> Any:
        updates = self.updates(data_type)
        return updates[-1]["data"] if updates else None

    def count(self, kind: str) -> int:
        return sum(told.kind == kind for told in list(self.told))

    def wait_for(self, name: str, number: int = 1, timeout_s: float = 15) -> Any:
        """The payload of the ``number``-th event of that name."""
        wait_until(lambda: len(self.events(name)) >= number, timeout_s, f"{number} × {name}: {self.told[-8:]}")
        return self.events(name)[number - 1]

    def wait_kind(self, kind: str, number: int = 1, timeout_s: float = 15) -> Told:
        wait_until(lambda: self.count(kind) >= number, timeout_s, f"{number} × {kind}: {self.told[-8:]}")
        return [told for told in list(self.told) if told.kind == kind][number - 1]

    def seqs_grow(self, data_type: str) -> bool:
        """``seq`` strictly increasing along each connection and never going back along the phone; ``as_of`` likewise.

        A state that is sent again after a reconnect keeps its ``seq`` and is then the same state.
        """
        newest, newest_of_connection = None, None
        for told in list(self.told):
            if told.kind == "connect":
                newest_of_connection = None
            if told.kind != "event" or told.name != f"{data_type}_update":
                continue
            update = told.payload
            if newest_of_connection is not None and update["seq"] <= newest_of_connection:
                return False
            if newest is not None and (update["seq"], update["as_of"]) < (newest["seq"], newest["as_of"]):
                return False
            if newest is not None and update["seq"] == newest["seq"] and update["data"] != newest["data"]:
                return False
            newest, newest_of_connection = update, update["seq"]
        return True


class NodePhone(Phone):
    """socket.io-client from npm; reconnects by itself."""

    def __init__(self, url: str, token: str, carrier: str = "payload") -> None:
        super().__init__()
        require(shutil.which("node"), "node is not installed")
        require((JS / "node_modules" / "socket.io-client").is_dir(), "run `make test`: it installs tests/js with npm")
        self._process = subprocess.Popen(
            ["node", "phone.mjs", url, token, carrier],
            cwd=JS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._calls = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self.told.append(Told(said["kind"], said["name"], said["payload"]))

    def _say(self, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def remember(self, *types: str) -> None:
        """Subscribe to these again after each reconnect."""
        self._say(op="remember", payload=list(types))

    def emit(self, name: str, payload: Any = None) -> None:
        self._say(op="emit", name=name, payload=payload)

    def call(self, name: str, payload: Any = None) -> Any:
        self._calls += 1
        number = str(self._calls)
        self._say(op="call", name=name, payload=payload, id=number)

        def answer() -> list[Told]:
            return [told for told in list(self.told) if told.kind == "ack" and told.name == number]

        wait_until(answer, 10, f"the ack of {name}: {self.told[-8:]}")
        return answer()[0].payload

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


class PythonPhone(Phone):
    """python-socketio."""

    def __init__(self, url: str, token: str, carrier: str = "payload") -> None:
        super().__init__()
        self._client = socketio.Client(reconnection_delay=0.2, reconnection_delay_max=1, randomization_factor=0.1)
        self._client.on("*", lambda name, payload=None: self.told.append(Told("event", name, payload)))
        self._client.on("connect", lambda: self.told.append(Told("connect", "", None)))
        self._client.on("disconnect", lambda reason=None: self.told.append(Told("disconnect", str(reason), None)))
        self._client.on("connect_error", lambda data=None: self.told.append(Told("connect_error", "", data)))
        auth = {"payload": {"token": token}, "nested": {"auth": {"token": token}}}.get(carrier)
        headers = {"Authorization": f"Bearer {token}"} if carrier == "header" else {}
        query = f"?token={token}" if carrier == "url" else ""
        try:
            self._client.connect(url + query, auth=auth, headers=headers, transports=["websocket"])
        except socketio.exceptions.ConnectionError:
            self.told.append(Told("refused", "", None))

    def emit(self, name: str, payload: Any = None) -> None:
        self._client.emit(name, payload)

    def call(self, name: str, payload: Any = None) -> Any:
        return self._client.call(name, payload, timeout=10)

    def close(self) -> None:
        self._client.disconnect()
