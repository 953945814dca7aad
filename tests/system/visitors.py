"""An address that nobody should come to."""

from __future__ import annotations

import socket
import threading


class Elsewhere:
    """Where an answer would like to send us; ``visits`` counts who came."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.visits = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                self._listener.accept()[0].close()
            except OSError:
                return
            self.visits += 1

    def close(self) -> None:
        self._listener.close()
