"""A phone that is signed in from the start, so that pushes flow before anybody opened the page."""

from __future__ import annotations

import json
import urllib.request

import socketio


class DemoPhone:
    """Logs in as a user would and subscribes to everything; reconnects by itself.

    Raises OSError or socketio.exceptions.ConnectionError when the first connection fails.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self._client = socketio.Client(reconnection_delay=0.5, reconnection_delay_max=2)
        self._client.on("connected", lambda _: self._client.emit("subscribe_trading", {}))
        # A token for each connection: the first one runs out while the demo goes on.
        self._client.connect(
            url, auth=lambda: {"token": _login(url, username, password)}, transports=["websocket"], wait_timeout=10
        )

    def close(self) -> None:
        self._client.shutdown()


def _login(url: str, username: str, password: str) -> str:
    body = json.dumps({"username": username, "password": password}).encode()
    request = urllib.request.Request(f"{url}/api/auth/login", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        token: str = json.load(answer)["token"]
        return token
