"""When this machine stood still: how late a process is that only sleeps and writes a line, as all do into their logs.

A machine with other things to do stops all processes of a test at once; what they then do late is no fault of theirs.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

STEP_S = 0.02


class Stalls:
    """Looks at the clock all the time, between ``start`` and ``stop``. ``path``: a file for its lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._late: list[tuple[float, float]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def in_all_s(self, from_s: float, until_s: float) -> float:
        """Seconds lost between two times of ``time.monotonic``, more than one step at a time."""
        return sum(late_s for at_s, late_s in self._late if from_s <= at_s <= until_s and late_s > STEP_S)

    def count(self, from_s: float, until_s: float) -> int:
        """How often between two times of ``time.monotonic`` this machine was more than one step late."""
        return sum(from_s <= at_s <= until_s and late_s > STEP_S for at_s, late_s in self._late)

    def _look(self) -> None:
        before_s = time.monotonic()
        with self._path.open("w", buffering=1, encoding="utf-8") as lines:
            while not self._stopped.wait(STEP_S):
                lines.write(f"{before_s:.3f}\n")
                now_s = time.monotonic()
                self._late.append((now_s, now_s - before_s - STEP_S))
                before_s = now_s
