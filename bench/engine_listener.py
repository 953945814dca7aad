"""Somebody who watches every type of every user, cheaper than phones: one socket, and frames read by patterns.

What a frame shows is compared with what the benchmark did at the exchange, so deeds carry a number in a figure: an
order's quantity, a position's size. The time from the deed to the frame is what a phone would have waited for, but
for its web worker.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bench.processes import BenchmarkFailed
from pushserver.bus import keys
from pushserver.model import DataType

#: Channel, ``u seq committed_ms`` or ``s state reason``, and the frame up to the end of its line.
MESSAGE = re.compile(rb"push:\{(\d+)\}:(\w+)\r\n\$\d+\r\n([us]) (\w+) (\w*)\n([^\r]*)\r\n")
#: Numbers that deeds carry: whole, and above whatever customers trade of the coins concerned.
NUMBER = re.compile(rb'"(?:size|quantity)":(\d{4,6})\.0[,}]')
MARK = re.compile(rb'"symbol":"XRPUSDT"[^}]*"mark_price":([0-9.]+)')
#: A message that is not whole yet is at most so long.
LONGEST_MESSAGE = 256 * 1024


@dataclass(slots=True)
class Heard:
    """``numbers``: (type, user, number) to the wall-clock ms at which it was first shown.

    ``marks``: (user, mark above or below the middle) of each XRPUSDT position, with the time, each time it changed.
    """

    updates: Counter[str] = field(default_factory=Counter)
    statuses: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    numbers: dict[tuple[str, int, int], float] = field(default_factory=dict)
    marks: list[tuple[int, bool, float]] = field(default_factory=list)


class Listener:
    """``start``, then read ``heard``; ``MARK_MIDDLE`` tells the two prices between which a mark is made to jump."""

    MARK_MIDDLE = 150.0

    def __init__(self, redis_url: str, users: int) -> None:
        at = urlsplit(redis_url)
        self._socket = socket.create_connection((at.hostname or "127.0.0.1", at.port or 6379), timeout=30)
        self._users = users
        self._side: dict[int, bool] = {}
        self._rest = b""
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._stopped = False
        self.heard = Heard()

    def __enter__(self) -> Listener:
        self._subscribe()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _subscribe(self) -> None:
        """Every channel by itself is another slot in a cluster; here one command may name many."""
        for user_id in range(1, self._users + 1):
            channels = [keys.update_channel(user_id, data_type).encode() for data_type in DataType]
            parts = [b"SSUBSCRIBE", *channels]
            self._socket.sendall(
                b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            )
        told = b""
        while told.count(b"ssubscribe") < self._users * len(DataType):
            data = self._socket.recv(1 << 20)
            if not data:
                raise BenchmarkFailed("Valkey closed the listener's connection")
            told += data
        self._socket.settimeout(None)

    def _listen(self) -> None:
        while not self._stopped:
            try:
                data = self._socket.recv(1 << 20)
            except OSError:
                return
            if not data:
                return
            self.read(data, time.time() * 1000)

    def read(self, data: bytes, at_ms: float) -> None:
        """What came at ``at_ms``; messages may be cut anywhere."""
        data = self._rest + data
        end = 0
        for message in MESSAGE.finditer(data):
            end = message.end()
            user_id, data_type, kind, first, second, frame = message.groups()
            if kind == b"u":
                self._update(int(user_id), data_type.decode(), frame, at_ms)
            else:
                self.heard.statuses[data_type.decode(), first.decode(), second.decode()] += 1
        self._rest = data[end:][-LONGEST_MESSAGE:]

    def _update(self, user_id: int, data_type: str, frame: bytes, at_ms: float) -> None:
        self.heard.updates[data_type] += 1
        if data_type not in ("positions", "orders"):
            return
        for number in NUMBER.findall(frame):
            self.heard.numbers.setdefault((data_type, user_id, int(number)), at_ms)
        if data_type == "positions" and (mark := MARK.search(frame)):
            side = float(mark[1]) > self.MARK_MIDDLE
            if self._side.get(user_id) is not side:
                self._side[user_id] = side
                self.heard.marks.append((user_id, side, at_ms))
