"""All benchmarks: ``make bench``. Prints one table and writes ``bench/results.json``.

    python -m bench --only delivery --clients 1000 --rate 4000 --seconds 10 --runs 5

Exit code 1 when a run was invalid (an update was lost, say), 130 after Ctrl-C; no process is left either way.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bench import delivery, fetching, report
from bench.processes import BenchmarkFailed, end_on_signals
from bench.targets import Project, StockFlaskSocketIO, Target

RESULTS = Path(__file__).with_name("results.json")


def parse_worker_counts(text: str) -> list[int]:
    """``1,4``."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise click.BadParameter(f"{text!r} is not a list of worker counts such as 1,4")
    return counts


def tell(line: str) -> None:
    """Progress; the table alone goes to stdout."""
    print(line, file=sys.stderr, flush=True)


@click.command()
@click.option("--only", type=click.Choice(["delivery", "fetch"]), help="Leave the other one out.")
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Of each; medians are shown.")
@click.option("--clients", type=click.IntRange(2, 20_000), default=500, show_default=True, help="Users that listen.")
@click.option("--devices", type=click.IntRange(1, 20), default=1, show_default=True, help="Connections of each user.")
@click.option("--rate", type=click.FloatRange(1, 50_000), default=2000, show_default=True, help="States a second.")
@click.option("--seconds", type=click.FloatRange(1, 600), default=5, show_default=True, help="Of publishing per run.")
@click.option("--workers", default="1,4", show_default=True, help="Numbers of web workers to measure.")
@click.option("--no-peers", is_flag=True, help="Measure this program alone.")
@click.option("--fetch-users", type=click.IntRange(1, 5000), default=600, show_default=True, help="Users to fetch.")
@click.option("--fetch-seconds", type=click.FloatRange(1, 600), default=6, show_default=True, help="Of each fetch run.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=RESULTS, show_default=True)
def main(
    only: str | None, runs: int, clients: int, devices: int, rate: float, seconds: float, workers: str,
    no_peers: bool, fetch_users: int, fetch_seconds: float, output: Path,
) -> None:  # fmt: skip
    """Measure delivery and fetching beside stock peers, on this machine."""
    worker_counts = parse_worker_counts(workers)
    targets: list[Target] = [Project()] if no_peers else [Project(), StockFlaskSocketIO()]
    started_s = time.monotonic()
    results: dict[str, Any] = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "machine": report.machine()}
    if only != "fetch":
        load = delivery.Load(clients, devices, rate, seconds)
        results["delivery"] = delivery.compare(load, runs, worker_counts, targets, tell)
    if only != "delivery":
        results["fetch"] = fetching.compare(fetch_users, fetch_seconds, runs, not no_peers, tell)
    results["took_s"] = round(time.monotonic() - started_s)
    report.write(results, output)
    print(report.table(results))
    tell(f"took {results['took_s']} s; all figures of all runs are in {output}")
    sections = [results[name] for name in ("delivery", "fetch") if name in results]
    sys.exit(1 if any(summary["problems"] for section in sections for summary in section["summary"]) else 0)


if __name__ == "__main__":
    end_on_signals()
    try:
        main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        tell("stopped")
        sys.exit(130)
    except BenchmarkFailed as failure:
        tell(f"the benchmark could not be made: {failure}")
        sys.exit(1)
