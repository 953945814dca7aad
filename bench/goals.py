"""What delivery must cost at most, and whether it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.targets import NodeSocketIO, Project, StockFlaskSocketIO

#: The number of web workers the limits are meant for.
WORKERS = 4
#: How far CPU per push may be, with more clients, from what it is with the fewest.
FLATNESS_PERCENT = 15.0


@dataclass(frozen=True, slots=True)
class Goal:
    """``figure`` is None when it was not measured."""

    name: str
    figure: float | None
    limit: float
    unit: str

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return "not measured"
        return "met" if self.figure <= self.limit else "MISSED"

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "figure": self.figure, "limit": self.limit, "unit": self.unit, "is": self.verdict}


def goals(summaries: Sequence[dict[str, Any]], curve: Sequence[dict[str, Any]]) -> list[Goal]:
    """``curve`` is the program alone with growing numbers of clients."""

    def figure(name: str, target: str, workers: int = WORKERS) -> float | None:
        rows = [row for row in summaries if (row["target"], row["workers"]) == (target, workers)]
        return rows[0][name] if rows else None

    cpu = figure("cpu_us_per_push", Project.name)
    own_rows = [row for row in summaries if row["target"] == Project.name]
    return [
        Goal(f"CPU per push, {WORKERS} workers", cpu, 35.0, "µs"),
        Goal("… of Node's socket.io", _ratio(cpu, figure("cpu_us_per_push", NodeSocketIO.name)), 1 / 3, "x"),
        Goal("… of stock Flask-SocketIO's", _ratio(cpu, figure("cpu_us_per_push", StockFlaskSocketIO.name)), 0.1, "x"),
        Goal("… of its own with 1 worker", _ratio(cpu, figure("cpu_us_per_push", Project.name, 1)), 1.7, "x"),
        Goal("publish to client, p99", _worst(own_rows, "p99_ms"), 10.0, "ms"),
        Goal("PSS per connection", _worst(own_rows, "connection_pss_kb"), 35.0, "KB"),
        Goal("CPU per push changes with clients by", _unevenness(curve), FLATNESS_PERCENT, "%"),
    ]


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def _worst(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    return max((row[name] for row in rows if row[name] is not None), default=None)


def _unevenness(curve: Sequence[dict[str, Any]]) -> float | None:
    """The largest distance from the figure with the fewest clients, in percent of it."""
    points = sorted((row["clients"], row["cpu_us_per_push"]) for row in curve if row["cpu_us_per_push"])
    if len(points) < 2:
        return None
    first = points[0][1]
    return max(abs(cpu - first) for _, cpu in points[1:]) / first * 100
