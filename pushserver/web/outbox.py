"""Everything that leaves for one phone, in one place: two writers on one socket would tear frames apart.

When nothing is waiting, a frame is written at once, without a greenlet; only what the socket does not take waits:
ordered frames in a bounded queue, and per data type one update, the newest. So a phone that does not read costs
bounded memory and gets the truth when it reads again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gevent

from pushserver.clock import Clock
from pushserver.limits import DEFAULTS
from pushserver.model import DataType

WRITABLE = 2


class Outbox:
    """``send`` and ``send_update`` never block and never raise; a dead socket just ends the outbox.

    ``max_waiting_bytes`` is for ordered frames; beyond it the phone is not reading and its connection is given up.
    ``on_dead(reason)`` is called once, from within a send or from the event loop, when the socket broke
    (``transport error``) or the phone let too much pile up (``slow client``).
    """

    __slots__ = (
        "_clock", "_closing", "_max_waiting_bytes", "_on_dead", "_ordered", "_partial", "_raw", "_updates",
        "_waiting_bytes", "_watcher", "open", "stuck_since_s",
    )  # fmt: skip

    def __init__(
        self,
        connection: Any,
        clock: Clock,
        on_dead: Callable[[str], None],
        max_waiting_bytes: int = DEFAULTS.max_waiting_bytes,
    ) -> None:
        # A plain socket: gevent's own send waits for room, this one says at once when there is none.
        self._raw = connection
        self._clock = clock
        self._max_waiting_bytes = max_waiting_bytes
        self._on_dead = on_dead
        self._partial: memoryview | None = None
        self._ordered: deque[bytes] = deque()
        self._updates: dict[DataType, bytes] = {}
        self._waiting_bytes = 0
        self._watcher: Any = None
        self._closing = False
        self.open = True
        #: Since when nothing could be written, monotonic; None while all is well.
        self.stuck_since_s: float | None = None

    @property
    def idle(self) -> bool:
        """Nothing waits to be written."""
        return self._partial is None and not self._ordered and not self._updates

    @property
    def messages(self) -> int:
        """How many wait, one that is written in part included."""
        return len(self._ordered) + len(self._updates) + (self._partial is not None)

    def send(self, frame: bytes) -> None:
        """Send a frame after all ordered ones before it."""
        if not self.open or self._closing:
            return
        if self.idle:
            self._write_now(frame)
            return
        self._ordered.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > self._max_waiting_bytes:
            self._die("slow client")

    def send_update(self, data_type: DataType, frame: bytes) -> bool:
        """Send a type's newest state; True when it replaced one that was still waiting."""
        if not self.open or self._closing:
            return False
        if self._partial is None and not self._ordered and not self._updates:  # idle, without a call
            self._write_now(frame)
            return False
        replaced = data_type in self._updates
        self._updates[data_type] = frame
        return replaced

    def discard_update(self, data_type: DataType) -> None:
        """Forget a waiting update of a type that is not wanted any more."""
        self._updates.pop(data_type, None)

    def finish(self, last_frame: bytes) -> None:
        """Send what is ordered, then ``last_frame``, then nothing any more."""
        self._updates.clear()
        self.send(last_frame)
        self._closing = True

    def close(self) -> None:
        """Stop at once; what waits is dropped."""
        self.open = False
        self._partial = None
        self._ordered.clear()
        self._updates.clear()
        self._stop_watching()

    def _write_now(self, frame: bytes) -> None:
        try:
            sent = self._raw.send(frame)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._die("transport error")
            return
        if sent < len(frame):
            self._partial = memoryview(frame)[sent:]
            self._watch()

    def _watch(self) -> None:
        self.stuck_since_s = self._clock.monotonic_s()
        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.io(self._raw.fileno(), WRITABLE)
        self._watcher.start(self._flush)

    def _stop_watching(self) -> None:
        self.stuck_since_s = None
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _flush(self) -> None:
        """The socket takes bytes again (called by the event loop)."""
        while self.open:
            if self._partial is None:
                self._partial = self._next_waiting()
                if self._partial is None:
                    self._stop_watching()
                    return
            try:
                sent = self._raw.send(self._partial)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._die("transport error")
                return
            self.stuck_since_s = self._clock.monotonic_s()
            self._partial = self._partial[sent:] if sent < len(self._partial) else None

    def _next_waiting(self) -> memoryview | None:
        if self._ordered:
            frame = self._ordered.popleft()
            self._waiting_bytes -= len(frame)
            return memoryview(frame)
        if self._updates:
            return memoryview(self._updates.pop(next(iter(self._updates))))
        return None

    def _die(self, reason: str) -> None:
        if self.open:
            self.close()
            self._on_dead(reason)
