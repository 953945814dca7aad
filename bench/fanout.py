"""Delivery of per-user states at a rate, beside the peers, and with growing numbers of clients.

    python -m bench.fanout                                         # everything, about 10 minutes
    python -m bench.fanout --quick                                 # an impression
    python -m bench.fanout --only project --seconds 10 --runs 1    # this program alone
    python -m bench.fanout --only project --workers 4 --profile /tmp/profile
    python -m bench.fanout --only curve --runs 1 --add             # one more run of each point of the curve

Prints one table with the goals; every figure of every run goes to the section ``fanout`` of ``bench/results.json``,
the picture to ``bench/fanout.png``. With ``--add`` the runs that are there already count too, so that a long benchmark
can be made in parts. Exit code 1 when a run was invalid (an update was lost, say), 130 after Ctrl-C; no process is
left either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from bench import report
from bench.command import parse_numbers, run_command, tell
from bench.comparison import as_dicts, interleaved, summaries
from bench.delivery import Load, Run, Watch
from bench.fanout_plot import draw
from bench.goals import goals
from bench.profiling import Profiler
from bench.targets import NodeSocketIO, Project, StockFlaskSocketIO, Target

TARGETS: dict[str, Callable[[], Target]] = {"project": Project, "node": NodeSocketIO, "stock": StockFlaskSocketIO}
#: What can be measured alone: one of the targets, or the curve.
PARTS = (*TARGETS, "curve")
WORKER_COUNTS = (1, 4)
CURVE = (1000, 2000, 4000, 8000)
QUICK_CURVE = (1000, 4000)
LOAD = Load(clients=1000, devices=1, rate=4000, seconds=8, warm_up_s=3)
QUICK_LOAD = replace(LOAD, seconds=3, warm_up_s=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. ``curve`` holds numbers of clients, for this program alone with the most workers asked for."""

    targets: Sequence[Target]
    worker_counts: Sequence[int]
    load: Load
    runs: int
    curve: Sequence[int]


def plan(parts: Sequence[str], quick: bool, runs: int) -> Plan:
    """The figures of record, or an impression of them, for these of PARTS."""
    targets = [TARGETS[name]() for name in parts if name in TARGETS]
    curve = QUICK_CURVE if quick else CURVE
    return Plan(
        targets, WORKER_COUNTS, QUICK_LOAD if quick else LOAD, 1 if quick else runs, curve if "curve" in parts else ()
    )


def measured(
    plan: Plan, tell: Callable[[str], None], watch: Watch = nullcontext, earlier: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The section ``fanout`` of the results; the runs of an ``earlier`` one, of the same load, count too."""
    before = earlier or {"runs": [], "curve_runs": []}
    kinds = [(target, workers, plan.load) for workers in plan.worker_counts for target in plan.targets]
    runs = interleaved(plan.runs, kinds, tell, watch)
    most_workers = max(plan.worker_counts)
    growing = [(Project(), most_workers, replace(plan.load, clients=clients)) for clients in plan.curve]
    curve_runs = interleaved(plan.runs, growing, tell, watch)
    return section(
        plan.load,
        [Run(**run) for run in before["runs"]] + runs,
        [Run(**run) for run in before["curve_runs"]] + curve_runs,
    )


def section(load: Load, runs: Sequence[Run], curve_runs: Sequence[Run]) -> dict[str, Any]:
    summary, curve = summaries(runs), summaries(curve_runs)
    return {
        "load": asdict(load),
        "goals": [goal.as_dict() for goal in goals(summary, curve)],
        "summary": summary,
        "curve": curve,
        "runs": as_dicts(runs),
        "curve_runs": as_dicts(curve_runs),
    }


def publish_results(section: dict[str, Any], output: Path) -> None:
    """Write them beside what else is in the file, draw them and print them."""
    results = report.started() | {"fanout": section}
    report.write(report.read(output) | results, output)
    draw(section, output.with_name("fanout.png"))
    print(report.table(results))


@click.command()
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="These parts alone.")
@click.option("--quick", is_flag=True, help="One short run of each and a short curve: an impression, no figures.")
@click.option("--workers", help="Numbers of web workers to measure; 1,4 unless given. The curve is made with the most.")
@click.option("--clients", type=click.IntRange(2, 20_000), help="Users that listen; 1000 unless given.")
@click.option("--rate", type=click.FloatRange(1, 50_000), help="States a second; 4000 unless given.")
@click.option("--seconds", type=click.FloatRange(1, 600), help="Measured per run; 8 unless given, after 3 of warm-up.")
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Of each; medians are shown.")
@click.option("--curve", help="Numbers of clients for the curve; 1000,2000,4000,8000 unless given.")
@click.option("--add", is_flag=True, help="Count the runs too that are in the results file already.")
@click.option("--profile", type=click.Path(path_type=Path, file_okay=False), help="Profile a web worker into here.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=report.RESULTS, show_default=True)
def main(
    only: tuple[str, ...], quick: bool, workers: str | None, clients: int | None, rate: float | None,
    seconds: float | None, runs: int, curve: str | None, add: bool, profile: Path | None, output: Path,
) -> int:  # fmt: skip
    """Measure delivery beside the peers, on this machine."""
    chosen = plan(only or PARTS, quick, runs)
    given = {"clients": clients, "rate": rate, "seconds": seconds}
    load = replace(chosen.load, **{name: value for name, value in given.items() if value is not None})
    chosen = replace(chosen, load=load)
    if workers is not None:
        chosen = replace(chosen, worker_counts=parse_numbers(workers))
    if curve is not None:
        chosen = replace(chosen, curve=parse_numbers(curve))
    earlier = report.read(output).get("fanout") if add else None
    if earlier and earlier["load"] != asdict(load):
        raise click.BadParameter(f"the runs in {output} are of another load: {earlier['load']}", param_hint="--add")
    watch = Profiler(profile, tell).watch if profile else nullcontext
    section = measured(chosen, tell, watch, earlier)
    publish_results(section, output)
    return 1 if report.problems({"fanout": section}) else 0


if __name__ == "__main__":
    run_command(main)
