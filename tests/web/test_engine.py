"""What is kept of the request that opened a connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pushserver.clock import ManualClock
from pushserver.limits import Limits
from pushserver.observers import RecordingObserver
from pushserver.web import engine
from pushserver.web.engine import WAITED_KEY, Handshake, SocketServer
from pushserver.web.request_handler import TakenOver
from pushserver.web.rooms import RoomManager

TOKEN = "eyJhbGciOi.c4n4ry.signature"


class Gate:
    def __init__(self) -> None:
        self.handshakes: list[Handshake] = []
        self.turned_away_for: list[str] = []

    def opened(self, connection: Any, handshake: Handshake) -> None:
        self.handshakes.append(handshake)

    def message(self, connection: Any, message: str | bytes) -> None: ...

    def closed(self, connection: Any, reason: str) -> None: ...

    def turned_away(self, code: str) -> None:
        self.turned_away_for.append(code)


class FakeConnection:
    """Looks at the requests it came with when it begins to read."""

    sid = "eio1"

    seen: list[str]
    environs: list[dict[str, Any]]
    last: FakeConnection
    opened_at_s = 100.0

    def __init__(self, *_arguments: Any) -> None:
        type(self).last = self

    def send(self, packet: Any) -> None:
        self.open_packet = packet.encode()

    def start(self, already_read: bytes) -> None:
        type(self).seen = [repr(environ) for environ in self.environs]


def connected(monkeypatch: pytest.MonkeyPatch, limits: Limits | None = None, **environ: Any) -> tuple[Gate, list[str]]:
    gate = Gate()
    server = SocketServer(gate, ManualClock(), RoomManager(None, RecordingObserver()), None, limits or Limits())
    request = {
        "REQUEST_METHOD": "GET", "QUERY_STRING": f"EIO=4&transport=websocket&token={TOKEN}",
        "RAW_URI": f"/socket.io/?token={TOKEN}", "REQUEST_URI": f"/socket.io/?token={TOKEN}",
        "HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "HTTP_HOST": "h", "wsgi.url_scheme": "http",
        "HTTP_CONNECTION": "Upgrade", "HTTP_UPGRADE": "websocket", **environ,
    }  # fmt: skip
    library_copy = dict(request)
    handler = SimpleNamespace(take_over=lambda: TakenOver(None, b"", lambda: None))
    request["wsgi.websocket"] = SimpleNamespace(environ=library_copy, closed=False, handler=handler)
    monkeypatch.setattr(engine, "Connection", FakeConnection)
    FakeConnection.environs = [request, library_copy]
    FakeConnection.seen = []
    list(server.eio.handle_request(request, lambda status, headers: None))
    return gate, FakeConnection.seen


def test_B11_nothing_that_lives_as_long_as_the_socket_holds_the_token(monkeypatch):
    gate, seen = connected(monkeypatch)
    assert gate.handshakes == [Handshake(f"Bearer {TOKEN}", TOKEN)]
    assert len(seen) == 2
    assert [text for text in seen if "c4n4ry" in text] == []


def test_B04_the_time_until_the_upgrade_counts_for_the_sign_in(monkeypatch):
    connected(monkeypatch, **{WAITED_KEY: 4.0})
    assert FakeConnection.last.opened_at_s == 96.0


def test_D01_the_client_is_told_how_long_a_message_may_be(monkeypatch):
    connected(monkeypatch, Limits(max_message_bytes=2_048))
    assert '"maxPayload":2048' in FakeConnection.last.open_packet


def test_B01_a_foreign_page_is_turned_away_before_there_is_a_connection(monkeypatch):
    gate, seen = connected(monkeypatch, HTTP_ORIGIN="https://evil.example")
    assert (gate.turned_away_for, gate.handshakes, seen) == (["origin_not_allowed"], [], [])
