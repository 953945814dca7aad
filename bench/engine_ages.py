"""How old what phones see is: sampled from the stored states while the engine runs.

The age of a type is now less the exchange's own time of the answer that confirmed it last, changed or not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bench.processes import BenchmarkFailed
from pushserver.bus import keys
from pushserver.model import DataType


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of them lie. Raises BenchmarkFailed when there are none."""
    if not values:
        raise BenchmarkFailed("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def spread_of(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median, p99 and worst."""
    parts = {"median": 0.5, "p99": 0.99, "worst": 1.0}
    return {name: round(quantile(values, part), digits) for name, part in parts.items()}


class Ages:
    """``sample`` now and then; per type all ages seen, and per user the oldest of them."""

    def __init__(self, client: Any, users: int) -> None:
        self._client = client
        self._wanted = [(user_id, data_type) for user_id in range(1, users + 1) for data_type in DataType]
        self.seen: dict[DataType, list[float]] = {data_type: [] for data_type in DataType}
        self.oldest: dict[tuple[int, DataType], float] = {}
        self.unknown = 0

    def sample(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for user_id, data_type in self._wanted:
            pipeline.hmget(keys.state(user_id, data_type), "as_of", "confirmed")
        rows = pipeline.execute()
        now_ms = time.time() * 1000
        for (user_id, data_type), (_, confirmed) in zip(self._wanted, rows, strict=True):
            if confirmed is None:
                self.unknown += 1
                continue
            age_s = (now_ms - int(confirmed)) / 1000
            self.seen[data_type].append(age_s)
            self.oldest[user_id, data_type] = max(age_s, self.oldest.get((user_id, data_type), 0.0))

    def summary(self) -> dict[str, Any]:
        """Per type ``age_s`` of all samples, and ``oldest_s``: of the users the oldest each of them saw.

        ``stretch`` is the largest of these over their median: how evenly users share what there is.
        """
        result: dict[str, Any] = {}
        for data_type in DataType:
            oldest = [age_s for (_, kind), age_s in self.oldest.items() if kind is data_type]
            result[data_type.value] = {
                "age_s": spread_of(self.seen[data_type]),
                "oldest_s": spread_of(oldest),
                "stretch": round(max(oldest) / quantile(oldest, 0.5), 2),
            }
        return result
