"""What metrics cost: of a web worker's CPU for each push, and the time of a scrape.

python -m bench.metrics                 # about 3 minutes
python -m bench.metrics --quick
python -m bench.metrics --runs 10       # more runs of the CPU, whose difference is small
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench import metrics_cpu, metrics_scrape, report
from bench.command import run_command, tell

RUNS = 6
SECONDS = 8.0
QUICK_SECONDS = 3.0


def measure_all(quick: bool, tell: Callable[[str], None], runs: int = RUNS) -> dict[str, Any]:
    cpu = metrics_cpu.compare(1 if quick else runs, QUICK_SECONDS if quick else SECONDS, tell)
    tell(f"scrapes of {metrics_scrape.WORKERS} web workers")
    return {"cpu": cpu, "scrape": metrics_scrape.measure(reloads=100 if quick else metrics_scrape.RELOADS)}


def lines(result: dict[str, Any]) -> list[str]:
    cpu, scrape = result["cpu"], result["scrape"]
    load = scrape["load"]
    rows: list[tuple[str, str, str]] = [("metrics", "median", "")]
    rows += [(f"CPU per push, {who}", f"{used_us:.2f} µs", "") for who, used_us in cpu["cpu_us_per_push"].items()]
    for what, name in (
        ("the observer alone", "observer_percent"),
        ("all that is there for metrics", "everything_percent"),
    ):
        rows.append((f"share of {what}", f"{cpu[name]:.1f} %", _verdict(cpu[name], cpu["goal_percent"], "%")))
    for when, name in (
        (f"scrape of {load['workers']} web workers", "rest"),
        (f"… while they push {load['rate']} states/s", "pushing"),
        ("… of copies of their files", "unloaded"),
        (f"… after {load['reloads']} reloads of a worker", "reloaded"),
    ):
        verdict = _verdict(scrape[name]["p99_ms"], scrape["goal_ms"], "ms")
        rows.append((when, f"p50 {scrape[name]['p50_ms']:.1f} ms, p99 {scrape[name]['p99_ms']:.1f} ms", verdict))
    rows += [
        ("gunicorn's master, CPU per scrape", f"{scrape['master_cpu_ms']:.1f} ms", ""),
        ("… and per worker that dies", f"{scrape['merge_ms']:.1f} ms", ""),
        ("the page", f"{scrape['page_bytes']:,} bytes, {scrape['series']} series", ""),
        ("files before and after the reloads", f"{scrape['files']}, {scrape['files_after']}", ""),
    ]
    return list(report.aligned(rows))


def _verdict(figure: float, goal: float, unit: str) -> str:
    return f"{'met' if figure < goal else 'MISSED'} (goal: under {goal:g} {unit})"


@click.command()
@click.option("--quick", is_flag=True, help="One short run of each: an impression, no figures.")
@click.option("--runs", type=click.IntRange(1, 100), default=RUNS, show_default=True, help="Of the CPU per push.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=report.RESULTS, show_default=True)
def main(quick: bool, runs: int, output: Path) -> int:
    """Measure what metrics cost on this machine."""
    result = measure_all(quick, tell, runs)
    results = report.read(output) or report.started()
    results["metrics"] = {**report.started(), **result}
    report.write(results, output)
    print("\n".join(lines(result)))
    return 0


if __name__ == "__main__":
    run_command(main)
