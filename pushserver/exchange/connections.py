"""Keep-alive connections to one host, shared by all users of a process.

Not geventhttpclient's own pool: that one loses a slot when a request is abandoned while it is being sent, and its
``select`` sees no descriptor above 1023, of which a process with many streams has plenty.
"""

from __future__ import annotations

import select
from dataclasses import dataclass
from typing import Any, TypeAlias

from gevent.lock import BoundedSemaphore
from gevent.monkey import get_original

from pushserver.exchange.tunnels import open_socket
from pushserver.model import Proxy

# The real poll: it looks and returns, where a patched one would switch greenlets.
poll = get_original("select", "poll")

Socket: TypeAlias = Any

#: Longer than any request may take, whose own deadline comes first.
CONNECT_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Connection:
    """``reused``: it has carried a request before, so the server may be about to close it."""

    socket: Socket
    reused: bool = False


class Connections:
    """At most ``size`` connections at a time; who comes later waits.

    All users of one object must live in one thread (any number of greenlets): a gevent socket belongs to its hub.
    """

    def __init__(self, host: str, port: int, tls: bool, size: int, proxy: Proxy | None = None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._proxy = proxy
        self._slots = BoundedSemaphore(size)
        self._idle: list[Socket] = []

    def borrow(self, only_fresh: bool = False) -> Connection:
        """The connection used last, if it still lives, else a new one. Give it back or discard it, whatever happens.

        Raises:
            OSError: the name is unknown, nobody answers, or the certificate is not to be trusted.
        """
        self._slots.acquire()
        try:
            while self._idle and not only_fresh:
                socket = self._idle.pop()
                if _is_quiet(socket):
                    return Connection(socket, reused=True)
                socket.close()
            return Connection(self._connect())
        except BaseException:
            self._slots.release()
            raise

    def give_back(self, connection: Connection) -> None:
        self._idle.append(connection.socket)
        self._slots.release()

    def discard(self, connection: Connection) -> None:
        connection.socket.close()
        self._slots.release()

    def close(self) -> None:
        """Closes what is idle; what is in use is closed by its user."""
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> Socket:
        return open_socket(self._host, self._port, self._tls, CONNECT_TIMEOUT_S, self._proxy)


def _is_quiet(socket: Socket) -> bool:
    """An idle connection has nothing to say: if it can be read it was closed, or holds bytes nobody asked for."""
    poller = poll()
    poller.register(socket.fileno(), select.POLLIN | select.POLLPRI)
    return not poller.poll(0)
