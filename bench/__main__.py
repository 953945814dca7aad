"""All benchmarks: ``make bench``. Prints one table and writes ``bench/results.json``.

    python -m bench --quick
    python -m bench --only fetch --runs 5

Exit code 1 when a run was invalid (an update was lost, say), 130 after Ctrl-C; no process is left either way.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from bench import claims, engine, engine_report, fanout, fetch, fetching, metrics, report
from bench.command import run_command, tell
from bench.fanout_plot import draw


#: Whose rounds are compared with plain calls; more would make no difference.
ROUND_USERS = 50


@click.command()
@click.option("--only", type=click.Choice(report.SECTIONS), help="Leave the others out.")
@click.option("--quick", is_flag=True, help="One short run of each: an impression, no figures.")
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Of each; medians are shown.")
@click.option("--no-peers", is_flag=True, help="Measure this program alone.")
@click.option("--fetch-users", type=click.IntRange(1, 5000), default=600, show_default=True, help="Users to fetch.")
@click.option("--fetch-seconds", type=click.FloatRange(1, 600), default=6, show_default=True, help="Of each fetch run.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=report.RESULTS, show_default=True)
def main(
    only: str | None, quick: bool, runs: int, no_peers: bool, fetch_users: int, fetch_seconds: float, output: Path
) -> int:
    """Measure delivery and fetching beside the peers, the exchange engine and what metrics cost, on this machine."""
    started_s = time.monotonic()
    results = report.started()
    if quick:
        runs, fetch_users, fetch_seconds = 1, min(fetch_users, 200), min(fetch_seconds, 3)
    if only in (None, "fanout"):
        parts = ("project", "curve") if no_peers else fanout.PARTS
        results["fanout"] = fanout.measured(fanout.plan(parts, quick=quick, runs=runs), tell=tell)
        draw(results["fanout"], output.with_name("fanout.png"))
    if only in (None, "fetch"):
        results["fetch"] = fetching.compare(fetch_users, fetch_seconds, runs, not no_peers, tell)
        if not no_peers:
            results["round"] = fetch.compare(ROUND_USERS, fetch_seconds / 2, runs, tell)
    if only in (None, "engine"):
        results["engine"] = engine.measure_all(quick)
    if only in (None, "claims"):
        results["claims"] = claims.measure_all(claims.SIZES, *((20, 200) if quick else (400, 5_000)))
    if only in (None, "metrics"):
        results["metrics"] = metrics.measure_all(quick, tell)
    results["took_s"] = round(time.monotonic() - started_s)
    report.write(results, output)
    print(report.table(results))
    print("\n".join(more_lines(results)))
    tell(f"took {results['took_s']} s; all figures of all runs are in {output}")
    return 1 if report.problems(results) else 0


def more_lines(results: dict[str, Any]) -> list[str]:
    """What was measured of the engine and of metrics; nothing of sections that were left out."""
    said = [line for name, part in results.get("engine", {}).items() for line in engine_report.lines(name, part)]
    said += claims.lines(results["claims"]) if "claims" in results else []
    return said + (metrics.lines(results["metrics"]) if "metrics" in results else [])


if __name__ == "__main__":
    run_command(main)
