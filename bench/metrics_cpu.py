"""What metrics cost a web worker for each push: three servers side by side, under the same load at the same time.

One is as it is, one lacks the observer that writes metrics, one everything that is there for metrics alone. All three
stand at one Valkey and one publisher serves their users in turn, so that a noisy second of the machine hits them alike;
the difference is a few hundred nanoseconds of a push.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from bench.delivery import START_TIMEOUT_S, Crowd
from bench.processes import BenchmarkFailed, answers, cpu_s, free_port, running
from bench.targets import Project
from bench.valkey import valkey

#: What metrics may cost, of a worker's CPU per push.
GOAL_PERCENT = 3.0
#: Of each server.
CLIENTS = 300
RATE = 2_000
WARM_UP_S = 3.0
TAIL_S = 0.5


class Unobserved(Project):
    name = "without the observer"
    app = "bench.unobserved_wsgi:app"


class Unmeasured(Project):
    name = "without anything for metrics"
    app = "bench.unmeasured_wsgi:app"


KINDS = (Project, Unobserved, Unmeasured)


def measure(seconds: float, first: int = 0) -> dict[str, float]:
    """CPU in µs per push of each kind, by its name, in one run; ``first`` says which of them starts first."""
    targets = [kind() for kind in KINDS[first:] + KINDS[:first]]
    ports = [free_port() for _ in targets]
    with TemporaryDirectory(prefix="bench-") as name, valkey() as redis_url, ExitStack() as stack:
        folder = Path(name)
        masters = [
            stack.enter_context(running(target.start(redis_url, [port], 1, folder)))
            for target, port in zip(targets, ports, strict=True)
        ]
        for master, target, port in zip(masters, targets, ports, strict=True):
            url = target.ready_url(port)
            master.wait_for(lambda url=url: answers(url), START_TIMEOUT_S, "readiness")
        workers = [master.children() for master in masters]
        crowd = Crowd(ports, folder)  # clients go to the ports in turn, and states to the clients in turn
        stack.enter_context(running(crowd.process))
        users = CLIENTS * len(targets)
        _connect(crowd, targets, users)
        rate, published_s = RATE * len(targets), WARM_UP_S + seconds + TAIL_S
        stack.enter_context(running(targets[0].publisher(redis_url, users, rate, published_s, folder)))
        crowd.collect(1)
        warmed = crowd.watch(WARM_UP_S)
        before_s = [cpu_s(pids) for pids in workers]
        seen = crowd.watch(seconds)
        spent_s = [cpu_s(pids) - earlier for pids, earlier in zip(workers, before_s, strict=True)]
        pushes = (seen["received"] - warmed["received"]) / len(targets)
        if seen["closed"] or seen["misdirected"] or pushes < 0.95 * RATE * seconds:
            raise BenchmarkFailed(f"{pushes:.0f} pushes of a server arrived in {seconds:g} s: {seen}")
    return {target.name: used_s / pushes * 1e6 for target, used_s in zip(targets, spent_s, strict=True)}


def _connect(crowd: Crowd, targets: list[Project], users: int) -> None:
    packets = [[user_id, *targets[(user_id - 1) % len(targets)].packets(user_id)] for user_id in range(1, users + 1)]
    crowd.ask({"connect": packets, "answer": "subscribed"}, START_TIMEOUT_S + users / 20)


def compare(runs: int, seconds: float, tell: Callable[[str], None]) -> dict[str, Any]:
    """Each run gives a share of its own; the medians over all runs are what counts."""
    made = []
    for number in range(runs):
        made.append(measure(seconds, number % len(KINDS)))
        tell(f"{number + 1}/{runs}: " + ", ".join(f"{name} {cpu:.2f} µs" for name, cpu in sorted(made[-1].items())))
    return summary(made, seconds)


def summary(runs: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    """``…_percent`` is what of a push's CPU the observer takes, and everything that is there for metrics."""
    shares = {kind.name: [share_percent(run, kind.name) for run in runs] for kind in KINDS[1:]}
    return {
        "load": {"clients": CLIENTS, "rate": RATE, "seconds": seconds},
        "cpu_us_per_push": {kind.name: round(median(run[kind.name] for run in runs), 2) for kind in KINDS},
        "observer_percent": round(median(shares[Unobserved.name]), 2),
        "everything_percent": round(median(shares[Unmeasured.name]), 2),
        "goal_percent": GOAL_PERCENT,
        "runs": runs,
    }


def share_percent(run: dict[str, float], without: str) -> float:
    return (run[Project.name] - run[without]) / run[Project.name] * 100
