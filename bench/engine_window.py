"""What happened between two moments: requests, CPU, updates, as told by the exchange, the workers and the kernel."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.engine_listener import Heard
from bench.engine_stack import Stack
from pushserver.exchange_sim.client import Json

#: Private endpoints' answers that mean that somebody asked too much.
TOO_MUCH = "10006"
HINTS, ROUNDS, BEHIND = "push_stream_hints_total", "push_fetch_rounds_total", "push_mark_behind_seconds"


#: Answers that the exchange's log of truth keeps: more than come while anything is measured.
KEPT = 100_000


def most_in(seconds: float, times_s: Sequence[float]) -> int:
    """The most of these moments that lie within any so many seconds."""
    ordered, first, most = sorted(times_s), 0, 0
    for last, at_s in enumerate(ordered):
        while ordered[first] <= at_s - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


class Window:
    """Opens when made."""

    def __init__(self, stack: Stack, heard: Heard) -> None:
        self._stack, self._heard = stack, heard
        self._mark = stack.sim.mark_counters()
        self._updates = heard.updates.copy()
        self._statuses = heard.statuses.copy()
        self._told = self._metrics()
        self._cpu = stack.cpu_s()
        self._started_s = time.monotonic()
        stack.sim.keep_in_truth(capacity=KEPT)
        self._seq = int(stack.sim.call("GET", "truth", {"limit": 1})["last_seq"])

    def close(self) -> dict[str, Any]:
        """Everything since; ``bans`` and ``refused`` are since the start of the exchange."""
        cpu, seconds = self._stack.cpu_s(), time.monotonic() - self._started_s
        told, counters = self._metrics(), self._stack.sim.counters(self._mark)
        updates = self._heard.updates - self._updates
        answers = self._stack.sim.truth(after=self._seq, kind="answer", limit=KEPT)
        return {
            "seconds": round(seconds, 1),
            "requests_per_s": round(counters["requests"] / seconds, 1),
            "by_endpoint_per_s": {
                path.rsplit("/", 1)[-1]: round(count / seconds, 1) for path, count in counters["by_endpoint"].items()
            },
            "most_in_5s": most_in(5.0, [entry["t_in"] for entry in answers]),
            "bans": sum(_counts(counters["bans"])),
            "refused": int(counters["ret_codes"].get(TOO_MUCH, 0)) + sum(_counts(counters["refused_during_bans"])),
            "headroom": round(1 - counters["requests"] / seconds * 5 / self._stack.plan.requests_per_5s, 3),
            "updates_per_s": {name: round(count / seconds, 1) for name, count in updates.items()},
            "hints_per_s": round((told[HINTS] - self._told[HINTS]) / seconds, 2),
            "rounds_per_s": round((told[ROUNDS] - self._told[ROUNDS]) / seconds, 1),
            "mark_behind_s": told[BEHIND],
            "cores": {name: round((cpu[name] - self._cpu[name]) / seconds, 3) for name in cpu},
            "statuses": _names(self._heard.statuses - self._statuses),
        }

    def _metrics(self) -> dict[str, float]:
        return {name: self._stack.metric(name) for name in (HINTS, ROUNDS, BEHIND)}


def _counts(told: Json | int) -> list[int]:
    return [told] if isinstance(told, int) else list(told.values())


def _names(statuses: Counter[tuple[str, str, str]]) -> dict[str, int]:
    return {" ".join(filter(None, key)): count for key, count in statuses.most_common()}
