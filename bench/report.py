"""The figures of a benchmark run as one table and one file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _cpu_model(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average_before": os.getloadavg(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def table(results: dict[str, Any]) -> str:
    """Everything that was measured, for a person."""
    here = results["machine"]
    rows = [("benchmark", "who", "figure", "median", "of runs")]
    for section, each in (("delivery", _delivery), ("fetch", _fetch)):
        if section in results:
            for summary in results[section]["summary"]:
                rows += [(section, *row, _valid(summary)) for row in each(summary)]
            rows += [(section, "ratio", name, f"{value:g} x", "") for name, value in results[section]["ratios"].items()]
    lines = [f"{here['usable_cpus']} CPUs ({here['cpu_model']}), Python {here['python']}, {here['system']}"]
    if "delivery" in results:
        load = results["delivery"]["load"]
        lines.append(
            f"delivery: {load['clients']} users with {load['devices']} connection(s) each, {load['rate']:g} states a"
            f" second for {load['seconds']:g} s, positions of 3 rows; CPU of the gunicorn workers alone"
        )
    if "fetch" in results:
        load = results["fetch"]["load"]
        lines.append(
            f"fetch: {load['users']} users, {load['intervals']}, {load['seconds']:g} s; CPU of one push worker"
        )
    return "\n".join([*lines, "", *aligned(rows), *_remarks(results)])


def _valid(summary: dict[str, Any]) -> str:
    return f"{summary['valid_runs']} of {summary['runs']}"


def _saturated(summary: dict[str, Any]) -> str:
    return f"{summary['saturated_runs']} of {summary['runs']} runs"


def _delivery(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    who = f"{summary['target']}, {summary['workers']} worker{'s' if summary['workers'] > 1 else ''}"
    saturated = f" (saturated in {_saturated(summary)})" if summary["saturated_runs"] else ""
    return [
        (who, "server CPU per push", _figure(summary["cpu_us_per_push"], "µs", 1) + saturated),
        (who, "publish to client, p50", _figure(summary["p50_ms"], "ms", 1)),
        (who, "publish to client, p99", _figure(summary["p99_ms"], "ms", 1)),
        (who, "memory (PSS) per connection", _figure(summary["connection_pss_kb"], "KB", 1)),
        (who, "pushes delivered, all runs", str(summary["pushes"])),
    ]


def _fetch(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    who = summary["target"]
    return [
        (who, "rounds per second", _figure(summary["rounds_per_s"], "", 0)),
        (who, "CPU per round", _figure(summary["cpu_us_per_round"], "µs", 0)),
        (who, "requests per round", _figure(summary["requests"], "", 2)),
        (who, "CPU per request", _figure(summary["cpu_us_per_request"], "µs", 0)),
        (who, "cores used", _figure(summary["worker_cores"], "", 2)),
    ]


def _figure(value: float | None, unit: str, digits: int) -> str:
    return "none valid" if value is None else f"{value:.{digits}f} {unit}".strip()


def _remarks(results: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know: saturation and invalid runs."""
    remarks = []
    for section in ("delivery", "fetch"):
        for summary in results.get(section, {}).get("summary", []):
            who = f"{section}, {summary['target']}" + (
                f", {summary['workers']} workers" if "workers" in summary else ""
            )
            if summary.get("saturated_runs"):
                remarks.append(f"SATURATED: {who}: updates queued up in {_saturated(summary)}")
            remarks += [f"INVALID run: {who}: {problem}" for problem in summary["problems"]]
    return ["", *remarks] if remarks else []


def aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Columns as wide as their widest cell; a cell that repeats the one above is left blank."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    above: Sequence[str] = [""] * len(widths)
    for number, row in enumerate(rows):
        shown = [
            "" if column < 2 and row[: column + 1] == above[: column + 1] else cell for column, cell in enumerate(row)
        ]
        yield "  ".join(cell.ljust(width) for cell, width in zip(shown, widths, strict=True)).rstrip()
        if number == 0:
            yield "  ".join("-" * width for width in widths)
        above = row


def write(results: dict[str, Any], path: Path) -> None:
    """Write the whole file or none of it."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
