"""Many delivery runs side by side: interleaved, their medians, and how these compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from bench.delivery import Load, Run, Watch, measure
from bench.targets import Target

FIGURES = (
    "cpu_us_per_push", "p50_ms", "p99_ms", "max_ms", "connection_pss_kb", "connection_pss_with_first_kb",
    "idle_cores", "server_cores", "clients_cores", "publisher_cores", "valkey_cores", "machine_busy",
    "published_rate", "delivered_rate",
)  # fmt: skip


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians of the valid runs of one target with one number of workers and clients."""
    valid = [run for run in runs if not run.problems]
    return {
        "target": runs[0].target,
        "workers": runs[0].workers,
        "clients": runs[0].clients,
        "valid_runs": len(valid),
        "runs": len(runs),
        "pushes": sum(run.pushes for run in runs),
        "expected": sum(run.expected for run in runs),
        **{name: round(median(getattr(run, name) for run in valid), 3) if valid else None for name in FIGURES},
        "saturated_runs": sum(run.saturated for run in valid),
        "connections_per_worker": runs[-1].connections_per_worker,
        "problems": [problem for run in runs for problem in run.problems],
    }


def summaries(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One for each target, number of workers and number of clients, in the order in which these first ran."""
    groups: dict[tuple[str, int, int], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.target, run.workers, run.clients), []).append(run)
    return [summarise(group) for group in groups.values()]


def interleaved(
    runs: int, kinds: Sequence[tuple[Target, int, Load]], tell: Callable[[str], None], watch: Watch
) -> list[Run]:
    """Measure every kind once, then every kind again: a noisy minute hits everybody alike."""
    done = []
    for number in range(runs):
        for target, workers, load in kinds:
            run = measure(target, workers, load, watch)
            done.append(run)
            tell(f"{number + 1}/{runs}: {run.in_words()}")
    return done


def as_dicts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    return [asdict(run) for run in runs]
