"""The figures of a benchmark run as one table and one file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench import engine_report

RESULTS = Path(__file__).with_name("results.json")
SECTIONS = ("fanout", "fetch", "engine", "claims", "metrics")


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


def started() -> dict[str, Any]:
    """Results to which sections are to be added."""
    return {"started": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}


def problems(results: dict[str, Any]) -> list[str]:
    """Why runs were invalid, each with whose it was."""
    return (
        [f"round: {problem}" for problem in results.get("round", {}).get("problems", [])]
        + [
            f"{section}, {_who(summary)}: {problem}"
            for section in SECTIONS
            for summary in _summaries(results, section)
            for problem in summary["problems"]
        ]
        + [
            f"engine, {name}: {problem}"
            for name, part in results.get("engine", {}).items()
            for problem in engine_report.problems(part)
        ]
    )


def table(results: dict[str, Any]) -> str:
    """Everything that was measured, for a person."""
    here = results["machine"]
    rows = [("benchmark", "who", "figure", "median", "of runs")]
    for section, each in (("fanout", _fanout), ("fetch", _fetch)):
        for summary in _summaries(results, section):
            rows += [(section, *row, f"{summary['valid_runs']} of {summary['runs']}") for row in each(summary)]
    lines = [f"{here['usable_cpus']} CPUs ({here['cpu_model']}), Python {here['python']}, {here['system']}"]
    if "fanout" in results:
        load = results["fanout"]["load"]
        lines.append(
            f"fanout: {load['clients']} users, {load['rate']:g} states a second for {load['seconds']:g} s, positions"
            " of 3 rows; CPU of all web workers"
        )
    if "fetch" in results:
        load = results["fetch"]["load"]
        lines.append(
            f"fetch: {load['users']} users, {load['intervals']}, {load['seconds']:g} s; CPU of one push worker"
        )
        rows += [("fetch", "ratio", name, f"{value:g} x", "") for name, value in results["fetch"]["ratios"].items()]
    if "round" in results:
        rows += _round(results["round"])
    return "\n".join([*lines, "", *aligned(rows), *_goals(results), *_remarks(results)])


def _summaries(results: dict[str, Any], section: str) -> list[dict[str, Any]]:
    part = results.get(section, {})
    return [*part.get("summary", []), *part.get("curve", [])]


def _who(summary: dict[str, Any]) -> str:
    if "workers" not in summary:
        return str(summary["target"])
    plural = "s" if summary["workers"] > 1 else ""
    return f"{summary['target']}, {summary['workers']} worker{plural}, {summary['clients']} clients"


def _saturated(summary: dict[str, Any]) -> str:
    return f"{summary['saturated_runs']} of {summary['runs']} runs"


def _fanout(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    who = _who(summary)
    saturated = f" (saturated in {_saturated(summary)})" if summary["saturated_runs"] else ""
    return [
        (who, "server CPU per push", _figure(summary["cpu_us_per_push"], "µs", 1) + saturated),
        (who, "publish to client, p50", _figure(summary["p50_ms"], "ms", 1)),
        (who, "publish to client, p99", _figure(summary["p99_ms"], "ms", 1)),
        (who, "memory (PSS) per connection", _figure(summary["connection_pss_kb"], "KB", 1)),
        (who, "… the first ones included", _figure(summary["connection_pss_with_first_kb"], "KB", 1)),
        (who, "pushes a second", _figure(summary["delivered_rate"], "", 0)),
        (who, "cores: web, clients, publisher, Valkey", _cores(summary)),
        (who, "delivered, all runs", f"{summary['pushes']} of {summary['expected']}"),
    ]


def _cores(summary: dict[str, Any]) -> str:
    parts = [summary[f"{part}_cores"] for part in ("server", "clients", "publisher", "valkey")]
    return ", ".join(_figure(part, "", 2) for part in parts)


def _fetch(summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    who = summary["target"]
    return [
        (who, "rounds per second", _figure(summary["rounds_per_s"], "", 0)),
        (who, "CPU per round", _figure(summary["cpu_us_per_round"], "µs", 0)),
        (who, "requests per round", _figure(summary["requests"], "", 2)),
        (who, "CPU per request", _figure(summary["cpu_us_per_request"], "µs", 0)),
        (who, "cores used", _figure(summary["worker_cores"], "", 2)),
    ]


def _round(measured: dict[str, Any]) -> list[tuple[str, ...]]:
    """One fetch round in process beside three plain calls."""
    of_runs = str(len(measured["cpu_us_per_round"]["pushserver"]))
    verdict = "met" if measured["ratio"] <= measured["goal"] else "MISSED"
    return [
        *(
            ("round", who, "CPU", _figure(median_us, "µs", 0), of_runs)
            for who, median_us in measured["median_us"].items()
        ),
        ("round", "ratio", f"goal at most {measured['goal']:g} x: {verdict}", f"{measured['ratio']:g} x", ""),
    ]


def _figure(value: float | None, unit: str, digits: int) -> str:
    return "none valid" if value is None else f"{value:.{digits}f} {unit}".strip()


def _goals(results: dict[str, Any]) -> list[str]:
    if "fanout" not in results:
        return []
    rows = [("goal for pushserver", "at most", "measured", "")]
    for goal in results["fanout"]["goals"]:
        digits = 2 if goal["unit"] == "x" else 1
        limit, figure = (
            f"{goal[name]:.{digits}f} {goal['unit']}" if goal[name] is not None else "" for name in ("limit", "figure")
        )
        rows.append((goal["name"], limit, figure, goal["is"]))
    return ["", *aligned(rows)]


def _remarks(results: dict[str, Any]) -> list[str]:
    """What a reader of the figures must know: saturation and invalid runs."""
    remarks = [
        f"SATURATED: fanout, {_who(summary)}: updates queued up in {_saturated(summary)};"
        f" its figures are at {summary['delivered_rate']:.0f} pushes/s"
        for summary in _summaries(results, "fanout")
        if summary["saturated_runs"]
    ]
    remarks += [f"INVALID run: {problem}" for problem in problems(results)]
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


def read(path: Path) -> dict[str, Any]:
    """What an earlier benchmark wrote there; nothing if there was none."""
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return results


def write(results: dict[str, Any], path: Path) -> None:
    """Write the whole file or none of it."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)
