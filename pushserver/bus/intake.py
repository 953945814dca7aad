"""Takes replies off a Redis connection with as few wake-ups of the process as the traffic allows.

At a few hundred messages a second and more, waking up costs more than a message does (some 70 µs against 10, with
caches gone cold). So while messages come fast they are collected for some milliseconds, like a network card does;
a message that comes alone is never held back. Everything runs in the event loop itself, without a greenlet.
"""

from __future__ import annotations

import _socket
import os
import ssl
from collections import deque
from collections.abc import Callable, Container
from typing import Any

import gevent
import hiredis
from gevent.event import Event

from pushserver.clock import Clock

READ_BYTES = 65_536
#: Reads in a row before others get a turn.
MAX_READS = 8
#: While messages come faster than this they are collected for so long; for a shorter time when even that makes many.
COLLECT_S = 0.007
COLLECT_MANY_S, MANY = 0.003, 12

_READABLE = 1
_NOTHING_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)


class Intake:
    """Replies of one subscribed connection, in order.

    Sharded messages of ``wanted`` channels go to ``on_message(channel, payload)`` at once, from the event loop, so it
    must not block; every other reply is taken with ``next_reply``.
    """

    def __init__(
        self, stream: Any, wanted: Container[bytes], on_message: Callable[[bytes, bytes], None], clock: Clock
    ) -> None:
        # A descriptor of our own: whoever closes the connection shuts it down first, so its end is seen here, and
        # the event loop never watches a number that was given to somebody else. It does not wait, unlike gevent's.
        self._socket = _socket.socket(fileno=os.dup(stream.fileno()))
        self._socket.setblocking(False)
        tls = getattr(stream, "_sslobj", None)
        self._recv: Callable[[int], bytes] = tls.read if tls else self._socket.recv
        # A TLS layer gives a record at a time and holds others that the event loop does not see.
        self._ends_short = not tls
        self._wanted = wanted
        self._on_message = on_message
        self._monotonic_s = clock.monotonic_s
        self._parser = hiredis.Reader()
        self._replies: deque[Any] = deque()
        self._some = Event()
        self._error: Exception | None = None
        self._read_at_s = clock.monotonic_s()
        loop = gevent.get_hub().loop
        self._readable = loop.io(self._socket.fileno(), _READABLE)
        self._few, self._many = (loop.timer(each_s, each_s) for each_s in (COLLECT_S, COLLECT_MANY_S))
        self._timer = self._few
        # The first turn comes by itself: a TLS layer may hold bytes that the socket does not show any more.
        self._timer.again(self._after_collecting)

    def next_reply(self) -> Any:
        """The next reply that is not a message of a wanted channel; waits for it.

        Raises:
            OSError: the connection ended.
            Exception: what ``on_message`` raised; nothing more is read then.
        """
        while not self._replies:
            if self._error is not None:
                raise self._error
            self._some.clear()
            self._some.wait()
        return self._replies.popleft()

    def close(self) -> None:
        """Read no more."""
        self._end(ConnectionError("closed by us"))

    def _end(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
            for watcher in (self._readable, self._few, self._many):
                watcher.stop()
                watcher.close()
            self._socket.close()
            self._some.set()

    def _when_readable(self) -> None:
        if self._take():
            self._readable.stop()
            self._timer.again(self._after_collecting)

    def _after_collecting(self) -> None:
        timer = self._timer
        more = self._take()
        if self._error is not None:
            return
        if not more:
            timer.stop()
            self._readable.start(self._when_readable)
        elif timer is not self._timer:
            timer.stop()
            self._timer.again(self._after_collecting)

    def _take(self) -> bool:
        """Handle what there is; whether more is to be expected soon."""
        messages = reads = 0
        try:
            while reads < MAX_READS:
                data = self._recv(READ_BYTES)
                if not data:
                    raise ConnectionError("closed by Redis")
                reads += 1
                self._parser.feed(data)
                messages += self._hand_out()
                if self._ends_short and len(data) < READ_BYTES:
                    break
        except _NOTHING_YET:
            pass
        except Exception as error:
            # Raised on, in the greenlet that asks for replies: the event loop would only print it.
            self._end(error)
            return False
        if not messages or reads == MAX_READS:
            return reads > 0
        self._timer = self._many if messages >= MANY else self._few
        since_s, self._read_at_s = self._read_at_s, self._monotonic_s()
        return messages > 1 or self._read_at_s - since_s < COLLECT_S

    def _hand_out(self) -> int:
        """The number of messages; ends at the first incomplete one."""
        messages = 0
        gets, wanted, on_message = self._parser.gets, self._wanted, self._on_message
        while (reply := gets()) is not False:
            if type(reply) is list and reply[0] == b"smessage" and reply[1] in wanted:
                messages += 1
                on_message(reply[1], reply[2])
            else:
                self._replies.append(reply)
                self._some.set()
        return messages
