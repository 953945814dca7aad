"""The picture of the fan-out benchmark: server CPU per push beside the peers, and with growing numbers of clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.goals import FLATNESS_PERCENT

COLOURS = ("#1a7f5a", "#8c6bb1", "#b0b0b0")


def draw(section: dict[str, Any], path: Path) -> None:
    """Write a PNG. What was not measured is left out."""
    load = section["load"]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    bars, line = figure.subplots(1, 2)
    figure.suptitle(f"Server CPU per delivered push, {load['rate']:g} pushes a second, each client in rooms of its own")
    _bars(bars, section["summary"], load["clients"])
    _line(line, section["curve"])
    figure.savefig(path, dpi=120)


def _bars(axes: Axes, summaries: Sequence[dict[str, Any]], clients: int) -> None:
    targets = list(dict.fromkeys(row["target"] for row in summaries))
    worker_counts = sorted({row["workers"] for row in summaries})
    width = 0.8 / max(1, len(targets))
    for number, target in enumerate(targets):
        rows = [row for row in summaries if row["target"] == target and row["cpu_us_per_push"]]
        places = [worker_counts.index(row["workers"]) + (number - (len(targets) - 1) / 2) * width for row in rows]
        bars = axes.bar(
            places, [row["cpu_us_per_push"] for row in rows], width * 0.94, label=target, color=COLOURS[number % 3]
        )
        axes.bar_label(bars, [f"{row['cpu_us_per_push']:.0f}{'*' * bool(row['saturated_runs'])}" for row in rows])
    axes.set_xticks(range(len(worker_counts)), [f"{count} worker{'s' * (count > 1)}" for count in worker_counts])
    axes.set_ylabel("µs of CPU, all web workers")
    axes.set_title(f"{clients} clients")
    if any(row["saturated_runs"] for row in summaries):
        axes.set_xlabel("* saturated: the figure is at the rate that it reached")
    if targets:
        axes.margins(y=0.3)
        axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, curve: Sequence[dict[str, Any]]) -> None:
    points = sorted((row["clients"], row["cpu_us_per_push"]) for row in curve if row["cpu_us_per_push"])
    axes.set_xlabel("clients")
    axes.set_ylabel("µs of CPU, all web workers")
    axes.spines[["top", "right"]].set_visible(False)
    if not points:
        axes.set_title("growing numbers of clients: not measured")
        axes.set_axis_off()
        return
    clients, cpu = zip(*points, strict=True)
    workers = curve[0]["workers"]
    axes.set_title(f"{curve[0]['target']}, {workers} worker{'s' * (workers > 1)}, growing numbers of clients")
    share = FLATNESS_PERCENT / 100
    axes.axhspan(
        cpu[0] * (1 - share), cpu[0] * (1 + share), color=COLOURS[0], alpha=0.12, label=f"±{FLATNESS_PERCENT:g} %"
    )
    axes.plot(clients, cpu, marker="o", color=COLOURS[0])
    for place, figure in points:
        axes.annotate(f"{figure:.0f}", (place, figure), textcoords="offset points", xytext=(0, 8), ha="center")
    axes.set_xticks(clients)
    axes.set_ylim(0, max(cpu) * 1.4)
    axes.legend(frameon=False, loc="lower left")
