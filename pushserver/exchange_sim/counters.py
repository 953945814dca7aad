"""What was asked of the exchange, counted. A mark remembers the counts of a moment, to ask for those since."""

from __future__ import annotations

from collections import Counter
from typing import Any

#: The API key of requests that named none.
NO_KEY = "-"


class Counters:
    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()  # (path, api key)
        self.ret_codes: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.refused_signatures = 0
        self._marks: dict[int, Counter[tuple[str, str]]] = {}

    def mark(self) -> int:
        """Remember the counts of now; the number to ask with."""
        number = len(self._marks) + 1
        self._marks[number] = self.requests.copy()
        return number

    def since(self, mark: int) -> Counter[tuple[str, str]]:
        """Requests since ``mark``; 0 means since the start. Raises KeyError for a mark never set."""
        return self.requests - self._marks[mark] if mark else self.requests

    def report(self, mark: int) -> dict[str, Any]:
        """Requests since ``mark`` by endpoint and by key; the other counts are since the start."""
        requests = self.since(mark)
        by_endpoint: Counter[str] = Counter()
        by_key: dict[str, Counter[str]] = {}
        for (path, api_key), count in requests.items():
            by_endpoint[path] += count
            by_key.setdefault(api_key, Counter())[path] += count
        return {
            "requests": sum(requests.values()),
            "by_endpoint": dict(by_endpoint),
            "by_key": {api_key: dict(counts) for api_key, counts in by_key.items()},
            "ret_codes": dict(self.ret_codes),
            "statuses": dict(self.statuses),
            "faults": dict(self.faults),
            "refused_signatures": self.refused_signatures,
        }
