"""Delivery: server CPU per push, latency and memory per connection, beside stock Flask-SocketIO in the same run."""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.processes import BenchmarkFailed, Process, answers, connections, cpu_s, free_port, pss_bytes, running
from bench.targets import Project, StockFlaskSocketIO, Target
from bench.valkey import valkey

START_TIMEOUT_S = 60.0
#: Clients per worker that connect before memory is measured: the first ones pay for what is loaded once.
FIRST_CLIENTS = 40
#: How long the servers are watched doing nothing, with all clients connected.
IDLE_S = 1.0
#: Updates that do not come for so long are lost.
PATIENCE_S = 10.0
#: Clients that are further behind the publisher than this when it ends had a queue before them.
SATURATED_AFTER_MS = 500.0


@dataclass(frozen=True, slots=True)
class Load:
    """``clients`` users with ``devices`` connections each; ``rate`` states a second for ``seconds``."""

    clients: int
    devices: int
    rate: float
    seconds: float


@dataclass(slots=True)
class Run:
    """What one run showed. ``problems`` make it invalid."""

    target: str
    workers: int
    pushes: int = 0
    cpu_us_per_push: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    connection_pss_kb: float = 0.0
    connections_per_worker: list[int] = field(default_factory=list)
    idle_cores: float = 0.0
    server_cores: float = 0.0
    machine_busy: float = 0.0
    published_rate: float = 0.0
    behind_ms: float = 0.0
    saturated: bool = False
    problems: list[str] = field(default_factory=list)

    def in_words(self) -> str:
        figures = f"{self.cpu_us_per_push:.1f} µs a push, p99 {self.p99_ms:.1f} ms"
        remarks = (", saturated" if self.saturated else "") + "".join(f", INVALID: {each}" for each in self.problems)
        return f"{self.target}, {self.workers} workers: {figures}{remarks}"


class Crowd:
    """The load clients in their own process."""

    def __init__(self, port: int, folder: Path) -> None:
        arguments = ["-m", "bench.clients", "--address", f"127.0.0.1:{port}"]
        self.process = Process("clients", arguments, {}, folder, dialogue=True)

    def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send one command; its answer."""
        streams = self.process.popen
        assert streams.stdin and streams.stdout
        try:
            streams.stdin.write(json.dumps(command) + "\n")
            streams.stdin.flush()
        except BrokenPipeError:
            raise BenchmarkFailed(f"the clients ended\n{self.process.log_end()}") from None
        ready, _, _ = select.select([streams.stdout], [], [], timeout_s)
        line = streams.stdout.readline() if ready else ""
        if not line:
            raise BenchmarkFailed(f"the clients did not answer {list(command)}\n{self.process.log_end()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def connect(self, target: Target, users: Sequence[int]) -> int:
        """Open one connection for each of these; how many there are now."""
        each = [[user_id, *target.packets(user_id)] for user_id in users]
        return int(self.ask({"connect": each, "answer": "subscribed"}, START_TIMEOUT_S + len(each) / 20)["connected"])


def measure(target: Target, workers: int, load: Load) -> Run:
    """One run on fresh processes. Raises BenchmarkFailed when it could not be made at all."""
    port = free_port()
    with TemporaryDirectory(prefix="bench-") as name, valkey() as redis_url:
        folder = Path(name)
        with running(target.start(redis_url, port, workers, folder)) as web:
            web.wait_for(lambda: len(web.children()) == workers, START_TIMEOUT_S, f"{workers} workers")
            for _ in range(3 * workers):  # whoever accepts it: as good as every worker has to be there
                web.wait_for(lambda: answers(target.ready_url(port)), START_TIMEOUT_S, "readiness")
            crowd = Crowd(port, folder)
            with running(crowd.process):
                run = Run(target.name, workers)
                pids = web.children()
                _connect(run, crowd, target, pids, load, port)
                _publish(
                    run, crowd, target.publisher(redis_url, load.clients, load.rate, load.seconds), pids, load, folder
                )
            if web.children() != pids:
                run.problems.append("a worker was replaced")
    return run


def _connect(run: Run, crowd: Crowd, target: Target, pids: list[int], load: Load, port: int) -> None:
    users = [number % load.clients + 1 for number in range(load.clients * load.devices)]
    first_users = min(FIRST_CLIENTS * len(pids), len(users) // 2)
    first = crowd.connect(target, users[:first_users])
    pss_before = pss_bytes(pids)
    connected = crowd.connect(target, users[first_users:])
    if connected != len(users):
        run.problems.append(f"{connected} of {len(users)} clients connected")
    if connected > first:
        run.connection_pss_kb = (pss_bytes(pids) - pss_before) / (connected - first) / 1024
    run.connections_per_worker = [connections(pid, port) for pid in pids]


def _publish(run: Run, crowd: Crowd, publisher_arguments: list[str], pids: list[int], load: Load, folder: Path) -> None:
    """Publish while measuring; the window ends with the last update that a client received."""
    run.idle_cores = _idle_cores(pids)
    psutil.cpu_percent()
    cpu_before_s, start_s = cpu_s(pids), time.monotonic()
    with running(Process("publisher", publisher_arguments, {}, folder)) as publisher:
        publisher.popen.wait(load.seconds * 5 + 30)
        ended_at_ms = time.time() * 1000
        counts = _counts(publisher.log_path.read_text(errors="replace"))
    seen = crowd.ask({"collect": counts["published"] * load.devices, "patience_s": PATIENCE_S}, 120.0)
    elapsed_s = time.monotonic() - start_s
    used_s = cpu_s(pids) - cpu_before_s
    run.machine_busy = psutil.cpu_percent() / 100
    run.pushes = seen["received"]
    run.cpu_us_per_push = used_s / max(1, run.pushes) * 1e6
    run.server_cores = used_s / elapsed_s
    run.p50_ms, run.p99_ms, run.max_ms = seen["p50_ms"], seen["p99_ms"], seen["max_ms"]
    run.published_rate = counts["published"] / (counts["elapsed_ms"] / 1000)
    run.behind_ms = max(0.0, seen["last_at_ms"] - ended_at_ms)
    run.saturated = run.behind_ms > SATURATED_AFTER_MS or run.p99_ms > SATURATED_AFTER_MS
    run.problems += _problems(seen, counts, load)


def _idle_cores(pids: list[int]) -> float:
    cpu_before_s, start_s = cpu_s(pids), time.monotonic()
    time.sleep(IDLE_S)
    return (cpu_s(pids) - cpu_before_s) / (time.monotonic() - start_s)


def _problems(seen: dict[str, Any], counts: dict[str, int], load: Load) -> list[str]:
    problems = []
    wanted = counts["published"] * load.devices
    if seen["received"] != wanted:
        problems.append(f"{seen['received']} of {wanted} updates arrived")
    if counts["failed"] or counts["published"] != round(load.rate * load.seconds):
        problems.append(f"{counts['published']} of {round(load.rate * load.seconds)} states were published")
    if seen["most"] - seen["fewest"] > 1:
        problems.append(f"some clients got {seen['fewest']}, others {seen['most']} updates")
    if seen["misdirected"]:
        problems.append(f"{seen['misdirected']} updates of another user arrived")
    if seen["closed"]:
        problems.append(f"{seen['closed']} connections were closed")
    return problems


def _counts(output: str) -> dict[str, int]:
    """``published=10000 … elapsed_ms=5000``, the publisher's last line."""
    words = [word.split("=", 1) for word in output.strip().rpartition("\n")[2].split()]
    counts = {word[0]: int(word[1]) for word in words if len(word) == 2 and word[1].isdigit()}
    if "published" not in counts:
        raise BenchmarkFailed(f"the publisher failed\n{output[-2000:]}")
    return counts


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians of the valid runs of one target at one number of workers."""
    valid = [run for run in runs if not run.problems]
    figures = (
        "cpu_us_per_push",
        "p50_ms",
        "p99_ms",
        "connection_pss_kb",
        "idle_cores",
        "server_cores",
        "machine_busy",
        "behind_ms",
    )
    return {
        "target": runs[0].target,
        "workers": runs[0].workers,
        "valid_runs": len(valid),
        "runs": len(runs),
        "pushes": sum(run.pushes for run in valid),
        **{name: round(median(getattr(run, name) for run in valid), 3) if valid else None for name in figures},
        "saturated_runs": sum(run.saturated for run in valid),
        "connections_per_worker": runs[-1].connections_per_worker,
        "problems": [problem for run in runs for problem in run.problems],
    }


def ratios(summaries: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How the medians compare: with the peer at each number of workers, and with ourselves at one worker."""
    cpu = {(row["target"], row["workers"]): row["cpu_us_per_push"] for row in summaries if row["cpu_us_per_push"]}
    names = sorted({workers for _, workers in cpu})
    found = {}
    for workers in names:
        ours, theirs = cpu.get((Project.name, workers)), cpu.get((StockFlaskSocketIO.name, workers))
        if ours and theirs:
            found[f"stock / pushserver CPU per push, {workers} workers"] = round(theirs / ours, 2)
    if len(names) > 1 and (Project.name, names[0]) in cpu and (Project.name, names[-1]) in cpu:
        found[f"pushserver CPU per push, {names[-1]} / {names[0]} workers"] = round(
            cpu[Project.name, names[-1]] / cpu[Project.name, names[0]], 2
        )
    return found


def compare(
    load: Load, runs: int, worker_counts: Sequence[int], targets: Sequence[Target], tell: Callable[[str], None]
) -> dict[str, Any]:
    """All runs, interleaved so that a noisy minute hits everybody alike."""
    done: list[Run] = []
    for number in range(runs):
        for workers in worker_counts:
            for target in targets:
                run = measure(target, workers, load)
                done.append(run)
                tell(f"delivery {number + 1}/{runs}: {run.in_words()}")
    groups = [
        [run for run in done if (run.target, run.workers) == (target.name, workers)]
        for workers in worker_counts
        for target in targets
    ]
    summaries = [summarise(group) for group in groups]
    return {
        "load": asdict(load),
        "summary": summaries,
        "ratios": ratios(summaries),
        "runs": [asdict(run) for run in done],
    }
