"""What comes in from one client: the bytes that were read but not used yet, and waiting for more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

READABLE = 1
READ_BYTES = 16_384


class SocketInput:
    """Reads a plain, non-blocking socket; either the event loop waits for it, or a greenlet in ``read``."""

    __slots__ = ("_data", "_socket", "_watcher")

    def __init__(self, client: Any) -> None:
        self._socket = client
        self._watcher = gevent.get_hub().loop.io(client.fileno(), READABLE)
        self._data = bytearray()

    @property
    def is_empty(self) -> bool:
        """All that was read has been used."""
        return not self._data

    def when_readable(self, callback: Callable[[], None]) -> None:
        """Have the event loop call back whenever something can be received, until ``pause``."""
        self._watcher.start(callback)

    def pause(self) -> None:
        self._watcher.stop()

    def receive(self) -> bytes | None:
        """What there is now; nothing is kept of it. None when there is nothing, empty at the end of the stream.

        Raises:
            OSError: the connection broke.
        """
        try:
            return self._socket.recv(READ_BYTES)  # type: ignore[no-any-return]
        except (BlockingIOError, InterruptedError):
            return None

    def put(self, data: bytes) -> None:
        """Keep what was received, to be read next."""
        self._data += data

    def read(self, size: int) -> bytes:
        """``size`` bytes, or fewer at the end of the stream; waits for them in the calling greenlet.

        Raises:
            OSError: the connection broke.
        """
        while len(self._data) < size:
            data = self.receive()
            if data is None:
                gevent.get_hub().wait(self._watcher)
            elif data:
                self.put(data)
            else:
                break
        found = bytes(self._data[:size])
        del self._data[:size]
        return found

    def close(self) -> None:
        """Let go of the socket; must come before it is closed."""
        self._watcher.stop()
        self._watcher.close()
