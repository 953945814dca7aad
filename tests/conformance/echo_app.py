"""The web side with one change: a WebSocket message is sent back as it came, instead of read as Engine.IO.

Request handling, frames, pacing, the outbox and closing are those of the program.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

from pushserver.web import connection  # noqa: E402 - nothing may be imported before the patching
from pushserver.web.app import create_app_from_environment  # noqa: E402
from pushserver.web.websocket import BINARY, TEXT, encode_frame  # noqa: E402


def _echo(self: connection.Connection, message: str | bytes) -> None:
    if isinstance(message, bytes):
        self.outbox.send(encode_frame(BINARY, message))
    else:
        self.outbox.send(encode_frame(TEXT, message.encode()))


connection.Connection._receive = _echo  # type: ignore[method-assign]
app = create_app_from_environment()
