"""The log of truth: what changed when, and what was answered to whom. A checker compares clients with it.

``t`` is seconds of the monotonic clock (comparable between processes of one machine), ``wall_ms`` the wall clock
without the simulated skew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

DEFAULT_CAPACITY = 20_000


class TruthLog:
    """A bounded log; each entry has a ``seq`` that grows by one, so a reader sees whether it missed any."""

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=capacity)
        self.last_seq = 0
        #: Keep the body of each answer in its entry, as text.
        self.keep_bodies = False
        #: Keep the figures after each change of an account in its entry.
        self.keep_figures = False
        #: Keep an entry for every message of a private stream.
        self.keep_streams = False

    def resize(self, capacity: int) -> None:
        self._entries = deque(self._entries, maxlen=capacity)

    def record(self, kind: str, entry: Mapping[str, Any]) -> None:
        self.last_seq += 1
        self._entries.append({"seq": self.last_seq, "kind": kind, **entry})

    def record_stream(self, entry: Mapping[str, Any], t: float) -> None:
        """A message that was sent on a private stream at monotonic second ``t``, where these are kept."""
        if self.keep_streams:
            self.record("stream", {"t": t, **entry})

    def read(self, after: int, limit: int, kind: str | None) -> list[dict[str, Any]]:
        """Up to ``limit`` entries with a larger ``seq`` than ``after``, oldest first."""
        found: list[dict[str, Any]] = []
        first = self._entries[0]["seq"] if self._entries else 0
        for index in range(max(0, after + 1 - first), len(self._entries)):
            entry = self._entries[index]
            if kind is None or entry["kind"] == kind:
                found.append(entry)
                if len(found) >= limit:
                    break
        return found

    def clear(self) -> None:
        self._entries.clear()
