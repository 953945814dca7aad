"""What the proxy does with the bytes of one connection: see ``proxy``."""

from __future__ import annotations

import asyncio
import enum
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

FIRST_BYTES = 4096
CHUNK_BYTES = 65_536
#: What the proxy itself holds back of one direction of one connection before it stops reading.
HELD_BYTES = 1 << 20
LOOK_EVERY_S = 0.01
#: A bandwidth is spread over pieces of this duration.
PIECE_S = 0.05


class Direction(enum.Enum):
    TO_SERVER = "to server"
    TO_CLIENT = "to client"
    BOTH = "both"


@dataclass(slots=True)
class Treatment:
    """What happens to the bytes of one direction."""

    latency_s: float = 0.0
    bytes_per_s: float | None = None
    slice_bytes: int | None = None
    slice_pause_s: float = 0.0
    swallow: bool = False
    hold: bool = False
    end_after_bytes: int | None = None


WELL = Treatment()


class Link:
    """One client's connection and ours to the server. ``first_bytes`` is what the client said first."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.first_bytes = b""
        self.task: asyncio.Task[None] | None = None

    def reset(self) -> None:
        """End both connections with RST, as soon as the pumps have let go of them."""
        for end in (self.client, self.server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.task is not None:
            self.task.cancel()


class Pump:
    """One direction of a link: reads into ``_waiting``, writes from it when due, as ``treatment()`` says then."""

    def __init__(self, link: Link, direction: Direction, treatment: Callable[[], Treatment]) -> None:
        self._link, self._direction, self._treatment_now = link, direction, treatment
        ends = (link.client, link.server)
        self._source, self._target = ends if direction is Direction.TO_SERVER else ends[::-1]
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._waiting_bytes = 0
        self._news = asyncio.Event()
        self._sent = 0
        self._free_at_s = 0.0

    @property
    def _treatment(self) -> Treatment:
        return self._treatment_now()

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._waiting_bytes > self._allowance():
                await asyncio.sleep(LOOK_EVERY_S)
            data = await loop.sock_recv(self._source, min(CHUNK_BYTES, self._allowance()))
            if self._direction is Direction.TO_SERVER and len(self._link.first_bytes) < FIRST_BYTES:
                self._link.first_bytes += data[: FIRST_BYTES - len(self._link.first_bytes)]
            self._waiting.append((time.monotonic(), data))
            self._waiting_bytes += len(data)
            self._news.set()
            if not data:
                return

    def _allowance(self) -> int:
        """With a bandwidth little is held back, so that the sender soon notices."""
        rate = self._treatment.bytes_per_s
        return HELD_BYTES if rate is None else max(1, int(rate * PIECE_S))

    async def write(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            arrived_s, data = self._waiting.popleft()
            # The latency is read anew each time: it may be taken back while bytes wait.
            while self._treatment.hold or time.monotonic() < arrived_s + self._treatment.latency_s:
                await asyncio.sleep(min(LOOK_EVERY_S, self._treatment.latency_s or LOOK_EVERY_S))
            if not data:
                self._target.shutdown(socket.SHUT_WR)
                return
            await self._pass_on(data)
            self._waiting_bytes -= len(data)

    async def _pass_on(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data:
            treatment = self._treatment
            if treatment.swallow:
                return
            size = len(data)
            if treatment.bytes_per_s is not None:
                size = min(size, max(1, int(treatment.bytes_per_s * PIECE_S)))
            if treatment.slice_bytes is not None:
                size = min(size, treatment.slice_bytes)
            if treatment.end_after_bytes is not None:
                size = min(size, treatment.end_after_bytes - self._sent)
                if size <= 0:
                    raise ConnectionAbortedError("the limit is reached")
            await loop.sock_sendall(self._target, data[:size])
            data = data[size:]
            if treatment.end_after_bytes is not None:
                self._sent += size
            if treatment.bytes_per_s is not None:
                self._free_at_s = max(self._free_at_s, time.monotonic() - PIECE_S) + size / treatment.bytes_per_s
                await asyncio.sleep(self._free_at_s - time.monotonic())
            elif treatment.slice_bytes is not None:
                await asyncio.sleep(treatment.slice_pause_s)
